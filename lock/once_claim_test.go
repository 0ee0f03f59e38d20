package lock_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

// meanwhile makes a way to the store on which do happens just before the
// n-th write of a lease's row.
func meanwhile(store kv.Store, n int, do func()) kv.Store {
	writes := 0
	return kv.Instrument(store, func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
		if call.Op == "AtomicPut" && call.Key == "lease/once/job/slot" {
			if writes++; writes == n {
				do()
			}
		}
		return next(ctx)
	})
}

// requireFree checks that nobody holds the slot.
func requireFree(t *testing.T, store kv.Store) *lease.Holder {
	t.Helper()
	h, err := newClient(t, store).Inspect(t.Context(), "once/job/slot")
	require.NoError(t, err)
	require.False(t, h.Held(), "the lease is given back")
	return h
}

func TestOnceGivesTheLeaseOfASlotBackThatWasSettledMeanwhile(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		said, want error
	}{"done": {nil, nil}, "failed": {errLost, lock.ErrFailed}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				store := memkv.New()
				o := lock.NewOnce(newClient(t, meanwhile(store, claimWrite, func() {
					_, err := lock.NewOnce(newClient(t, store), "job").Do(t.Context(), "slot",
						func(context.Context, *lease.Lease) error { return c.said })
					require.ErrorIs(t, err, c.said)
				})), "job")
				ran, err := o.Do(t.Context(), "slot", mustNotRun(t))
				require.False(t, ran)
				require.ErrorIs(t, err, c.want)
				requireFree(t, store)
			})
		})
	}
}

func TestOnceGivesTheLeaseOfASlotBackThatItCannotRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		const value = `{"f":2,"state":"done"}`
		o := lock.NewOnce(newClient(t, meanwhile(store, claimWrite, func() { // of a newer version
			l, err := newClient(t, store).TryAcquire(t.Context(), "once/job/slot", lease.KeepValue(),
				lease.WithValue([]byte(value)))
			require.NoError(t, err)
			require.NoError(t, l.Release(t.Context()))
		})), "job", lock.TakeOver(), lock.RetryFailed())
		ran, err := o.Do(t.Context(), "slot", mustNotRun(t))
		require.False(t, ran)
		require.ErrorIs(t, err, kv.ErrFormat)
		require.JSONEq(t, value, string(requireFree(t, store).Value))
	})
}

// The step was answered, but only after the lease had been lost: another may
// be at work.
func TestOnceDoesNotStartUnderALeaseThatWasLostDuringTheStep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		writes := 0
		client := newClient(t, kv.Instrument(store,
			func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
				err := next(ctx)
				if call.Op == "AtomicPut" && call.Key == "lease/once/job/slot" {
					if writes++; writes == startWrite { // the process stands still meanwhile
						sessions, err := store.List(ctx, "session/")
						require.NoError(t, err)
						require.NoError(t, store.Delete(ctx, sessions[0].Key))
						time.Sleep(2 * ttl)
					}
				}
				return err
			}))
		ran, err := lock.NewOnce(client, "job").Do(t.Context(), "slot", mustNotRun(t))
		require.False(t, ran)
		require.ErrorIs(t, err, lease.ErrLost)
		require.ErrorContains(t, err, "starting")
		requireState(t, lock.NewOnce(newClient(t, store), "job"), lock.StateAbandoned)
	})
}

// Who gives up learns that the claim may have landed, and sends nothing more.
func TestOnceSendsNoMoreForACallerThatGaveUp(t *testing.T) {
	t.Parallel()
	for write := claimWrite; write <= startWrite; write++ {
		synctest.Test(t, func(t *testing.T) {
			mine := newLink(memkv.New())
			o := lock.NewOnce(newClient(t, mine), "job")
			ctx, cancel := context.WithCancel(t.Context())
			writes := 0
			mine.setFault(func(call kv.Call, n int) fault {
				if call.Op != "AtomicPut" {
					return nothing
				}
				if writes = n; n != write {
					return nothing
				}
				cancel()
				return lostRequest
			})
			ran, err := o.Do(ctx, "slot", mustNotRun(t))
			require.False(t, ran)
			require.ErrorIs(t, err, kv.ErrUncertain)
			time.Sleep(time.Minute)
			undone := write - claimWrite // the step's, in one write
			require.Equal(t, write+undone, writes)
		})
	}
}

func TestOnceTellsThatItCouldNotRecordWhatIsAbandoned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		crash(t, store, outcomeWrite)
		claimed, lost := false, 0
		o := lock.NewOnce(newClient(t,
			kv.Instrument(store, func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
				if call.Op != "AtomicPut" || call.Key != "lease/once/job/slot" {
					return next(ctx)
				}
				if claimed && lost < 2 { // a release asks twice
					lost++
					return &kv.UncertainError{Key: call.Key, Err: errLost}
				}
				err := next(ctx)
				claimed = claimed || err == nil
				return err
			})), "job")
		ran, err := ask(t, o, mustNotRun(t))
		require.False(t, ran)
		require.ErrorIs(t, err, lock.ErrAbandoned)
		require.ErrorIs(t, err, kv.ErrUncertain)
		require.ErrorContains(t, err, "recording")
	})
}

func TestForgetDoesNotWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		other := lock.NewOnce(newClient(t, store), "job", lock.Wait())
		_, err := lock.NewOnce(newClient(t, store), "job").Do(t.Context(), "slot",
			func(ctx context.Context, _ *lease.Lease) error {
				ctx, cancel := context.WithTimeout(ctx, time.Minute)
				defer cancel()
				began := time.Now()
				require.ErrorIs(t, other.Forget(ctx, "slot"), lease.ErrHeld)
				require.Zero(t, time.Since(began))
				return nil
			})
		require.NoError(t, err)
	})
}
