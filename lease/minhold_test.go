package lease_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

const minHold = 4 * time.Second

func acquireFor(t *testing.T, c *lease.Client, options ...lease.AcquireOption) *lease.Lease {
	t.Helper()
	l, err := c.TryAcquire(t.Context(), "key", append(options, lease.WithMinHold(minHold))...)
	require.NoError(t, err)
	return l
}

func TestWithMinHoldKeepsAReleasedKeyFromOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		b, _ := w.client("b")
		w.acquire(a, "warm")
		began := time.Now()
		l := acquireFor(t, a)
		time.Sleep(10 * time.Millisecond)
		link.Take()
		require.NoError(t, l.Release(t.Context()))
		require.Equal(t, 10*time.Millisecond, time.Since(began), "it returns at once")
		require.False(t, l.Held())
		require.ErrorIs(t, context.Cause(l.Context()), lease.ErrNotHeld)
		require.NoError(t, l.Release(t.Context()), "again")
		time.Sleep(minHold - 20*time.Millisecond)
		for _, c := range []*lease.Client{a, b} {
			_, err := c.TryAcquire(t.Context(), "key")
			require.ErrorIs(t, err, lease.ErrHeld)
		}
		require.Zero(t, link.Take()["AtomicDelete"])
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		require.Equal(t, 1, link.Take()["AtomicDelete"], "and costs no other request")
		w.acquire(b, "key")
	})
}

func TestWithMinHoldDoesNotKeepAKeyThatWasHeldForLonger(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		l := acquireFor(t, a)
		time.Sleep(minHold)
		require.NoError(t, l.Release(t.Context()))
		require.Empty(t, w.rows("lease/"))
	})
}

func TestWithMinHoldPassesTheKeyOnInItsProcessAfterwards(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		began := time.Now()
		l := acquireFor(t, a)
		got := waitFor(t.Context(), a, "key")
		synctest.Wait()
		require.NoError(t, l.Release(t.Context()))
		second := <-got
		require.NoError(t, second.err)
		require.Equal(t, minHold, second.at.Sub(began))
		require.Greater(t, second.Token(), l.Token())
	})
}

func TestWithMinHoldIsWaitedForByClose(t *testing.T) {
	t.Parallel()
	for name, closeFirst := range map[string]bool{"released before": false, "released while it closes": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				a, _ := w.client("a")
				b, _ := w.client("b")
				began := time.Now()
				l := acquireFor(t, a)
				closed := make(chan error, 1)
				shut := func() { closed <- a.Close(t.Context()) }
				if closeFirst {
					go shut()
					<-l.Context().Done()
				}
				require.NoError(t, l.Release(t.Context()))
				if !closeFirst {
					go shut()
				}
				time.Sleep(minHold - time.Millisecond)
				_, err := b.TryAcquire(t.Context(), "key")
				require.ErrorIs(t, err, lease.ErrHeld)
				require.NoError(t, <-closed)
				require.Equal(t, minHold, time.Since(began))
				c, _ := w.client("c")
				w.acquire(c, "key")
			})
		})
	}
}

func TestWithMinHoldEndsWithACloseThatDoesNotWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, _ := w.client("b")
		l := acquireFor(t, a, lease.KeepValue())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.NoError(t, l.Release(ctx))
		require.ErrorContains(t, a.Close(ctx), "1 leases not released")
		w.acquire(b, "key")

		c, _ := w.client("c")
		l, err := c.TryAcquire(t.Context(), "other", lease.KeepValue(), lease.WithMinHold(time.Hour))
		require.NoError(t, err)
		require.Error(t, c.Close(ctx))
		require.ErrorIs(t, l.ReleaseWith(t.Context(), nil), lease.ErrLost, "there is nothing to wait for")
	})
}

func TestWithMinHoldEndsWithTheSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		l, err := a.TryAcquire(t.Context(), "key", lease.WithMinHold(time.Hour))
		require.NoError(t, err)
		require.NoError(t, l.Release(t.Context()))
		link.SetCut(true)
		time.Sleep(ttl)
		link.SetCut(false)
		time.Sleep(2 * ttl)
		for _, what := range []string{"users", "covered", "held"} {
			require.Zero(t, lease.Remembered(a)[what], what)
		}
		require.NoError(t, (<-waitFor(t.Context(), a, "key")).err)
	})
}

