package lease_test

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

func TestTryAcquireHeldErrorAlwaysNamesAHolder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Op == "AtomicPut" && call.Key == "lease/key" {
				return &kv.ConflictError{Key: call.Key, Create: true} // others were faster, and have gone again
			}
			return next(ctx)
		})
		_, err := a.TryAcquire(t.Context(), "key")
		var held *lease.HeldError
		require.ErrorAs(t, err, &held)
	})
}

func TestNoSessionBeatsAfterClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		var beats, opened atomic.Int64
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Op == "AtomicPut" && opened.CompareAndSwap(0, 1) {
				time.Sleep(5 * time.Second) // an attempt whose answer comes as its context ends
				return next(context.WithoutCancel(ctx))
			}
			beats.Add(1)
			return next(ctx)
		})
		go func() { _, _ = a.TryAcquire(context.Background(), "key") }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.Error(t, a.Close(ctx))
		time.Sleep(time.Hour)
		n := beats.Load()
		synctest.Wait()
		require.LessOrEqual(t, n, int64(1), "heartbeats of a closed client: one call deletes its row")
		require.Empty(t, w.rows("session/"))
	})
}

func TestJoinAgainWhileTheLeavingHeartbeatIsOnTheWire(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		leave, err := a.Join(t.Context(), "pool/x")
		require.NoError(t, err)
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			time.Sleep(100 * time.Millisecond)
			return next(ctx)
		})
		leave()
		time.Sleep(50 * time.Millisecond)
		_, err = a.Join(t.Context(), "pool/x")
		require.NoError(t, err)
		time.Sleep(time.Second)
		for m, err := range a.Members(t.Context()) {
			require.NoError(t, err)
			require.True(t, slices.Contains(m.Joined, "pool/x"), "joined a second ago")
		}
	})
}

func TestR12RowWithoutRenewedAtIsNotLongDead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		b, _ := w.client("b", lease.WithMaxClockSkew(time.Second))
		_, err := w.store.AtomicPut(t.Context(), "session/x", kv.WithString(`{"f":2,"ttl_ms":10000,"nonce":"00"}`))
		require.NoError(t, err)
		_, err = w.store.AtomicPut(t.Context(), "lease/key", kv.WithString(`{"f":2,"session":"x","acq":"y"}`))
		require.NoError(t, err)
		_, err = b.TryAcquire(t.Context(), "key")
		require.Error(t, err)
	})
}

func TestUnreleasedCloseTellsTheEndOfALease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var got []lease.EventType
		a, _ := w.client("a", lease.WithObserver(func(e lease.Event) { got = append(got, e.Type) }))
		w.acquire(a, "key")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.Error(t, a.Close(ctx))
		require.True(t, slices.Contains(got, lease.EventReleased) || slices.Contains(got, lease.EventLost), "%v", got)
	})
}

func TestHandedLeaseIsHeldWhenAcquireReturnsIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		b, _ := w.client("b")
		theirs := w.acquire(b, "key")
		var slow atomic.Bool
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			err := next(ctx)
			if call.Op == "Get" && call.Key == "lease/key" && slow.CompareAndSwap(true, false) {
				time.Sleep(1500 * time.Millisecond) // two attempts
			}
			return err
		})
		var held, ok bool
		done := make(chan struct{})
		go func() {
			defer close(done)
			l, err := a.Acquire(t.Context(), "key", lease.WithMaxHold(time.Second))
			ok, held = err == nil, err == nil && l.Held()
			if err == nil {
				_ = l.Release(t.Context())
			}
		}()
		time.Sleep(time.Second)
		slow.Store(true)
		for slow.Load() {
			time.Sleep(10 * time.Millisecond)
		}
		require.NoError(t, theirs.Release(t.Context()))
		mine := w.acquire(a, "key")
		require.NoError(t, mine.Release(t.Context())) // hands over
		<-done
		require.True(t, ok)
		require.True(t, held, "Acquire returned a lease that had ended")
	})
}

func TestABurstOfLocalAcquiresCostsOneWrite(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		require.NoError(t, w.acquire(a, "other").Release(t.Context()))
		link.Take()
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			time.Sleep(5 * time.Millisecond)
			return next(ctx)
		})
		ctx, stop := context.WithCancel(t.Context())
		var wait sync.WaitGroup
		for range 100 {
			wait.Go(func() {
				if l, err := a.Acquire(ctx, "key"); err == nil {
					<-ctx.Done()
					_ = l.Release(context.Background())
				}
			})
		}
		time.Sleep(2900 * time.Millisecond) // before the next heartbeat
		calls := link.Take()
		stop()
		wait.Wait()
		require.Equal(t, map[string]int{"AtomicPut": 1}, calls)
	})
}

func TestCloseInterruptsATryAcquireThatHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		require.NoError(t, w.acquire(a, "other").Release(t.Context()))
		_, _ = w.store.AtomicPut(t.Context(), "lease/key", kv.WithString(`{"f":2,"session":"x","acq":"y"}`))
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Op == "AtomicPut" && call.Key == "lease/key" {
				<-ctx.Done()
				return &kv.UncertainError{Key: call.Key, Err: ctx.Err()}
			}
			return next(ctx)
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _, _ = a.Acquire(ctx, "key") }()
		synctest.Wait()
		began := time.Now()
		closing, c2 := context.WithTimeout(t.Context(), time.Minute)
		defer c2()
		err := a.Close(closing)
		took := time.Since(began)
		cancel()
		<-done
		require.NoError(t, err)
		require.Less(t, took, 30*time.Second)
	})
}
