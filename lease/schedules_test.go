package lease_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
)

func TestR16BreakOfARefusedGrantCountsForNobody(t *testing.T) {
	for _, other := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			a, link := w.client("a", lease.WithHeartbeat(4*time.Second))
			b, _ := w.client("b")
			var l2 *lease.Lease
			if other {
				l2 = w.acquire(a, "other")
			} else {
				require.NoError(t, w.acquire(a, "other").Release(t.Context()))
			}
			var slow, deaf atomic.Bool
			deaf.Store(true)
			first := true
			link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
				for slow.Load() {
					time.Sleep(100 * time.Millisecond)
				}
				if call.Op == "AtomicDelete" && call.Key == "lease/key" && deaf.Load() {
					return errors.New("throttled for a while")
				}
				err := next(ctx)
				if first && call.Key == "lease/key" {
					first = false
					slow.Store(true)
					time.Sleep(5 * time.Second)
					slow.Store(false)
				}
				return err
			})
			_, err := a.TryAcquire(t.Context(), "key", lease.WithMinRemaining(4500*time.Millisecond))
			require.Error(t, err) // refused by R9.4, the giving back goes on
			require.NoError(t, b.Break(t.Context(), inspect(t, b, "key")))
			deaf.Store(false)
			time.Sleep(2 * time.Second)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			err = a.Close(ctx)
			if other {
				require.Error(t, err, "Close did not wait for the holder of other")
				_ = l2.Release(t.Context())
				return
			}
			require.NoError(t, err, "Close hangs although nothing is held")
		})
	}
}

func TestReleaseWithDuringCloseKeepsTheValue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, _ := w.client("b")
		l, err := a.TryAcquire(t.Context(), "key", lease.KeepValue(), lease.WithValue([]byte("old")))
		require.NoError(t, err)
		closed := make(chan error)
		go func() { closed <- a.Close(context.Background()) }()
		<-l.Context().Done() // told to stop: checkpoint and release
		err = l.ReleaseWith(t.Context(), []byte("checkpoint"))
		require.NoError(t, <-closed)
		if err != nil {
			return // an honest refusal would do
		}
		require.Equal(t, "checkpoint", string(inspect(t, b, "key").Value))
	})
}

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

func TestMaxHoldIsSignalledInTimeHoweverLongTheTTL(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, err := lease.New(memkv.New(), lease.WithTTL(time.Hour))
		require.NoError(t, err)
		l, err := c.TryAcquire(t.Context(), "key", lease.WithMaxHold(time.Second))
		require.NoError(t, err)
		began := time.Now()
		<-l.Context().Done()
		_ = l.Release(t.Context())
		require.NoError(t, c.Close(t.Context()))
		require.LessOrEqual(t, time.Since(began), 2*time.Second)
	})
}

func TestReleaseIsBoundedAlsoWithAWaiter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		l := w.acquire(a, "key")
		ctx, stop := context.WithCancel(t.Context())
		got := waitFor(ctx, a, "key")
		synctest.Wait()
		link.SetCut(true)
		began := time.Now()
		require.Error(t, l.Release(t.Context()))
		stop()
		<-got
		require.LessOrEqual(t, time.Since(began), ttl/3+time.Millisecond)
	})
}

func TestTryAcquireNamesAHolderOrGrants(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a", lease.WithHeartbeat(4*time.Second))
		require.NoError(t, w.acquire(a, "other").Release(t.Context()))
		link.delay("AtomicPut", 900*time.Millisecond) // slow, but within every bound
		_, err := a.TryAcquire(t.Context(), "key", lease.WithMinRemaining(4600*time.Millisecond))
		var held *lease.HeldError
		if errors.Is(err, lease.ErrHeld) {
			require.ErrorAs(t, err, &held, "%v", err)
		}
	})
}

func TestCloseOfAnIdleClientWithAnEndedContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	bad, again := 0, 0
	for range 200 {
		c, err := lease.New(memkv.New())
		require.NoError(t, err)
		if c.Close(ctx) != nil {
			bad++
		}
		if c.Close(ctx) != nil {
			again++
		}
	}
	require.Zero(t, bad, "of 200: nothing was held")
	require.Zero(t, again, "of 200: closing again returns nil")
}

