package lease_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

func TestTakenOverOutlastsALostAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, la := w.client("a")
		b, lb := w.client("b")
		w.acquire(a, "key")
		require.NoError(t, w.acquire(b, "other").Release(t.Context()))
		la.SetCut(true)
		done := false
		lb.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			err := next(ctx)
			if !done && call.Op == "AtomicPut" && call.Key == "lease/key" && err == nil {
				done = true
				return &kv.UncertainError{Key: call.Key, Err: errLost}
			}
			return err
		})
		l, err := b.Acquire(t.Context(), "key")
		require.NoError(t, err)
		require.True(t, done)
		require.True(t, l.TakenOver())
	})
}

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
