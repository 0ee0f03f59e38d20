package lock_test

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
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

// meddler is what the function of a slot does to its lease besides its work.
type meddler func(context.Context, *rand.Rand, *lease.Lease)

func nothingToIt(context.Context, *rand.Rand, *lease.Lease) {}

// meddleNowAndThen does one of meddling in every second run.
func meddleNowAndThen(ctx context.Context, random *rand.Rand, l *lease.Lease) {
	names := slices.Sorted(maps.Keys(meddling))
	if i := random.IntN(2 * len(names)); i < len(names) {
		_ = meddling[names[i]](ctx, l)
	}
}

// runRace lets five clients whose clocks run apart ask for slots over faulty
// links, and lose their way to the store while they run one now and then.
// meddle does something to the lease in each run. It returns what a healthy
// client finds in the end, too.
func runRace(t *testing.T, seed uint64, meddle meddler, options ...lock.OnceOption) (*race, map[string]lock.Outcome) {
	store := memkv.New()
	r := &race{starts: map[string]int{}, tokens: map[string]uint64{}, ordered: true}
	slots := []string{"1", "2", "3", "4", "5", "6"}
	var clients sync.WaitGroup
	for i := range 5 {
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		skewed := clock.NewSkewed(clock.System, 0.98+0.01*float64(i), time.Duration(i-2)*time.Hour)
		way := newLink(kvtest.Faulty(store, kvtest.Plan{
			Seed: seed*5 + uint64(i), LostRequest: 0.08, LostAnswer: 0.08, Throttle: 0.03, Delay: 0.3,
			MaxDelay: 300 * time.Millisecond,
		}))
		client := newClient(t, way, lease.WithClock(skewed))
		o := lock.NewOnce(client, "job", options...)
		clients.Go(func() {
			for _, slot := range slots {
				time.Sleep(time.Duration(random.Int64N(int64(time.Second))))
				_, _ = o.Do(t.Context(), slot, func(ctx context.Context, l *lease.Lease) error {
					r.start(slot, l.Token())
					meddle(ctx, random, l)
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
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			r, outcomes := runRace(t, seed, nothingToIt)
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

func TestOnceStartsASlotAtMostOnceWhateverItsFunctionDoesToItsLease(t *testing.T) {
	t.Parallel()
	seen := map[lock.State]int{}
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			r, outcomes := runRace(t, seed, meddleNowAndThen)
			for slot, outcome := range outcomes {
				require.LessOrEqual(t, r.starts[slot], 1, "seed %d slot %s", seed, slot)
				seen[outcome.State]++
			}
		})
	}
	require.Positive(t, seen[lock.StateDone])
	require.Positive(t, seen[lock.StateAbandoned])
}

func TestOnceWithTakeOverAndRetryGetsEverySlotDone(t *testing.T) {
	t.Parallel()
	again := 0
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			r, outcomes := runRace(t, seed, nothingToIt, lock.TakeOver(), lock.RetryFailed())
			require.True(t, r.ordered, "seed %d: tokens of a slot grow", seed)
			for slot, outcome := range outcomes {
				require.Equal(t, lock.StateDone, outcome.State, "seed %d slot %s", seed, slot)
				again += max(0, outcome.Attempt-1)
			}
		})
	}
	require.Positive(t, again, "the faults were too kind")
}
