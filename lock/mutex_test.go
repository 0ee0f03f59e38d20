package lock_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

func newClient(t *testing.T, store kv.Store) *lease.Client {
	t.Helper()
	c, err := lease.New(store, lease.WithTTL(5*time.Second))
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = c.Close(ctx) // tests leave leases on purpose
	})
	return c
}

func TestDoRunsUnderTheLockAndReleasesAfterwards(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		a, b := lock.NewMutex(newClient(t, store), "job"), lock.NewMutex(newClient(t, store), "job")
		ran := false
		require.NoError(t, a.Do(t.Context(), func(ctx context.Context, l *lease.Lease) error {
			ran = true
			require.True(t, l.Held())
			_, err := b.TryLock(ctx)
			require.ErrorIs(t, err, lease.ErrHeld)
			return nil
		}))
		require.True(t, ran)
		l, err := b.TryLock(t.Context())
		require.NoError(t, err)
		require.NoError(t, l.Release(t.Context()))
	})
}

func TestDoReturnsTheErrorOfItsFunction(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := lock.NewMutex(newClient(t, memkv.New()), "job")
		failed := errors.New("failed")
		require.ErrorIs(t, m.Do(t.Context(), func(context.Context, *lease.Lease) error { return failed }), failed)
	})
}

func TestDoPassesAPanicOnAndReleases(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := lock.NewMutex(newClient(t, memkv.New()), "job")
		require.PanicsWithValue(t, "boom", func() {
			_ = m.Do(t.Context(), func(context.Context, *lease.Lease) error { panic("boom") })
		})
		l, err := m.TryLock(t.Context())
		require.NoError(t, err)
		require.NoError(t, l.Release(t.Context()))
	})
}

func TestDoTellsItsFunctionOfALossAndReportsIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		m := lock.NewMutex(newClient(t, store), "job")
		err := m.Do(t.Context(), func(ctx context.Context, _ *lease.Lease) error {
			pairs, err := store.List(ctx, "session/")
			require.NoError(t, err)
			require.NoError(t, store.Delete(ctx, pairs[0].Key))
			<-ctx.Done()
			var lost *lease.LostError
			require.ErrorAs(t, context.Cause(ctx), &lost)
			require.Equal(t, lease.ReasonKilled, lost.Reason)
			return nil
		})
		require.ErrorIs(t, err, lease.ErrLost)
	})
}

func TestDoEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		m := lock.NewMutex(newClient(t, store), "job")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.NoError(t, m.Do(ctx, func(ctx context.Context, _ *lease.Lease) error {
			<-ctx.Done()
			return nil
		}), "and releases all the same")
		pairs, err := store.List(t.Context(), "lease/")
		require.NoError(t, err)
		require.Empty(t, pairs)
	})
}

func TestMutexIsNotReentrant(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := lock.NewMutex(newClient(t, memkv.New()), "job")
		l, err := m.Lock(t.Context())
		require.NoError(t, err)
		_, err = m.TryLock(t.Context())
		require.ErrorIs(t, err, lease.ErrHeld)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err = m.Lock(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.True(t, l.Held())
		require.NoError(t, l.Release(t.Context()))
	})
}
