package lock_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

// rwSteps calls test with each step of each way to get the lock: get is the
// way, and step the call of the store on its rows, from 1, of those that it
// makes when the lock is free.
func rwSteps(t *testing.T, test func(t *testing.T, get func(*lock.RWMutex, context.Context) error, step int)) {
	for name, way := range map[string]struct {
		steps int
		get   func(*lock.RWMutex, context.Context) error
	}{
		"RDo":    {3, func(m *lock.RWMutex, ctx context.Context) error { return m.RDo(ctx, readNothing) }},
		"TryRDo": {4, func(m *lock.RWMutex, ctx context.Context) error { return m.TryRDo(ctx, readNothing) }},
		"Do":     {4, func(m *lock.RWMutex, ctx context.Context) error { return m.Do(ctx, nop) }},
		"TryDo":  {5, func(m *lock.RWMutex, ctx context.Context) error { return m.TryDo(ctx, nop) }},
	} {
		for step := range way.steps {
			t.Run(fmt.Sprint(name, " ", step+1), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) { test(t, way.get, step+1) })
			})
		}
	}
}

// rwStepped is an RWMutex whose row w is there, over a store that calls hook
// instead of the given step.
func rwStepped(
	t *testing.T, step int, hook func(client *lease.Client, call kv.Call, next func() error) error,
) (store kv.Store, client *lease.Client, m *lock.RWMutex) {
	store = memkv.New()
	require.NoError(t, lock.NewRWMutex(newClient(t, store), "m").RDo(t.Context(), readNothing))
	var calls atomic.Int32
	client = newClient(t, hooked(store, func(call kv.Call, next func() error) error {
		if int(calls.Add(1)) == step {
			return hook(client, call, next)
		}
		return next()
	}))
	require.NoError(t, lock.NewMutex(client, "warm").Do(t.Context(), nop))
	return store, client, lock.NewRWMutex(client, "m")
}

// requireLockable: whoever comes gets the lock, both ways, and no row is left.
func requireLockable(t *testing.T, store kv.Store) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	other := lock.NewRWMutex(newClient(t, store), "m")
	require.NoError(t, other.Do(ctx, nop))
	require.NoError(t, other.RDo(ctx, readNothing))
	require.Empty(t, rwRows(t, store))
}

// An answer or a request that is lost at any step costs a call that waits some
// time, and a try its success. Nothing is left behind.
func TestRWMutexOutcomesThatAreUnknown(t *testing.T) {
	t.Parallel()
	rwSteps(t, func(t *testing.T, get func(*lock.RWMutex, context.Context) error, step int) {
		for _, applied := range []bool{false, true} {
			store, client, m := rwStepped(t, step, func(_ *lease.Client, call kv.Call, next func() error) error {
				if applied {
					if err := next(); err != nil {
						return err
					}
				}
				return &kv.UncertainError{Key: call.Key, Err: errLost}
			})
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			began := time.Now()
			err := get(m, ctx)
			cancel()
			if err != nil {
				require.ErrorIs(t, err, errLost)
			}
			require.Less(t, time.Since(began), 2*time.Second)
			time.Sleep(time.Minute) // R14
			requireLockable(t, store)
			require.NoError(t, client.Close(t.Context()))
		}
	})
}

// A caller that gives up at any step holds nothing.
func TestRWMutexCallersThatGiveUp(t *testing.T) {
	t.Parallel()
	rwSteps(t, func(t *testing.T, get func(*lock.RWMutex, context.Context) error, step int) {
		for _, before := range []bool{true, false} {
			ctx, cancel := context.WithCancel(t.Context())
			store, client, m := rwStepped(t, step, func(_ *lease.Client, call kv.Call, next func() error) error {
				if before {
					cancel()
				}
				err := next()
				cancel()
				synctest.Wait()
				return err
			})
			if err := get(m, ctx); err != nil {
				require.ErrorIs(t, err, context.Canceled)
			}
			time.Sleep(time.Minute) // R14
			require.Empty(t, rwRows(t, store))
			requireLockable(t, store)
			require.NoError(t, client.Close(t.Context()))
		}
	})
}

// Close at any step interrupts the call, waits for it, and leaves nothing.
func TestRWMutexCloseAtEveryStep(t *testing.T) {
	t.Parallel()
	rwSteps(t, func(t *testing.T, get func(*lock.RWMutex, context.Context) error, step int) {
		closed := make(chan error, 1)
		store, _, m := rwStepped(t, step, func(client *lease.Client, _ kv.Call, next func() error) error {
			err := next()
			go func() { closed <- client.Close(context.Background()) }()
			time.Sleep(time.Second)
			return err
		})
		if err := get(m, t.Context()); err != nil {
			require.ErrorIs(t, err, lease.ErrClosed)
		}
		require.NoError(t, <-closed)
		require.ErrorIs(t, get(m, t.Context()), lease.ErrClosed)
		began := time.Now()
		requireLockable(t, store)
		require.Less(t, time.Since(began), time.Second, "Close has ended the session")
	})
}

// A session that ends at any step takes nothing with it that others have to
// wait for, and a call that waits goes on with the next session.
func TestRWMutexSessionLostAtEveryStep(t *testing.T) {
	t.Parallel()
	rwSteps(t, func(t *testing.T, get func(*lock.RWMutex, context.Context) error, step int) {
		var store kv.Store
		store, client, m := rwStepped(t, step, func(client *lease.Client, _ kv.Call, next func() error) error {
			err := next()
			require.NoError(t, store.Delete(t.Context(), "session/"+client.Session()))
			time.Sleep(ttl) // the next heartbeat finds that out
			return err
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := get(m, ctx); err != nil {
			require.True(t, errors.Is(err, lease.ErrLost) || errors.Is(err, kv.ErrUnavailable), err)
		}
		requireLockable(t, store)
		require.NoError(t, m.RDo(ctx, readNothing))
		require.NoError(t, client.Close(t.Context()))
	})
}

// delayed is a store whose writes may land an hour after their operation.
type delayed struct{ kv.Store }

func (delayed) MaxWriteDelay() time.Duration { return time.Hour }

// A create that lands after its caller has given up is given back. Until then a
// writer waits for it: the session lives.
func TestRWMutexACreateThatLandsLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var land func() error
		store := memkv.New()
		client := newClient(t, delayed{hooked(store, func(call kv.Call, next func() error) error {
			if call.Op == "AtomicPut" && isReaderRow(call) && land == nil {
				land = next
				return &kv.UncertainError{Key: call.Key, Err: errLost}
			}
			return next()
		})})
		require.NoError(t, lock.NewMutex(client, "warm").Do(t.Context(), nop))
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		require.ErrorIs(t, lock.NewRWMutex(client, "m").RDo(ctx, mustNotRead(t)), context.DeadlineExceeded)
		time.Sleep(10 * time.Second)
		require.NoError(t, land())
		other := lock.NewRWMutex(newClient(t, store), "m")
		_, err := other.TryLock(t.Context())
		require.ErrorIs(t, err, lease.ErrHeld)
		time.Sleep(time.Minute) // R14
		require.NoError(t, other.TryDo(t.Context(), nop))
		require.Empty(t, rwRows(t, store))
	})
}
