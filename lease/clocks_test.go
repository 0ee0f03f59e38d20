package lease_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

func TestR6LossByAStepOfTheClockIsSignalledSoon(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link, c := w.skewed("a", 1)
		l := w.acquire(a, "key")
		time.Sleep(ttl * 2 / 5) // between two heartbeats
		link.SetCut(true)
		c.Step(time.Hour) // or a resume
		began := time.Now()
		<-l.Context().Done()
		require.LessOrEqual(t, time.Since(began), ttl/10, "within the margin, not when the timer would have come")
	})
}

func TestR8OldSessionIsNotEndedBeforeTheHoldersCouldStop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _, c := w.skewed("a", 1)
		b, _ := w.client("b")
		l := w.acquire(a, "key")
		got := waitFor(t.Context(), b, "key")
		time.Sleep(time.Second)
		c.Step(time.Hour)
		began := time.Now()
		require.False(t, l.Held())
		g := <-got
		require.NoError(t, g.err)
		require.GreaterOrEqual(t, g.at.Sub(began), ttl-time.Second-time.Millisecond,
			"t0 + TTL on the clock that does not step")
	})
}

func TestR2NoHeartbeatIsSentAfterTheTrustEnded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link, c := w.skewed("a", 1)
		w.acquire(a, "key")
		link.Take()
		c.Step(time.Hour)
		time.Sleep(ttl / 2)
		require.Zero(t, link.Take()["AtomicPut"], "it would only make others wait")
	})
}

func TestR5LatchOutlastsAStepBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _, c := w.skewed("a", 1)
		l := w.acquire(a, "key")
		c.Step(time.Hour)
		require.False(t, l.Held())
		c.Step(-time.Hour)
		require.False(t, l.Held(), "I7")
		require.Equal(t, lease.ReasonExpired, reason(t, l.Err()))
		w.acquire(a, "other")
		require.NotEqual(t, inspect(t, a, "key").Session, inspect(t, a, "other").Session,
			"nor is the session believed in again")
	})
}

func TestR4ContenderCountsOnTheMonotonicClockFromTheReceipt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, holder := w.client("a")
		b, link, c := w.skewed("b", 1)
		w.acquire(a, "key")
		holder.SetCut(true)
		link.delay("Get", 3*time.Second)
		_, err := b.TryAcquire(t.Context(), "key")
		require.ErrorIs(t, err, lease.ErrHeld)
		link.SetIntercept(nil)
		c.Step(time.Hour)
		time.Sleep(patience - time.Millisecond)
		link.Take()
		_, err = b.TryAcquire(t.Context(), "key")
		require.ErrorIs(t, err, lease.ErrHeld)
		require.Zero(t, link.Take()["AtomicDelete"],
			"not a moment before ttl + d from the receipt, whatever the wall clock did")
		time.Sleep(2 * time.Millisecond)
		_, err = b.TryAcquire(t.Context(), "key")
		require.NoError(t, err)
	})
}

func TestR3TrustCountsFromBeforeTheHeartbeatWasSent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		link.delay("AtomicPut", 0)
		l := w.acquire(a, "key")
		link.delay("AtomicPut", time.Second)
		time.Sleep(ttl / 2) // one heartbeat, sent within 3 to 3.7 s, acknowledged a second later
		before := l.Remaining()
		require.LessOrEqual(t, before, ttl-ttl/10-time.Second)
	})
}

func TestR3AnswerThatFindsTheOldDeadlinePassedDoesNotReviveTheSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link, c := w.skewed("a", 1)
		l := w.acquire(a, "key")
		var stepped atomic.Bool
		link.SetIntercept(func(ctx context.Context, _ kv.Call, next func(context.Context) error) error {
			err := next(ctx)
			if stepped.CompareAndSwap(false, true) {
				c.Step(ttl * 6 / 10) // the old deadline is past now, that of this heartbeat is not
			}
			return err
		})
		for !stepped.Load() {
			time.Sleep(time.Millisecond)
		}
		synctest.Wait()
		require.False(t, l.Held())
		require.Equal(t, lease.ReasonExpired, reason(t, l.Err()))
	})
}

func TestR3TrustOfANewSessionCountsFromBeforeItsRowWasSent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		link.delay("AtomicPut", time.Second) // the session's row, and then the lease's
		l := w.acquire(a, "key")
		require.Equal(t, ttl-margin-2*time.Second, l.Remaining())
	})
}

// deaf is a clock whose timers of AfterFunc never fire, as in a process that was stopped.
type deaf struct{ clock.Clock }

func (d deaf) AfterFunc(_ time.Duration, f func()) clock.Timer {
	t := d.Clock.AfterFunc(time.Hour, f)
	t.Stop()
	return deafTimer{t}
}

type deafTimer struct{ clock.Timer }

func (deafTimer) Reset(time.Duration) bool { return false }

func TestR8SessionThatIsFoundLostLateIsNotEndedBeforeTheHoldersCouldStop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a", lease.WithClock(deaf{clock.System}))
		l := w.acquire(a, "key")
		awake := make(chan struct{})
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			select {
			case <-awake:
				return next(ctx)
			default:
			}
			<-awake // the process was stopped in the middle of a heartbeat
			return &kv.UncertainError{Key: call.Key, Err: ctx.Err()}
		})
		time.Sleep(2 * ttl)
		require.NoError(t, l.Context().Err(), "nobody has looked at a clock")
		require.False(t, l.Held())
		close(awake)
		time.Sleep(margin - time.Millisecond)
		require.Len(t, w.rows("session/"), 1)
		time.Sleep(2 * time.Millisecond)
		require.Empty(t, w.rows("session/"))
		require.ErrorIs(t, l.Release(t.Context()), lease.ErrLost)
	})
}
