package lock_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/kvtest"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

// The three writes of a run, in their order.
const (
	claimWrite = iota + 1
	startWrite
	outcomeWrite
)

// from makes AtomicPuts of lease rows fail, count of them from the n-th.
func from(n, count int, what fault) func(kv.Call, int) fault {
	return func(call kv.Call, i int) fault {
		if call.Op == "AtomicPut" && i >= n && i < n+count {
			return what
		}
		return nothing
	}
}

func TestOnceRunsInSpiteOfALostWrite(t *testing.T) {
	t.Parallel()
	for _, what := range []fault{lostAnswer, lostRequest} {
		for write := claimWrite; write <= outcomeWrite; write++ {
			t.Run(fmt.Sprintf("fault %d of write %d", what, write), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					store := memkv.New()
					mine := newLink(store)
					o, other := lock.NewOnce(newClient(t, mine), "job"), lock.NewOnce(newClient(t, store), "job")
					mine.setFault(from(write, 1, what))
					runs := 0
					ran, err := o.Do(t.Context(), "slot", func(context.Context, *lease.Lease) error {
						runs++
						return nil
					})
					require.True(t, ran)
					require.Equal(t, 1, runs)
					if write == outcomeWrite {
						require.ErrorIs(t, err, kv.ErrUncertain, "the caller is told")
					} else {
						require.NoError(t, err)
					}
					time.Sleep(ttl) // recording goes on
					requireState(t, other, lock.StateDone)
					ran, err = other.Do(t.Context(), "slot", mustNotRun(t))
					require.NoError(t, err)
					require.False(t, ran)
				})
			})
		}
	}
}

func TestOnceUsesNothingUpWhenItCannotStart(t *testing.T) {
	t.Parallel()
	for _, what := range []fault{lostAnswer, lostRequest} {
		for write := claimWrite; write <= startWrite; write++ {
			t.Run(fmt.Sprintf("fault %d from write %d", what, write), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					store := memkv.New()
					mine := newLink(store)
					o, other := lock.NewOnce(newClient(t, mine), "job"), lock.NewOnce(newClient(t, store), "job")
					writes := from(write, 1000, what)
					mine.setFault(func(call kv.Call, n int) fault {
						if call.Op == "Get" && n > 1 { // the first is the look at the slot
							return lostRequest
						}
						return writes(call, n)
					})
					ran, err := o.Do(t.Context(), "slot", mustNotRun(t))
					require.ErrorIs(t, err, kv.ErrUncertain)
					require.False(t, ran)
					mine.setFault(nil)
					time.Sleep(ttl) // what may have been written is given back
					requireState(t, other, lock.StateNone)
					ran, err = other.Do(t.Context(), "slot", nop)
					require.NoError(t, err)
					require.True(t, ran)
				})
			})
		}
	}
}

func TestOnceDoesNotStartForACallerThatGaveUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		mine := newLink(store)
		o := lock.NewOnce(newClient(t, mine), "job")
		ctx, cancel := context.WithCancel(t.Context())
		mine.setFault(func(call kv.Call, n int) fault {
			if call.Op == "AtomicPut" && n == startWrite {
				cancel()
			}
			return nothing
		})
		ran, err := o.Do(ctx, "slot", mustNotRun(t))
		require.ErrorIs(t, err, context.Canceled)
		require.False(t, ran)
		require.Equal(t, lock.Outcome{}, requireState(t, o, lock.StateNone))
	})
}

// crash runs the slot on a client that is cut off from the store before its n-th write.
func crash(t *testing.T, store kv.Store, n int) {
	dying := newLink(store)
	dying.setFault(func(call kv.Call, i int) fault {
		if call.Op == "AtomicPut" && i == n {
			dying.cut = true // under the link's mutex
			return lostRequest
		}
		return nothing
	})
	client := newClient(t, dying)
	_, err := lock.NewOnce(client, "job").Do(t.Context(), "slot", nop)
	require.Error(t, err)
}

// ask lets a job ask for the slot every second until it gets an answer.
func ask(t *testing.T, o *lock.Once, fn func(context.Context, *lease.Lease) error) (ran bool, err error) {
	for range 20 {
		if ran, err = o.Do(t.Context(), "slot", fn); err == nil || !errors.Is(err, lease.ErrHeld) {
			return ran, err
		}
		time.Sleep(time.Second)
	}
	require.Fail(t, "held for ever")
	return false, nil
}

func TestOnceOfAClaimerThatDiedBeforeItStartedIsRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		crash(t, store, startWrite)
		o := lock.NewOnce(newClient(t, store), "job")
		ran, err := ask(t, o, nop)
		require.NoError(t, err)
		require.True(t, ran)
		require.Equal(t, 1, requireState(t, o, lock.StateDone).Attempt)
	})
}

func TestOnceOfAClaimerThatDiedWhileItRanIsAbandoned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		crash(t, store, outcomeWrite)
		client := newClient(t, store)
		o := lock.NewOnce(client, "job")
		for range 2 { // the first records it
			ran, err := ask(t, o, mustNotRun(t))
			require.False(t, ran)
			require.ErrorIs(t, err, lock.ErrAbandoned)
			require.NotErrorIs(t, err, lock.ErrFailed)
		}
		abandoned := requireState(t, o, lock.StateAbandoned)
		require.NotZero(t, abandoned.Ended)
		h, err := client.Inspect(t.Context(), o.Key("slot"))
		require.NoError(t, err)
		require.False(t, h.Held(), "recorded, and the key is free")

		ran, err := lock.NewOnce(client, "job", lock.TakeOver()).Do(t.Context(), "slot", nop)
		require.NoError(t, err)
		require.True(t, ran, "somebody decided otherwise")
	})
}

