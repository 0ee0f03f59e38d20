package lease_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// unreadable are rows that no version of this library can read, or not this one.
var unreadable = map[string]string{
	"nonsense":       "lease",
	"a newer format": `{"f":99,"session":"s","acq":"a"}`,
	"half a row":     `{"f":1,"session":"s"}`,
}

func TestR18BreakRowFreesAKeyWhoseRowCannotBeRead(t *testing.T) {
	t.Parallel()
	for name, value := range unreadable {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				a, _ := w.client("a")
				before := w.acquire(a, "key")
				require.NoError(t, before.Release(t.Context()))
				require.NoError(t, w.store.Put(t.Context(), "lease/key", kv.WithString(value)))
				_, err := a.TryAcquire(t.Context(), "key")
				require.ErrorIs(t, err, kv.ErrFormat)
				removed, err := a.BreakRow(t.Context(), "key")
				require.NoError(t, err)
				require.Equal(t, value, string(removed))
				require.Greater(t, w.acquire(a, "key").Token(), before.Token())
			})
		})
	}
}

func TestR17BreakRowLeavesWhatCanBeRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, _ := w.client("b")
		l := w.acquire(a, "key")
		_, err := b.BreakRow(t.Context(), "key")
		require.ErrorIs(t, err, lease.ErrInvalid)
		require.ErrorContains(t, err, "use Break")
		require.NoError(t, l.Update(t.Context(), []byte("still there")))
		_, err = b.BreakRow(t.Context(), "nothing")
		require.ErrorIs(t, err, lease.ErrNotHeld)
		_, err = b.BreakRow(t.Context(), "")
		require.ErrorIs(t, err, lease.ErrInvalid)
	})
}

// Somebody mends the row between the read and the write.
func TestR18BreakRowRemovesTheRowThatItReadAndNoOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		require.NoError(t, w.store.Put(t.Context(), "lease/key", kv.WithString("nonsense")))
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Op == "AtomicDelete" {
				require.NoError(t, w.store.Put(ctx, "lease/key", kv.WithString("mended")))
			}
			return next(ctx)
		})
		_, err := a.BreakRow(t.Context(), "key")
		require.ErrorIs(t, err, kv.ErrKeyModified)
		pair, err := w.store.Get(t.Context(), "lease/key")
		require.NoError(t, err)
		require.Equal(t, "mended", pair.String())
	})
}
