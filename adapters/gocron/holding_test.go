package gocronlock_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-co-op/gocron/v2"
	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/adapters/gocron"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
)

func TestAHeldLockOutlastsAShortJob(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		c := runTicks(t, time.Minute, func() gocron.Locker {
			h, err := gocronlock.NewHolding(newClient(t, store), time.Second)
			require.NoError(t, err)
			return h
		})
		requireOncePerTick(t, c)
	})
}

func TestAHeldLockIsFreeAfterItsTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		a, err := gocronlock.NewHolding(newClient(t, store), time.Second)
		require.NoError(t, err)
		b, err := gocronlock.NewHolding(newClient(t, store), time.Second)
		require.NoError(t, err)
		l, err := a.Lock(t.Context(), "report")
		require.NoError(t, err)
		time.Sleep(400 * time.Millisecond)
		require.NoError(t, l.Unlock(t.Context()))
		time.Sleep(599 * time.Millisecond)
		_, err = b.Lock(t.Context(), "report")
		require.ErrorIs(t, err, lease.ErrHeld)
		time.Sleep(2 * time.Millisecond)
		l, err = b.Lock(t.Context(), "report")
		require.NoError(t, err)
		time.Sleep(5 * time.Second) // a long job
		require.NoError(t, l.Unlock(t.Context()))
		synctest.Wait()
		l, err = a.Lock(t.Context(), "report")
		require.NoError(t, err, "at once")
		require.NoError(t, l.Unlock(t.Context()))
	})
}

func TestCloseDoesNotWaitForHeldLocks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client, err := lease.New(memkv.New())
		require.NoError(t, err)
		h, err := gocronlock.NewHolding(client, time.Hour)
		require.NoError(t, err)
		l, err := h.Lock(t.Context(), "report")
		require.NoError(t, err)
		require.NoError(t, l.Unlock(t.Context()))
		begin := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.NoError(t, client.Close(ctx))
		require.Less(t, time.Since(begin), time.Second)
	})
}
