package pool_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/pool"
)

// The timers of the drain timeout and of the progress timeout end with the call
// that they watch over.
func TestPoolLeavesNoTimerBehindWhenAHandlerHasReturned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.partitions(10)
		timers := &timed{Clock: clock.System}
		c, link := w.client("0", lease.WithClock(timers))
		m := w.run(&member{client: c, link: link}, func(ctx context.Context, l *pool.Work) error {
			<-l.Draining()
			time.Sleep(time.Second)
			return nil
		}, pool.WithDrainTimeout(time.Hour), pool.WithProgressTimeout(100*time.Hour))
		time.Sleep(interval)
		synctest.Wait()
		working := timers.pending.Load()
		require.Greater(t, working, int64(10), "one for each looks for progress")
		require.NoError(t, m.Pause(t.Context(), "00000", "00001", "00002", "00003", "00004"))
		synctest.Wait()
		require.Equal(t, working-5, timers.pending.Load())
		m.leave(t)
	})
}

func TestI10PoolLeavesNoTimerBehind(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := &timed{Clock: clock.System}
		client, link := w.client("a", lease.WithClock(c))
		book := newLedger()
		m := w.run(&member{client: client, link: link}, book.handler("a"), pool.WithDrainTimeout(time.Hour))
		require.NoError(t, m.Add(t.Context(), "x", "y"))
		time.Sleep(3 * ttl)
		require.Equal(t, 2, book.load()["a"])
		m.stop()
		require.NoError(t, <-m.ended)
		require.NoError(t, client.Close(t.Context()))
		require.Zero(t, c.pending.Load(), "the handlers returned long before the end of their time")
	})
}

// A call that has ended is watched no longer, however often the handler fails.
func TestPoolWatchdogDoesNotBarkAtACallThatHasEnded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.partitions(1)
		events := &recorder{}
		c, link := w.client("0", lease.WithObserver(events.Observe))
		calls := 0
		m := w.run(&member{client: c, link: link}, func(ctx context.Context, l *pool.Work) error {
			if calls++; calls < 5 {
				time.Sleep(7 * time.Second)
				return errors.New("it failed")
			}
			for range 10 {
				time.Sleep(7 * time.Second)
				l.Progress()
			}
			require.NoError(t, ctx.Err())
			return pool.ErrDone
		}, pool.WithProgressTimeout(10*time.Second))
		require.NoError(t, <-m.ended)
		require.Len(t, events.Of(pool.EventFailed), 4)
		require.Empty(t, events.Of(pool.EventStuck))
	})
}

// The context of a call ends with it, so that what the handler has started
// does.
func TestPoolHandlersContextEndsWhenItReturns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.partitions(1)
		var contexts []context.Context
		outlived := 0
		m := w.member("0", func(ctx context.Context, _ *pool.Work) error {
			for _, earlier := range contexts {
				if earlier.Err() == nil {
					outlived++
				}
			}
			contexts = append(contexts, ctx)
			if len(contexts) < 3 {
				return errors.New("it failed")
			}
			return pool.ErrDone
		})
		require.NoError(t, <-m.ended)
		require.Zero(t, outlived)
		for _, ctx := range contexts {
			require.ErrorIs(t, ctx.Err(), context.Canceled)
		}
	})
}
