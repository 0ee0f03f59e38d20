package lease_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
)

func TestWithMaxHoldEndsALeaseAndGivesTheKeyBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, _ := w.client("b")
		began := time.Now()
		l, err := a.TryAcquire(t.Context(), "key", lease.WithMaxHold(30*time.Second))
		require.NoError(t, err)
		plain := w.acquire(a, "other")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		got := waitFor(ctx, b, "key")
		<-l.Context().Done()
		require.InDelta(t, 30, time.Since(began).Seconds(), 1)
		require.Equal(t, lease.ReasonMaxHold, reason(t, l.Err()))
		require.True(t, plain.Held())
		second := <-got
		require.NoError(t, second.err)
		require.GreaterOrEqual(t, second.at.Sub(began), 31*time.Second) // 30 s and the margin
		require.Less(t, second.at.Sub(began), 34*time.Second)
		require.ErrorIs(t, l.Release(t.Context()), lease.ErrLost)
		require.True(t, second.Held())
	})
}

// Between two looks at the trust deadline, and counted from before the acquiring write was sent.
func TestWithMaxHoldIsSignalledAtItsTimeAndTheKeyGivenBackAfterTheMargin(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const most, answer = 5700 * time.Millisecond, 800 * time.Millisecond
		w := newWorld(t)
		a, link := w.client("a")
		plain := w.acquire(a, "other")
		link.delay("AtomicPut", answer)
		began := time.Now()
		l, err := a.TryAcquire(t.Context(), "key", lease.WithMaxHold(most))
		require.NoError(t, err)
		link.SetIntercept(nil)
		require.InDelta(t, most-answer, l.Remaining(), float64(10*time.Millisecond),
			"not what is left of the session's trust")
		<-l.Context().Done()
		require.Equal(t, most, time.Since(began))
		require.Equal(t, lease.ReasonMaxHold, reason(t, context.Cause(l.Context())))
		require.False(t, l.Held())
		require.Zero(t, l.Remaining())
		time.Sleep(margin - time.Millisecond)
		require.Contains(t, w.rows("lease/"), "lease/key")
		time.Sleep(2 * time.Millisecond)
		require.Equal(t, []string{"lease/other"}, w.rows("lease/"), "whether or not the holder has released it")
		require.True(t, plain.Held())
	})
}

// By the clock that counted most (R4), without waiting for a timer.
func TestWithMaxHoldIsComputedWhenAskedForAndLatched(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _, c := w.skewed("a", 1)
		plain := w.acquire(a, "other")
		l, err := a.TryAcquire(t.Context(), "key", lease.WithMaxHold(ttl/2))
		require.NoError(t, err)
		c.Step(ttl/2 - time.Millisecond)
		require.True(t, l.Held())
		c.Step(time.Millisecond)
		require.False(t, l.Held())
		require.Equal(t, lease.ReasonMaxHold, reason(t, context.Cause(l.Context())))
		c.Step(-time.Hour)
		require.False(t, l.Held(), "I7")
		require.Equal(t, lease.ReasonMaxHold, reason(t, l.Err()))
		require.True(t, plain.Held())
	})
}

// Whoever has a lease that was lost just before its max-hold was over has still to
// stop, and release it.
func TestWithMaxHoldReleasesNoLeaseThatWasLostBefore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		require.NoError(t, w.acquire(a, "other").Release(t.Context())) // the session is trusted for 9 s
		time.Sleep(margin / 4)
		l, err := a.TryAcquire(t.Context(), "key", lease.WithMaxHold(ttl-margin-margin/4+margin/10))
		require.NoError(t, err)
		link.SetCut(true)
		requireLost(t, l)
		require.Equal(t, lease.ReasonExpired, reason(t, l.Err()))
		link.SetCut(false)
		time.Sleep(3 * ttl)
		require.Equal(t, 1, lease.Remembered(a)["users"])
		require.ErrorIs(t, l.Release(t.Context()), lease.ErrLost)
		require.Zero(t, lease.Remembered(a)["users"])
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
