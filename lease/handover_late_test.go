package lease_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// A lease is handed over while its waiter is at a request that takes long. It is
// granted when that has ended, and has as much time left then as was asked for.
func TestR9HandoverThatReachesItsWaiterLateHasTheTimeThatWasAskedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		b, _ := w.client("b")
		held := w.acquire(b, "key")
		least := 5 * time.Second
		got := make(chan grant, 1)
		go func() {
			l, err := a.Acquire(t.Context(), "key", lease.WithMinRemaining(least))
			got <- grant{l, err, time.Now()}
		}()
		time.Sleep(time.Minute)
		var away atomic.Bool
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			switch {
			case call.Op == "Get" && call.Key == "lease/key":
				time.Sleep(8 * time.Second)
			case call.Op == "AtomicPut" && strings.HasPrefix(call.Key, "session/") && away.Load():
				return kv.ErrUnavailable
			}
			return next(ctx)
		})
		time.Sleep(2 * time.Second) // the waiter reads the row
		require.NoError(t, held.Release(t.Context()))
		other := w.acquire(a, "key")
		away.Store(true)
		require.NoError(t, other.Release(t.Context()))
		require.Equal(t, "a", inspect(t, b, "key").Owner, "it was handed over")
		time.Sleep(5500 * time.Millisecond)
		require.Empty(t, got)
		time.AfterFunc(time.Second, func() { away.Store(false) })
		g := <-got
		require.NoError(t, g.err)
		require.GreaterOrEqual(t, g.Remaining(), least)
		require.NoError(t, g.Release(t.Context()))
	})
}
