package lock_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

// budget is for how long a call of a silent store hangs: a driver's own limit.
const budget = 10 * time.Second

// outage is a way to the store that falls silent: calls hang, and their
// outcome is unknown.
type outage struct {
	kv.Store
	silent atomic.Bool
}

func (o *outage) Unwrap() kv.Store { return o.Store }

// newOutage falls silent at the n-th write of a lease's row, which lands if
// landed says so.
func newOutage(store kv.Store, n int, landed bool) *outage {
	o := &outage{}
	link := newLink(store)
	link.setFault(func(call kv.Call, i int) fault {
		if call.Op != "AtomicPut" || i != n {
			return nothing
		}
		o.silent.Store(true)
		if landed {
			return lostAnswer
		}
		return lostRequest
	})
	o.Store = kv.Instrument(link, func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
		err := error(&kv.UncertainError{Key: call.Key, Err: errLost})
		if !o.silent.Load() {
			if err = next(ctx); !o.silent.Load() {
				return err
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(budget):
		}
		return err
	})
	return o
}

// outages are how long a store may be out of reach: shorter than the lease
// lasts, and so much longer that the session's end is due before or after
// what is to be written.
func outages(t *testing.T, test func(t *testing.T, lasts time.Duration, landed bool)) {
	t.Helper()
	for _, lasts := range []time.Duration{ttl / 2, ttl, 2 * ttl, 3 * ttl, 4 * ttl, 6 * ttl, 10 * ttl, 20 * ttl} {
		for _, landed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v landed %v", lasts, landed), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) { test(t, lasts, landed) })
			})
		}
	}
}

func TestOnceTakesTheStepBackThatItCouldNotUseHoweverLongTheOutage(t *testing.T) {
	t.Parallel()
	outages(t, func(t *testing.T, lasts time.Duration, landed bool) {
		store := memkv.New()
		way := newOutage(store, startWrite, landed)
		began := time.Now()
		ran, err := lock.NewOnce(newClient(t, way), "job").Do(t.Context(), "slot", mustNotRun(t))
		require.False(t, ran)
		require.ErrorIs(t, err, kv.ErrUncertain)
		require.Less(t, time.Since(began), ttl, "half of the trust, and the time of a release")
		time.Sleep(lasts - time.Since(began))
		way.silent.Store(false)
		time.Sleep(time.Minute) // the background pauses for 30 s at most

		other := lock.NewOnce(newClient(t, store), "job")
		require.Equal(t, lock.Outcome{}, requireState(t, other, lock.StateNone))
		ran, err = other.Do(t.Context(), "slot", nop)
		require.NoError(t, err)
		require.True(t, ran)
		require.Equal(t, 1, requireState(t, other, lock.StateDone).Attempt)
	})
}

func TestOnceRecordsTheOutcomeHoweverLongTheOutage(t *testing.T) {
	t.Parallel()
	outages(t, func(t *testing.T, lasts time.Duration, landed bool) {
		store := memkv.New()
		way := newOutage(store, outcomeWrite, landed)
		ran, err := lock.NewOnce(newClient(t, way), "job").Do(t.Context(), "slot", nop)
		require.True(t, ran)
		require.ErrorIs(t, err, kv.ErrUncertain)
		time.Sleep(lasts)
		way.silent.Store(false)
		time.Sleep(time.Minute)
		requireState(t, lock.NewOnce(newClient(t, store), "job"), lock.StateDone)
	})
}

// What nobody but the claimer can know, the others need not wait for: they
// settle the slot, and the claimer leaves it so when it is back.
func TestOnceOfAClaimerThatIsCutOffBeforeItsStartIsAbandonedByWhoAsks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		way := newOutage(store, startWrite, true)
		_, err := lock.NewOnce(newClient(t, way), "job").Do(t.Context(), "slot", mustNotRun(t))
		require.ErrorIs(t, err, kv.ErrUncertain)
		other := lock.NewOnce(newClient(t, store), "job")
		ran, err := ask(t, other, mustNotRun(t))
		require.False(t, ran)
		require.ErrorIs(t, err, lock.ErrAbandoned)
		before := requireState(t, other, lock.StateAbandoned)
		way.silent.Store(false)
		time.Sleep(time.Minute)
		require.Equal(t, before, requireState(t, other, lock.StateAbandoned), "what was settled stays so")
	})
}

func TestOnceOfAClaimerThatDiedWithItsStepUnansweredIsAbandoned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		client := newClient(t, newOutage(store, startWrite, true)) // for good
		_, err := lock.NewOnce(client, "job").Do(t.Context(), "slot", mustNotRun(t))
		require.ErrorIs(t, err, kv.ErrUncertain)
		closeSoon(client)
		other := lock.NewOnce(newClient(t, store), "job")
		_, err = ask(t, other, mustNotRun(t))
		require.ErrorIs(t, err, lock.ErrAbandoned)
		ran, err := lock.NewOnce(newClient(t, store), "job", lock.TakeOver()).Do(t.Context(), "slot", nop)
		require.NoError(t, err)
		require.True(t, ran)
	})
}

// A slot that failed before is failed again, and not forgotten, when its
// next start comes to nothing.
func TestOnceTakesTheStepBackToWhatTheSlotWasBefore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		plain := lock.NewOnce(newClient(t, store), "job")
		_, err := plain.Do(t.Context(), "slot", func(context.Context, *lease.Lease) error { return errors.New("no price") })
		require.Error(t, err)
		before := requireState(t, plain, lock.StateFailed)
		way := newOutage(store, startWrite+1, true) // the claim of a row that is there takes two writes
		_, err = lock.NewOnce(newClient(t, way), "job", lock.RetryFailed()).Do(t.Context(), "slot", mustNotRun(t))
		require.ErrorIs(t, err, kv.ErrUncertain)
		way.silent.Store(false)
		time.Sleep(time.Minute)
		require.Equal(t, before, requireState(t, plain, lock.StateFailed))
		_, err = plain.Do(t.Context(), "slot", mustNotRun(t))
		require.ErrorIs(t, err, lock.ErrFailed)
	})
}
