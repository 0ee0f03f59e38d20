package certmagicstorage_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/adapters/certmagic"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
)

func TestALockIsHadOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		a, b := newStorage(t, store), newStorage(t, store)
		require.NoError(t, a.Lock(t.Context(), "foo"))
		for _, s := range []*certmagicstorage.Storage{a, b} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			require.ErrorIs(t, s.Lock(ctx, "foo"), context.DeadlineExceeded)
			ok, err := s.TryLock(t.Context(), "foo")
			require.NoError(t, err)
			require.False(t, ok)
			cancel()
		}
		canceled, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, b.Lock(canceled, "bar"), context.Canceled)
		require.NoError(t, a.Unlock(canceled, "foo"), "the context has ended, the lock is given back")
		require.NoError(t, b.Lock(t.Context(), "foo"))
		require.NoError(t, b.Unlock(t.Context(), "foo"))
		ok, err := a.TryLock(t.Context(), "foo")
		require.NoError(t, err)
		require.True(t, ok)
		require.NoError(t, a.Unlock(t.Context(), "foo"))
		require.ErrorIs(t, a.Unlock(t.Context(), "foo"), lease.ErrNotHeld)
		require.ErrorIs(t, a.RenewLockLease(t.Context(), "foo", time.Hour), lease.ErrNotHeld)
	})
}

func TestGoroutinesAndProcessesTakeTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		var workers sync.WaitGroup
		working, done := 0, 0
		for range 3 {
			s := newStorage(t, store)
			for range 3 {
				workers.Go(func() {
					for range 5 {
						if err := s.Lock(t.Context(), "foo"); err != nil {
							t.Error(err)
							return
						}
						if working++; working > 1 {
							t.Error("two work at the same time")
						}
						time.Sleep(time.Second)
						working--
						done++
						if err := s.Unlock(t.Context(), "foo"); err != nil {
							t.Error(err)
						}
					}
				})
			}
		}
		workers.Wait()
		require.Equal(t, 45, done)
	})
}

// lose makes whoever holds the lock lose it.
func lose(t *testing.T, client *lease.Client, name string) {
	t.Helper()
	h, err := client.Inspect(t.Context(), name)
	require.NoError(t, err)
	require.True(t, h.Held())
	require.NoError(t, client.Break(t.Context(), h))
}

func TestALockThatWasLostIsTakenAgainOrRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		a, b := newStorage(t, store), newStorage(t, store)
		operator, err := lease.New(store)
		require.NoError(t, err)
		defer func() { require.NoError(t, operator.Close(context.Background())) }()

		require.NoError(t, a.Lock(t.Context(), "foo"))
		require.NoError(t, a.RenewLockLease(t.Context(), "foo", time.Hour))
		lose(t, operator, "certmagic/foo")
		require.NoError(t, a.RenewLockLease(t.Context(), "foo", time.Hour), "nobody has it")
		ok, err := b.TryLock(t.Context(), "foo")
		require.NoError(t, err)
		require.False(t, ok, "taken again")
		require.NoError(t, a.Unlock(t.Context(), "foo"))
		ok, err = b.TryLock(t.Context(), "foo")
		require.NoError(t, err)
		require.True(t, ok, "and given back")
		require.NoError(t, b.Unlock(t.Context(), "foo"))

		require.NoError(t, a.Lock(t.Context(), "foo"))
		lose(t, operator, "certmagic/foo")
		require.NoError(t, b.Lock(t.Context(), "foo"))
		require.ErrorIs(t, a.RenewLockLease(t.Context(), "foo", time.Hour), lease.ErrHeld)
		require.NoError(t, a.Unlock(t.Context(), "foo"), "there is nothing to give back")
		require.NoError(t, b.RenewLockLease(t.Context(), "foo", time.Hour), "and b still has its lock")
		require.NoError(t, b.Unlock(t.Context(), "foo"))
	})
}

func TestAnUnlockAfterALossFreesNobodyElsesLock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		s := newStorage(t, store)
		operator, err := lease.New(store)
		require.NoError(t, err)
		defer func() { require.NoError(t, operator.Close(context.Background())) }()
		require.NoError(t, s.Lock(t.Context(), "foo"))
		lose(t, operator, "certmagic/foo")
		next := make(chan error)
		go func() { next <- s.Lock(t.Context(), "foo") }()
		synctest.Wait()
		select {
		case <-next:
			t.Fatal("this process still works under the name")
		default:
		}
		require.NoError(t, s.Unlock(t.Context(), "foo"))
		require.NoError(t, <-next)
		require.NoError(t, s.RenewLockLease(t.Context(), "foo", time.Hour))
		require.NoError(t, s.Unlock(t.Context(), "foo"))
	})
}

func TestTwoUnlocksAtOnceAreOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slow := kv.Instrument(memkv.New(), func(ctx context.Context, _ kv.Call, next func(context.Context) error) error {
			time.Sleep(time.Second)
			return next(ctx)
		})
		s := newStorage(t, slow)
		require.NoError(t, s.Lock(t.Context(), "foo"))
		first := make(chan error)
		go func() { first <- s.Unlock(t.Context(), "foo") }()
		synctest.Wait()
		require.ErrorIs(t, s.Unlock(t.Context(), "foo"), lease.ErrNotHeld, "one is under way")
		require.NoError(t, <-first)
	})
}
