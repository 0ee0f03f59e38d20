package lease_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

func (w *world) acquireChecked(c *lease.Client, key string, every time.Duration) *lease.Lease {
	w.t.Helper()
	l, err := c.TryAcquire(patient(w.t), key, lease.WithRowCheck(every))
	require.NoError(w.t, err)
	return l
}

func TestWithRowCheckNoticesARowThatWasDeletedByHand(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, _ := w.client("b")
		checked, plain := w.acquireChecked(a, "checked", ttl), w.acquire(a, "plain")
		time.Sleep(3 * ttl)
		require.True(t, checked.Held())
		for _, key := range []string{"checked", "plain"} {
			require.NoError(t, w.store.Delete(t.Context(), "lease/"+key))
		}
		time.Sleep(ttl + 20*time.Millisecond)
		require.Equal(t, lease.ReasonBroken, reason(t, checked.Err()))
		require.Equal(t, lease.ReasonBroken, reason(t, context.Cause(checked.Context())))
		require.True(t, plain.Held(), "nobody tells it")
		require.ErrorIs(t, checked.Release(t.Context()), lease.ErrLost)
		w.acquire(b, "checked")
	})
}

func TestWithRowCheckNoticesARowThatIsAnothers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, _ := w.client("b")
		l := w.acquireChecked(a, "key", time.Second)
		require.NoError(t, w.store.Delete(t.Context(), "lease/key"))
		theirs := w.acquire(b, "key")
		time.Sleep(1200 * time.Millisecond)
		require.Equal(t, lease.ReasonBroken, reason(t, l.Err()))
		require.ErrorIs(t, l.Release(t.Context()), lease.ErrLost)
		time.Sleep(ttl)
		require.True(t, theirs.Held(), "its row is left alone")
		require.Equal(t, []string{"lease/key"}, w.rows("lease/"))
	})
}

func TestWithRowCheckEndsNothingWithoutProof(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c, link := w.client("c")
		l := w.acquireChecked(c, "key", time.Second)
		require.NoError(t, l.Update(t.Context(), []byte("v")))
		time.Sleep(3 * time.Second)
		require.True(t, l.Held(), "an update leaves the acquisition as it is")
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Op == "Get" {
				return kv.ErrUnavailable
			}
			return next(ctx)
		})
		time.Sleep(3 * time.Second)
		require.True(t, l.Held(), "a read that fails proves nothing")
		link.SetIntercept(nil)
		require.NoError(t, w.store.Put(t.Context(), "lease/key", kv.WithBytes([]byte(`{"f":99}`))))
		time.Sleep(3 * time.Second)
		require.True(t, l.Held(), "nor does a row that cannot be read")
	})
}

func TestWithRowCheckReadsAHundredRowsASecondAtMost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c, link := w.client("c")
		for i := range 500 {
			w.acquireChecked(c, fmt.Sprint(i), time.Second)
		}
		time.Sleep(3 * time.Second)
		link.Take()
		time.Sleep(10 * time.Second)
		require.InDelta(t, 1000, link.Take()["Get"], 5)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.Error(t, c.Close(ctx))
		time.Sleep(time.Second)
		link.Take()
		time.Sleep(10 * time.Second)
		require.Empty(t, link.Take(), "nothing is read after Close (I10)")
	})
}

func TestWithRowCheckRefusesIntervalsOutOfBounds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c, link := w.client("c")
		for _, every := range []time.Duration{-1, 0, time.Second - 1, lease.MaxTTL + 1} {
			_, err := c.TryAcquire(t.Context(), "key", lease.WithRowCheck(every))
			require.ErrorIs(t, err, lease.ErrInvalid)
			require.ErrorContains(t, err, every.String())
		}
		require.Empty(t, link.Take())
	})
}
