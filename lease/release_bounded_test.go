package lease_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/lease"
)

func TestReleaseAndCloseDoNotHangWithTheStoreHoweverLongTheTTL(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a", lease.WithTTL(lease.MaxTTL))
		l := w.acquire(a, "key")
		link.SetCut(true)
		began := time.Now()
		require.Error(t, l.Release(t.Context()))
		require.LessOrEqual(t, time.Since(began), 10*time.Second)
		began = time.Now()
		require.Error(t, a.Close(t.Context()))
		require.LessOrEqual(t, time.Since(began), 10*time.Second)
	})
}

func TestReleaseIsBoundedAlsoWithAWaiter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		l := w.acquire(a, "key")
		ctx, stop := context.WithCancel(t.Context())
		got := waitFor(ctx, a, "key")
		synctest.Wait()
		link.SetCut(true)
		began := time.Now()
		require.Error(t, l.Release(t.Context()))
		stop()
		<-got
		require.LessOrEqual(t, time.Since(began), ttl/3+time.Millisecond)
	})
}
