package gocronlock_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-co-op/gocron/v2"
	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/adapters/gocron"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
)

// holdings returns what makes lockers of processes that share store.
func holdings(t *testing.T, store kv.Store, atLeast time.Duration) func() gocron.Locker {
	return func() gocron.Locker {
		h, err := gocronlock.NewHolding(newClient(t, store), atLeast)
		require.NoError(t, err)
		return h
	}
}

func TestAHeldLockOutlastsAShortJobInMemory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		requireOncePerTick(t, runTicks(t, time.Minute, holdings(t, memkv.New(), time.Second)))
	})
}

func TestAHeldLockOutlastsAShortJobOnAFile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		requireOncePerTick(t, runTicks(t, time.Minute, holdings(t, newFile(t), time.Second)))
	})
}

func TestAHeldLockOutlastsAShortJobOnDynamoDB(t *testing.T) {
	t.Parallel()
	const period = 3 * time.Second // half of it is how late a busy machine may be
	requireOncePerTick(t, runTicks(t, period, holdings(t, newTable(t), period/2)))
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

func TestALockIsHeldForItsTimeWhenItsClientIsClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		client, err := lease.New(store)
		require.NoError(t, err)
		a, err := gocronlock.NewHolding(client, time.Second)
		require.NoError(t, err)
		b := holdings(t, store, time.Second)()
		l, err := a.Lock(t.Context(), "report")
		require.NoError(t, err)
		require.NoError(t, l.Unlock(t.Context()))
		closed := make(chan error, 1)
		go func() { closed <- client.Close(context.Background()) }()
		time.Sleep(999 * time.Millisecond)
		_, err = b.Lock(t.Context(), "report")
		require.ErrorIs(t, err, lease.ErrHeld, "the job of the same tick does not run again")
		time.Sleep(2 * time.Millisecond)
		require.NoError(t, <-closed)
		l, err = b.Lock(t.Context(), "report")
		require.NoError(t, err)
		require.NoError(t, l.Unlock(t.Context()))
	})
}

func TestUnlockSaysThatAHeldLockWasLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		client := newClient(t, store)
		h, err := gocronlock.NewHolding(client, time.Second)
		require.NoError(t, err)
		l, err := h.Lock(t.Context(), "report")
		require.NoError(t, err)
		holder, err := client.Inspect(t.Context(), "gocron/report")
		require.NoError(t, err)
		require.NoError(t, client.Break(t.Context(), holder, lease.BreakForce()))
		time.Sleep(time.Minute)
		require.ErrorIs(t, l.Unlock(t.Context()), lease.ErrLost)
	})
}