func TestOnceOfAClaimerThatDiedWhileItRanIsTakenOverOnRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		crash(t, store, outcomeWrite)
		o := lock.NewOnce(newClient(t, store), "job", lock.TakeOver())
		dead, err := o.Outcome(t.Context(), "slot")
		require.NoError(t, err)
		ran, err := ask(t, o, func(_ context.Context, l *lease.Lease) error {
			require.True(t, l.TakenOver())
			require.Greater(t, l.Token(), dead.Token)
			return nil
		})
		require.NoError(t, err)
		require.True(t, ran)
		require.Equal(t, 2, requireState(t, o, lock.StateDone).Attempt)
	})
}

func TestOnceDiscardsTheOutcomeOfADeposedClaimer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		mine := newLink(store)
		o := lock.NewOnce(newClient(t, mine), "job")
		other := lock.NewOnce(newClient(t, store), "job", lock.TakeOver())
		ran, err := o.Do(t.Context(), "slot", func(ctx context.Context, _ *lease.Lease) error {
			mine.setCut(true)
			<-ctx.Done()
			ran, err := ask(t, other, nop)
			require.NoError(t, err)
			require.True(t, ran)
			mine.setCut(false)
			return errLost // too late
		})
		require.True(t, ran)
		require.ErrorIs(t, err, lease.ErrLost)
		require.ErrorIs(t, err, errLost)
		require.Equal(t, 2, requireState(t, other, lock.StateDone).Attempt)
	})
}

// race is what became visible of the runs of a few slots.
type race struct {
	mu      sync.Mutex
	starts  map[string]int
	tokens  map[string]uint64
	ordered bool
}

func (r *race) start(slot string, token uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.starts[slot]++
	r.ordered = r.ordered && token > r.tokens[slot]
	r.tokens[slot] = token
}

// runRace lets five clients whose clocks run apart ask for slots over faulty links, and lose their way to the store while they
// run one now and then. It returns what a healthy client finds in the end, too.
func runRace(t *testing.T, seed uint64, options ...lock.OnceOption) (*race, map[string]lock.Outcome) {
	store := memkv.New()
	r := &race{starts: map[string]int{}, tokens: map[string]uint64{}, ordered: true}
	slots := []string{"1", "2", "3", "4", "5", "6"}
	var clients sync.WaitGroup
	for i := range 5 {
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		skewed := clock.NewSkewed(clock.System, 0.98+0.01*float64(i), time.Duration(i-2)*time.Hour)
		way := newLink(kvtest.Faulty(store, kvtest.Plan{
			Seed: seed*5 + uint64(i), LostRequest: 0.08, LostAnswer: 0.08, Throttle: 0.03, Delay: 0.3, MaxDelay: 300 * time.Millisecond,
		}))
		client := newClient(t, way, lease.WithClock(skewed))
		o := lock.NewOnce(client, "job", options...)
		clients.Go(func() {
			for _, slot := range slots {
				time.Sleep(time.Duration(random.Int64N(int64(time.Second))))
				_, _ = o.Do(t.Context(), slot, func(ctx context.Context, l *lease.Lease) error {
					r.start(slot, l.Token())
					if random.IntN(5) == 0 { // out of reach for a while
						way.setCut(true)
						time.AfterFunc(2*ttl, func() { way.setCut(false) })
					}
					_ = clock.Sleep(ctx, clock.System, time.Duration(random.Int64N(int64(2*ttl))))
					if random.IntN(4) == 0 {
						return errLost
					}
					return nil
				})
			}
		})
	}
	clients.Wait()
	time.Sleep(4 * ttl)
	return r, settle(t, store, slots, options)
}

// settle asks for every slot, from a healthy client, until it is settled.
func settle(t *testing.T, store kv.Store, slots []string, options []lock.OnceOption) map[string]lock.Outcome {
	last := lock.NewOnce(newClient(t, store), "job", options...)
	outcomes := map[string]lock.Outcome{}
	for _, slot := range slots {
		require.Eventually(t, func() bool {
			_, err := last.Do(t.Context(), slot, nop)
			return err == nil || errors.Is(err, lock.ErrFailed) || errors.Is(err, lock.ErrAbandoned)
		}, 10*ttl, time.Second)
		outcome, err := last.Outcome(t.Context(), slot)
		require.NoError(t, err)
		outcomes[slot] = outcome
	}
	return outcomes
}

func TestOnceStartsASlotAtMostOnceWhateverFails(t *testing.T) {
	t.Parallel()
	seen := map[lock.State]int{}
	for seed := range uint64(60) {
		synctest.Test(t, func(t *testing.T) {
			r, outcomes := runRace(t, seed)
			for slot, outcome := range outcomes {
				require.LessOrEqual(t, r.starts[slot], 1, "seed %d slot %s", seed, slot)
				require.Equal(t, 1, outcome.Attempt, "seed %d slot %s", seed, slot)
				seen[outcome.State]++
			}
		})
	}
	for _, state := range []lock.State{lock.StateDone, lock.StateFailed, lock.StateAbandoned} {
		require.Positive(t, seen[state], state)
	}
}

func TestOnceWithTakeOverAndRetryGetsEverySlotDone(t *testing.T) {
	t.Parallel()
	again := 0
	for seed := range uint64(60) {
		synctest.Test(t, func(t *testing.T) {
			r, outcomes := runRace(t, seed, lock.TakeOver(), lock.RetryFailed())
			require.True(t, r.ordered, "seed %d: tokens of a slot grow", seed)
			for slot, outcome := range outcomes {
				require.Equal(t, lock.StateDone, outcome.State, "seed %d slot %s", seed, slot)
				again += max(0, outcome.Attempt-1)
			}
		})
	}
	require.Positive(t, again, "the faults were too kind")
}
