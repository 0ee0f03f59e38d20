package lock_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
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
					require.NoError(t, err)
					requireState(t, other, lock.StateDone)
					ran, err = other.Do(t.Context(), "slot", mustNotRun(t))
					require.NoError(t, err)
					require.False(t, ran)
				})
			})
		}
	}
}

func TestOnceTellsThatRecordingGoesOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		mine := newLink(store)
		o, other := lock.NewOnce(newClient(t, mine), "job"), lock.NewOnce(newClient(t, store), "job")
		mine.setFault(from(outcomeWrite, 3, lostRequest)) // two of Do, and the first in the background
		ran, err := o.Do(t.Context(), "slot", nop)
		require.True(t, ran)
		require.ErrorIs(t, err, kv.ErrUncertain)
		synctest.Wait()
		requireState(t, other, lock.StateRunning)
		time.Sleep(ttl)
		requireState(t, other, lock.StateDone)
	})
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
		ctx, cancel := context.WithCancel(t.Context())
		writes := 0
		o := lock.NewOnce(newClient(t,
			kv.Instrument(memkv.New(), func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
				err := next(ctx)
				if call.Op == "AtomicPut" && call.Key == "lease/once/job/slot" {
					if writes++; writes == startWrite {
						cancel() // the step has been taken
					}
				}
				return err
			})), "job")
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