func TestCloseAgainReturnsNil(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 200 {
		c, err := lease.New(memkv.New())
		require.NoError(t, err)
		_ = c.Close(t.Context())
		require.NoError(t, c.Close(ctx))
	}
}

func TestTTLOverflowIsOutOfBounds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		b, _ := w.client("b")
		_, err := w.store.AtomicPut(t.Context(), "session/x", kv.WithString(`{"f":2,"ttl_ms":18446744090000,"nonce":"00"}`))
		require.NoError(t, err)
		_, err = w.store.AtomicPut(t.Context(), "lease/key", kv.WithString(`{"f":2,"session":"x","acq":"y"}`))
		require.NoError(t, err)
		_, err = b.TryAcquire(t.Context(), "key")
		require.ErrorIs(t, err, kv.ErrFormat)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err = b.Acquire(ctx, "key")
		require.ErrorIs(t, err, kv.ErrFormat)
	})
}

func TestLocalWaiterWaitsOutAnOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		l := w.acquire(a, "key")
		got := waitFor(t.Context(), a, "key")
		time.Sleep(time.Minute)
		var down atomic.Bool
		down.Store(true)
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if down.Load() && call.Op == "AtomicPut" && call.Key == "lease/key" {
				return errors.New("connection refused")
			}
			return next(ctx)
		})
		require.NoError(t, l.Release(t.Context()))
		time.Sleep(time.Second)
		down.Store(false)
		require.NoError(t, (<-got).err)
	})
}

func TestNilOptions(t *testing.T) {
	require.NotPanics(t, func() {
		_, err := lease.New(memkv.New(), nil)
		require.ErrorIs(t, err, lease.ErrInvalid)
	})
	c, _ := lease.New(memkv.New())
	require.NotPanics(t, func() {
		_, err := c.TryAcquire(t.Context(), "key", nil)
		require.ErrorIs(t, err, lease.ErrInvalid)
	})
}

func TestLocalWaitIsTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var waiting atomic.Int32
		w := newWorld(t)
		a, _ := w.client("a", lease.WithObserver(func(e lease.Event) {
			if e.Type == lease.EventWaiting {
				waiting.Add(1)
			}
		}))
		w.acquire(a, "key")
		ctx, stop := context.WithCancel(t.Context())
		got := waitFor(ctx, a, "key")
		time.Sleep(time.Minute)
		stop()
		<-got
		require.Positive(t, waiting.Load())
	})
}

func TestR15TwoLocalGoroutinesStarveNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		b, _ := w.client("b", lease.WithPoll(time.Millisecond, 10*time.Millisecond))
		ctx, stop := context.WithCancel(t.Context())
		var wait sync.WaitGroup
		for range 2 {
			wait.Go(func() {
				for ctx.Err() == nil {
					l, err := a.Acquire(ctx, "key")
					if err != nil {
						return
					}
					time.Sleep(5 * time.Millisecond)
					_ = l.Release(ctx)
					time.Sleep(time.Millisecond)
				}
			})
		}
		time.Sleep(time.Second)
		link.Take()
		chance, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		got := <-waitFor(chance, b, "key")
		puts, deletes := link.Take()["AtomicPut"], link.Take()["AtomicDelete"]
		stop()
		wait.Wait()
		if got.err == nil {
			_ = got.Release(t.Context())
		}
		require.NoError(t, got.err, "never in a minute: %d handovers, %d releases", puts, deletes)
	})
}

func TestBreakEndsWhenTheStoreIsClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, lb := w.client("b")
		w.acquire(a, "key")
		h := inspect(t, b, "key")
		lb.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			return kv.ErrClosed
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		err := b.Break(ctx, h)
		require.Error(t, err)
		require.NoError(t, ctx.Err(), "an hour of tries, although trying again does not mend it")
	})
}
