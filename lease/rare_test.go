package lease_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// A dead holder's row is freed by somebody else, say an operator, just before it is
// overwritten: the lease is taken over all the same.
func TestTakenOverOutlastsARowThatIsFreed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, la := w.client("a")
		b, lb := w.client("b")
		w.acquire(a, "key")
		require.NoError(t, w.acquire(b, "other").Release(t.Context()))
		la.SetCut(true)
		freed := false
		lb.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Op == "AtomicPut" && call.Key == "lease/key" && len(w.rows("session/")) == 1 && !freed {
				freed = true
				require.NoError(t, w.store.Put(ctx, call.Key, kv.WithString(`{"f":2,"keep":true}`)))
			}
			return next(ctx)
		})
		l, err := b.Acquire(t.Context(), "key")
		require.NoError(t, err)
		require.True(t, freed)
		require.True(t, l.TakenOver())
	})
}

// The answer to a takeover is lost, and another call of the client finds the row.
func TestTakenOverOutlastsTheCallThatTookOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, la := w.client("a")
		b, lb := w.client("b", lease.WithoutTurns())
		w.acquire(a, "key")
		require.NoError(t, w.acquire(b, "other").Release(t.Context()))
		la.SetCut(true)
		ctx, giveUp := context.WithCancel(t.Context())
		done := false
		lb.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			switch err := next(ctx); {
			case call.Key != "lease/key", err != nil:
				return err
			case call.Op == "AtomicPut" && !done:
				done = true
				giveUp()
				return &kv.UncertainError{Key: call.Key, Err: errLost}
			case call.Op == "Get" && done:
				return kv.ErrUnavailable // it is not given back yet
			}
			return nil
		})
		_, err := b.Acquire(ctx, "key")
		require.Error(t, err)
		require.True(t, done)
		l := w.acquire(b, "key")
		require.True(t, l.TakenOver())
	})
}

// A key's state is used again for another key: a wait that has seen nothing names
// nobody.
func TestAWaitDoesNotNameTheHolderOfAnotherKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, link := w.client("b")
		w.acquire(a, "key")
		wait := func(key string) *lease.WaitError {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			_, err := b.Acquire(ctx, key)
			var waited *lease.WaitError
			require.ErrorAs(t, err, &waited)
			return waited
		}
		require.Equal(t, "a", wait("key").Holder.Owner)
		link.SetCut(true)
		require.Nil(t, wait("another").Holder)
	})
}

// An acquiring write has landed, which its uncertain answer shows, and nobody
// waits for it any more.
func TestR14WriteThatIsShownToHaveLandedIsGivenBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		w.acquire(a, "warm")
		ctx, giveUp := context.WithCancel(t.Context())
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if err := next(ctx); err != nil || call.Op != "AtomicPut" || call.Key != "lease/key" {
				return err
			}
			giveUp()
			landed, err := w.store.Get(t.Context(), call.Key)
			require.NoError(t, err)
			return &kv.UncertainError{Key: call.Key, Version: landed.Version, Current: landed, Err: errLost}
		})
		_, err := a.TryAcquire(ctx, "key")
		require.Error(t, err)
		time.Sleep(time.Minute)
		require.Equal(t, []string{"lease/warm"}, w.rows("lease/"))
	})
}

// A holder learns by Update that its row is gone. Others of its process need not
// wait until it has released.
func TestR15UpdateThatFindsItsRowGoneWakesTheLocalWaiter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		l := w.acquire(a, "key")
		next := waitFor(patient(t), a, "key")
		synctest.Wait()
		require.NoError(t, w.store.Delete(t.Context(), "lease/key"))
		require.ErrorIs(t, l.Update(t.Context(), []byte("x")), lease.ErrLost)
		time.Sleep(2 * time.Second)
		require.Len(t, next, 1)
		got := <-next
		require.NoError(t, got.err)
		require.True(t, got.Held())
		require.ErrorIs(t, l.Release(t.Context()), lease.ErrLost)
		require.True(t, got.Held())
	})
}

// A release whose first attempt is shown to have met the row of an own Update has
// done nothing yet: if another has the row by the second one, that was no doing of
// this client's.
func TestR13ReleaseThatMetItsOwnUpdateTellsOfALoss(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		l := w.acquire(a, "key")
		link.LoseAnswer("AtomicPut", "lease/key")
		require.ErrorIs(t, l.Update(t.Context(), []byte("x")), kv.ErrUncertain)
		deletes := 0
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Op != "AtomicDelete" || call.Key != "lease/key" {
				return next(ctx)
			}
			if deletes++; deletes > 1 {
				return next(ctx)
			}
			current, err := w.store.Get(t.Context(), call.Key)
			require.NoError(t, err)
			require.NoError(t, w.store.Put(t.Context(), call.Key, kv.WithString(
				`{"f":2,"session":"other","acq":"other","owner":"other"}`)))
			return &kv.UncertainError{Key: call.Key, Current: current, Err: errLost}
		})
		require.ErrorIs(t, l.Release(t.Context()), lease.ErrLost)
		require.Equal(t, 2, deletes)
	})
}

// Close ends before a holder whose session was lost has had its margin: the row is
// left to its TTL.
func TestR16CloseThatCannotWaitLeavesALostSessionToItsTTL(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		l := w.acquire(a, "key")
		link.SetCut(true)
		<-l.Context().Done()
		link.SetCut(false)
		ctx, cancel := context.WithTimeout(t.Context(), margin/10)
		defer cancel()
		require.Error(t, a.Close(ctx))
		require.Len(t, w.rows("session/"), 1)
	})
}

// The session is lost while Close waits for a lease that is not to be given back
// yet.
func TestWithMinHoldAReleaseDuringCloseTellsOfALoss(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		l, err := a.TryAcquire(t.Context(), "key", lease.WithMinHold(time.Hour))
		require.NoError(t, err)
		closed := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Hour)
			defer cancel()
			closed <- a.Close(ctx)
		}()
		synctest.Wait()
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if strings.HasPrefix(call.Key, "session/") {
				return kv.ErrUnavailable
			}
			return next(ctx)
		})
		time.Sleep(ttl)
		link.SetIntercept(nil)
		require.ErrorIs(t, l.Release(t.Context()), lease.ErrLost)
		<-closed
	})
}
