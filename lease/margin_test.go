package lease_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/lease"
)

func TestR3TheMarginIsTheHoldersTimeToStop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const margin = 3 * time.Second
		w := newWorld(t)
		a, link := w.client("a", lease.WithMargin(margin))
		b, _ := w.client("b")
		l := w.acquire(a, "key")
		require.Equal(t, ttl-margin, l.Remaining())
		next := waitFor(t.Context(), b, "key")
		time.Sleep(ttl)
		require.True(t, l.Held())
		link.SetCut(true)
		requireLost(t, l)
		lost := time.Now()
		g := <-next
		require.NoError(t, g.err)
		require.GreaterOrEqual(t, g.at.Sub(lost), margin+ttl/16)
	})
}

func TestR7HeartbeatsMayHaveAWayOfTheirOwn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		own := newLink(w.store)
		a, link := w.client("a", lease.WithHeartbeatStore(own))
		l := w.acquire(a, "key")
		require.Equal(t, map[string]int{"AtomicPut": 2}, link.Take(), "the session and the lease")
		link.SetCut(true) // every connection of the program is taken
		time.Sleep(10 * ttl)
		require.True(t, l.Held())
		calls := own.Take()
		require.InDelta(t, 30, calls["AtomicPut"], 3)
		delete(calls, "AtomicPut")
		require.Empty(t, calls)
		link.SetCut(false)
		require.NoError(t, l.Release(t.Context()))
		require.NoError(t, a.Close(t.Context()))
		require.Empty(t, w.rows(""))
	})
}
