package lease_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

func TestR13ReleaseLatchesBeforeItWrites(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		l := w.acquire(a, "key")
		asked := false
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Key == "lease/key" && call.Op == "AtomicDelete" {
				asked = true
				require.False(t, l.Held())
				require.Error(t, l.Context().Err())
				_, err := a.TryAcquire(ctx, "key")
				require.ErrorIs(t, err, lease.ErrHeld, "a pending release is no orphan")
			}
			return next(ctx)
		})
		require.NoError(t, l.Release(t.Context()))
		require.True(t, asked)
	})
}

func TestR13ReleaseAdoptsOurOwnWriteAndNobodyElses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		l := w.acquire(a, "key")
		pair, err := w.store.Get(t.Context(), "lease/key")
		require.NoError(t, err)
		require.Equal(t, pair.Version, l.Token(), "the token is the row's version")
		require.Contains(t, pair.String(), pair.Fields["acq"], "for the conditions of other writes")
		require.NoError(t, w.store.Put(t.Context(), "lease/key", kv.WithString(pair.String())))
		require.NoError(t, l.Release(t.Context()), "another version, the same acquisition")
		require.Empty(t, w.rows("lease/"))

		l = w.acquire(a, "key")
		require.NoError(t, w.store.Put(t.Context(), "lease/key", kv.WithString(`{"f":2,"session":"x","acq":"y"}`)))
		require.ErrorIs(t, l.Release(t.Context()), lease.ErrLost)
		require.Len(t, w.rows("lease/"), 1, "another acquisition")
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
