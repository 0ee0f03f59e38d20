package lease_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
)

func TestR9OrphanOfOurOwnIsTakenAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		w.acquire(a, "other")
		link.LoseAnswer("AtomicPut", "lease/")
		_, err := a.TryAcquire(t.Context(), "key")
		require.ErrorIs(t, err, kv.ErrUncertain)
		began := time.Now()
		l, err := a.TryAcquire(t.Context(), "key")
		require.NoError(t, err)
		require.Zero(t, time.Since(began), "I6")
		time.Sleep(2 * ttl)
		require.True(t, l.Held(), "I4: the resolver of the first left the second alone")
		require.Len(t, w.rows("lease/"), 2)
	})
}

func TestR9AcquireGoesOnAfterALostAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		w.acquire(a, "other")
		link.LoseAnswer("AtomicPut", "lease/")
		began := time.Now()
		l, err := a.Acquire(t.Context(), "key")
		require.NoError(t, err)
		require.LessOrEqual(t, time.Since(began), 100*time.Millisecond, "I6")
		require.True(t, l.Held())
	})
}

func TestR9GrantIsRecheckedWhenItsAnswerCame(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		w.acquire(a, "other")
		var slowed atomic.Bool
		before := w.rows("session/")
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			switch {
			case call.Key == "lease/key" && slowed.CompareAndSwap(false, true):
				err := next(ctx)
				time.Sleep(ttl) // the answer comes when the session is no longer trusted
				return err
			case call.Key == before[0] && call.Op == "AtomicPut" && slowed.Load():
				return &kv.UncertainError{Key: call.Key, Err: errLost} // since no heartbeat succeeds
			}
			return next(ctx)
		})
		l, err := a.Acquire(t.Context(), "key")
		link.SetIntercept(nil)
		require.NoError(t, err)
		require.True(t, l.Held(), "I8")
		require.NotEqual(t, before, w.rows("session/"), "under a session that is trusted")
	})
}
