package lease_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

func TestR20SweepLeavesWhatALiveClientWaitsFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, la := w.client("a")
		w.acquire(a, "key")
		_, _, links := w.queueUp("b", "c")
		la.SetCut(true)
		operator, _ := w.client("operator")
		for _, link := range links {
			link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
				if call.Key == "lease/key" {
					<-ctx.Done() // they hang, and live
					return ctx.Err()
				}
				return next(ctx)
			})
		}
		swept, err := operator.Sweep(t.Context(), "")
		require.NoError(t, err)
		require.Zero(t, swept.Keys)
		require.Equal(t, []string{"b", "c"}, w.queue())
		for _, link := range links {
			link.SetCut(true)
		}
		swept, err = operator.Sweep(t.Context(), "")
		require.NoError(t, err)
		require.Equal(t, 1, swept.Keys)
		require.Nil(t, w.leaseRow())
	})
}

// A key that is reserved for the dead is swept as well.
func TestR20SweepRemovesWhatIsReservedForTheDead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		l := w.acquire(a, "key")
		_, _, links := w.queueUp("b", "c")
		for _, link := range links {
			link.SetCut(true)
		}
		require.NoError(t, l.Release(t.Context()))
		operator, _ := w.client("operator")
		swept, err := operator.Sweep(t.Context(), "")
		require.NoError(t, err)
		require.Equal(t, lease.Swept{Sessions: 2, Keys: 1}, swept)
		require.Nil(t, w.leaseRow())
	})
}

// A waiter's session that cannot be read may be alive.
func TestR20SweepGoesOnBesideAWaiterThatCannotBeRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, la := w.client("a")
		w.acquire(a, "key")
		w.acquire(a, "other")
		_, clients, links := w.queueUp("b")
		la.SetCut(true)
		links[0].SetCut(true)
		require.NoError(t, w.store.Put(t.Context(), "session/"+clients[0].Session(), kv.WithString(`{"f":9}`)))
		operator, _ := w.client("operator")
		swept, err := operator.Sweep(t.Context(), "")
		require.NoError(t, err)
		require.Equal(t, 1, swept.Keys)
		require.Equal(t, []string{"b"}, w.queue())
	})
}

func TestR20SweepAsksAfterAllWhoWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, la := w.client("a")
		w.acquire(a, "key")
		_, _, links := w.queueUp("b", "c")
		kept, err := a.Acquire(t.Context(), "kept", lease.KeepValue())
		require.NoError(t, err)
		d, ld := w.client("d", lease.WithTurnAfter(0))
		waitFor(t.Context(), d, "kept")
		time.Sleep(100 * time.Millisecond)
		ld.SetCut(true)
		require.NoError(t, kept.Release(t.Context()))
		la.SetCut(true)
		links[0].SetCut(true)
		links[1].SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Key == "lease/key" {
				<-ctx.Done() // it hangs, and lives
				return ctx.Err()
			}
			return next(ctx)
		})
		operator, _ := w.client("operator")
		swept, err := operator.Sweep(t.Context(), "")
		require.NoError(t, err)
		require.Equal(t, lease.Swept{Sessions: 3}, swept)
		require.Equal(t, []string{"b", "c"}, w.queue())
	})
}

func TestR20ReservedRowIsSweptByTheStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		store := &hints{Store: w.store, swept: map[string]time.Duration{}}
		a, err := lease.New(store, lease.WithTTL(ttl))
		require.NoError(t, err)
		defer func() { _ = a.Close(context.Background()) }()
		l := w.acquire(a, "key")
		_, _, links := w.queueUp("b")
		links[0].SetCut(true)
		require.NoError(t, l.Release(t.Context()))
		require.Equal(t, 24*time.Hour, store.Of("lease/key"))
	})
}