func TestWithMinHoldIsWaitedForByAReleaseThatLeavesAValue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		began := time.Now()
		require.NoError(t, acquireFor(t, a, lease.KeepValue()).ReleaseWith(t.Context(), []byte("1")))
		require.Equal(t, minHold, time.Since(began))
		require.Equal(t, "1", string(inspect(t, a, "key").Value))

		l := acquireFor(t, a)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, l.ReleaseWith(ctx, []byte("2")), context.DeadlineExceeded)
		require.Equal(t, "1", string(inspect(t, a, "key").Value))
		time.Sleep(minHold)
		require.Equal(t, "2", string(inspect(t, a, "key").Value), "it goes on in the background")
		require.False(t, inspect(t, a, "key").Held())
	})
}

// By the monotonic clock: a wall clock that is set forward must not make it shorter.
func TestWithMinHoldCountsOnTheMonotonicClock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _, c := w.skewed("a", 1)
		l := acquireFor(t, a)
		c.Step(minHold)
		require.NoError(t, l.Release(t.Context()))
		time.Sleep(minHold - time.Millisecond)
		require.Equal(t, []string{"lease/key"}, w.rows("lease/"))
	})
}

func TestWithMinHoldIsNotWaitedForByAnOperator(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, _ := w.client("b")
		l, err := a.TryAcquire(t.Context(), "key", lease.WithMinHold(time.Hour))
		require.NoError(t, err)
		require.NoError(t, l.Release(t.Context()))
		require.NoError(t, b.Break(t.Context(), inspect(t, b, "key")))
		w.acquire(b, "key")
		time.Sleep(2 * time.Hour)
		require.True(t, inspect(t, b, "key").Held(), "what is given back later is not another's")
	})
}

// H23: a grant that its waiter does not want any more was nobody's.
func TestWithMinHoldDoesNotKeepAGrantThatNobodyWanted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		first := w.acquire(a, "key")
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan error, 1)
		go func() {
			_, err := a.Acquire(ctx, "key", lease.WithMinHold(time.Hour))
			gone <- err
		}()
		synctest.Wait()
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Op == "AtomicPut" && call.Key == "lease/key" {
				cancel()
				<-gone
			}
			return next(ctx)
		})
		require.NoError(t, first.Release(t.Context()))
		synctest.Wait()
		require.Empty(t, w.rows("lease/"))
	})
}

func TestWithMinHoldRefusesWhatIsOutOfBounds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		for _, d := range []time.Duration{-1, 0, time.Millisecond - 1, 11 * 365 * 24 * time.Hour} {
			_, err := a.TryAcquire(t.Context(), "key", lease.WithMinHold(d))
			require.ErrorIs(t, err, lease.ErrInvalid)
			require.ErrorContains(t, err, d.String())
		}
		_, err := a.TryAcquire(t.Context(), "key", lease.WithMinHold(2*time.Second), lease.WithMaxHold(time.Second))
		require.ErrorIs(t, err, lease.ErrInvalid)
		require.ErrorContains(t, err, "WithMinHold(2s): want at most the 1s of WithMaxHold")
		require.Empty(t, link.Take())
		_, err = a.TryAcquire(t.Context(), "key", lease.WithMinHold(time.Second), lease.WithMaxHold(time.Second))
		require.NoError(t, err)
	})
}

// The session is lost while Close waits for a lease that is not to be given back
// yet.
func TestWithMinHoldAReleaseDuringCloseTellsOfALoss(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		l, err := a.TryAcquire(t.Context(), "key", lease.WithMinHold(time.Hour))
		require.NoError(t, err)
		closed := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Hour)
			defer cancel()
			closed <- a.Close(ctx)
		}()
		synctest.Wait()
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if strings.HasPrefix(call.Key, "session/") {
				return kv.ErrUnavailable
			}
			return next(ctx)
		})
		time.Sleep(ttl)
		link.SetIntercept(nil)
		require.ErrorIs(t, l.Release(t.Context()), lease.ErrLost)
		<-closed
	})
}
