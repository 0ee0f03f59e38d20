package lease_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

const lockDelay = time.Minute

func acquireDelayed(t *testing.T, c *lease.Client) *lease.Lease {
	t.Helper()
	l, err := c.TryAcquire(t.Context(), "key", lease.WithLockDelay(lockDelay))
	require.NoError(t, err)
	return l
}

// grantOf waits for the key, but not for ever.
func grantOf(t *testing.T, c *lease.Client, key string) grant {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
	defer cancel()
	g := <-waitFor(ctx, c, key)
	require.NoError(t, g.err)
	return g
}

func TestWithLockDelayIsWaitedForAfterADeath(t *testing.T) {
	t.Parallel()
	for name, acquire := range map[string]func(context.Context, *lease.Client) <-chan grant{
		"one key": func(ctx context.Context, c *lease.Client) <-chan grant { return waitFor(ctx, c, "key") },
		"any of several": func(ctx context.Context, c *lease.Client) <-chan grant {
			got := make(chan grant, 1)
			go func() {
				l, err := c.AcquireAny(ctx, []string{"key"})
				got <- grant{l, err, time.Now()}
			}()
			return got
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				a, link := w.client("a")
				b, own := w.client("b")
				acquireDelayed(t, a)
				link.SetCut(true)
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				began := time.Now()
				got := acquire(ctx, b)
				time.Sleep(patience + ttl/3 + 2*time.Second) // I5: the session is dead
				require.Len(t, w.rows("session/"), 1)
				own.Take()
				time.Sleep(lockDelay / 2)
				require.LessOrEqual(t, own.Take()["Get"], 35, "a read per poll")
				_, err := b.TryAcquire(t.Context(), "key")
				require.ErrorIs(t, err, lease.ErrHeld)
				require.Equal(t, lockDelay, inspect(t, b, "key").LockDelay)
				g := <-got
				require.NoError(t, g.err)
				require.True(t, g.TakenOver())
				require.GreaterOrEqual(t, g.at.Sub(began), patience-ttl/3+lockDelay)
				require.Less(t, g.at.Sub(began), patience+ttl/3+2*time.Second+lockDelay)
				require.NoError(t, g.Release(t.Context()))
			})
		})
	}
}

// Each counts from its own proof: that the session was dead before is not known to
// who comes later.
func TestWithLockDelayCountsFromTheContendersOwnProof(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		b, _ := w.client("b")
		acquireDelayed(t, a)
		w.acquire(a, "other")
		link.SetCut(true)
		grantOf(t, b, "other") // that kills the session
		time.Sleep(time.Hour)
		c, _ := w.client("c")
		began := time.Now()
		for range 2 {
			_, err := c.TryAcquire(t.Context(), "key")
			require.ErrorIs(t, err, lease.ErrHeld)
			time.Sleep(lockDelay / 3)
		}
		g := grantOf(t, c, "key")
		require.InDelta(t, lockDelay.Seconds(), g.at.Sub(began).Seconds(), 1.1)
	})
}

func TestWithLockDelayIsNotWaitedForAfterAReleaseOrClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, _ := w.client("b")
		require.NoError(t, acquireDelayed(t, a).Release(t.Context()))
		require.NoError(t, acquireDelayed(t, b).Release(t.Context()))
		l := acquireDelayed(t, a)
		closed := make(chan error, 1)
		go func() { closed <- a.Close(t.Context()) }()
		<-l.Context().Done()
		require.NoError(t, l.Release(t.Context()))
		require.NoError(t, <-closed)
		began := time.Now()
		g := grantOf(t, b, "key")
		require.Less(t, g.at.Sub(began), time.Second)
	})
}

// Whose Close did not wait for the release may still be at work.
func TestWithLockDelayIsWaitedForAfterACloseThatDidNotWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, _ := w.client("b")
		acquireDelayed(t, a)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.Error(t, a.Close(ctx))
		began := time.Now()
		g := grantOf(t, b, "key")
		require.InDelta(t, lockDelay.Seconds(), g.at.Sub(began).Seconds(), 1.1)
	})
}

func TestWithLockDelayIsCutShortByBreak(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		b, _ := w.client("b")
		acquireDelayed(t, a)
		link.SetCut(true)
		time.Sleep(time.Minute)
		require.NoError(t, b.Break(t.Context(), inspect(t, b, "key")))
		w.acquire(b, "key")
	})
}

func TestWithLockDelayOfAHolderThatGoesOnChangesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		l := acquireDelayed(t, a)
		require.NoError(t, l.Update(t.Context(), []byte("value")))
		require.Equal(t, lockDelay, inspect(t, a, "key").LockDelay, "an update keeps it")
		require.NoError(t, l.Release(t.Context()))
		l = w.acquire(a, "key")
		require.Zero(t, inspect(t, a, "key").LockDelay, "the next acquisition has its own")
		require.NoError(t, l.Release(t.Context()))
	})
}

func TestWithLockDelayRefusesWhatIsOutOfBounds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		for _, d := range []time.Duration{-1, 0, time.Millisecond - 1, lease.MaxTTL + 1} {
			_, err := a.TryAcquire(t.Context(), "key", lease.WithLockDelay(d))
			require.ErrorIs(t, err, lease.ErrInvalid)
			require.ErrorContains(t, err, d.String())
		}
		require.Empty(t, link.Take())
	})
}

// What nobody has had, or its holder has given back, is not waited for.
func TestCloseLeavesNoLockDelayForWritesOfUnknownOutcome(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(t *testing.T, w *world, a *lease.Client, link *link){
		"an acquire": func(t *testing.T, _ *world, a *lease.Client, link *link) {
			var lost, closed atomic.Bool
			link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
				switch {
				case strings.HasPrefix(call.Key, "session/") && strings.HasSuffix(call.Op, "Delete"):
					closed.Store(true)
				case call.Op == "AtomicPut" && call.Key == "lease/key" && lost.CompareAndSwap(false, true):
					require.NoError(t, next(ctx))
					return &kv.UncertainError{Key: call.Key, Err: errLost}
				case call.Op == "Get" && call.Key == "lease/key" && !closed.Load():
					return kv.ErrUnavailable // until the session is deleted nobody can look
				}
				return next(ctx)
			})
			_, err := a.TryAcquire(t.Context(), "key", lease.WithLockDelay(time.Hour))
			require.ErrorIs(t, err, kv.ErrUncertain)
			synctest.Wait() // the client has looked once, and waits
		},
		"a release": func(t *testing.T, _ *world, a *lease.Client, link *link) {
			l, err := a.TryAcquire(t.Context(), "key", lease.WithLockDelay(time.Hour))
			require.NoError(t, err)
			healed := time.Now().Add(time.Minute)
			link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
				if strings.HasPrefix(call.Key, "lease/") && time.Now().Before(healed) {
					return &kv.UncertainError{Key: call.Key, Err: errLost}
				}
				return next(ctx)
			})
			require.ErrorIs(t, l.Release(t.Context()), kv.ErrUncertain)
			time.Sleep(time.Until(healed))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				a, link := w.client("a")
				b, _ := w.client("b")
				require.NoError(t, w.acquire(a, "warm").Release(t.Context()))
				leave(t, w, a, link)
				require.NoError(t, a.Close(t.Context()))
				require.Empty(t, w.rows("lease/"))
				l, err := b.TryAcquire(t.Context(), "key")
				require.NoError(t, err, "at once")
				require.NoError(t, l.Release(t.Context()))
			})
		})
	}
}
