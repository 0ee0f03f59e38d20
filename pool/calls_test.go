package pool_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/pool"
)

var errJob = errors.New("the job failed")

// failing starts a member whose handler works for a while and fails, for ever,
// and returns when each call began, and how long after the one before it ended.
func (w *world) failing(work time.Duration,
	options ...pool.Option) (m *member, calls *atomic.Int32, gaps func() []time.Duration) {
	w.partitions(1)
	calls = new(atomic.Int32)
	var mu sync.Mutex
	var ended time.Time
	var all []time.Duration
	m = w.member("0", func(_ context.Context, l *pool.Work) error {
		mu.Lock()
		if calls.Add(1) > 1 {
			all = append(all, time.Since(ended))
		}
		mu.Unlock()
		if !l.Held() {
			w.t.Error("called with a lease that was lost")
		}
		time.Sleep(work)
		mu.Lock()
		defer mu.Unlock()
		ended = time.Now()
		return errJob
	}, options...)
	return m, calls, func() []time.Duration {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all)
	}
}

func TestPoolPausesOfAHandlerThatFailsGrowToAMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m, _, gaps := w.failing(0)
		time.Sleep(time.Hour)
		m.leave(t)
		require.LessOrEqual(t, gaps()[0], 2*time.Second)
		late := gaps()[len(gaps())-20:]
		for _, gap := range late {
			require.GreaterOrEqual(t, gap, 30*time.Second)
			require.LessOrEqual(t, gap, 90*time.Second)
		}
	})
}

// What has worked for more than a minute is no handler that always fails.
func TestPoolPausesOfAHandlerThatWorkedLongBeginAnew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m, _, gaps := w.failing(61 * time.Second)
		time.Sleep(time.Hour)
		m.stop()
		require.NoError(t, <-m.ended)
		require.Greater(t, len(gaps()), 50)
		for _, gap := range gaps() {
			require.LessOrEqual(t, gap, 2*time.Second)
		}
	})
}

// A handler that rests after a failure has stopped: nobody waits for the end of
// the pause, and it is not called once more.
func TestPoolPauseOfAHandlerThatFailedEndsWithADrain(t *testing.T) {
	t.Parallel()
	for name, drain := range map[string]func(t *testing.T, m *member){
		"stopped": func(t *testing.T, m *member) {
			m.stop()
			for len(m.ended) == 0 {
				time.Sleep(time.Millisecond)
			}
		},
		"paused":  func(t *testing.T, m *member) { require.NoError(t, m.Pause(t.Context(), "00000")) },
		"removed": func(t *testing.T, m *member) { require.NoError(t, m.Remove(t.Context(), "00000")) },
		"closed":  func(t *testing.T, m *member) { require.NoError(t, m.client.Close(t.Context())) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				m, calls, gaps := w.failing(0, pool.WithPlanInterval(time.Second))
				for len(gaps()) < 12 || gaps()[len(gaps())-1] < 30*time.Second {
					time.Sleep(100 * time.Millisecond)
				}
				before, began := calls.Load(), time.Now()
				drain(t, m)
				require.Less(t, time.Since(began), 3*time.Second)
				require.Equal(t, before, calls.Load())
				m.stop()
				<-m.ended
			})
		})
	}
}

func TestPoolPauseOfAHandlerThatFailedEndsWithItsLease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m, calls, gaps := w.failing(0, pool.WithPlanInterval(time.Second))
		for len(gaps()) < 12 || gaps()[len(gaps())-1] < 30*time.Second {
			time.Sleep(100 * time.Millisecond)
		}
		m.link.SetIntercept(func(context.Context, kv.Call, func(context.Context) error) error { return errLost })
		time.Sleep(lease.DefaultTTL)
		m.link.SetIntercept(nil)
		before, began := calls.Load(), time.Now()
		for calls.Load() == before {
			time.Sleep(100 * time.Millisecond)
		}
		require.Less(t, time.Since(began), 10*time.Second, "it is taken again before the pause was over")
		m.leave(t)
	})
}

type valueKey struct{}

func TestPoolHandlerHasTheValuesOfRunsContextAndItsLossAsCause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.partitions(1)
		c, link := w.client("0")
		cause := make(chan error, 1)
		p, err := pool.New(c, "p", func(ctx context.Context, l *pool.Work) error {
			require.Equal(t, "value", ctx.Value(valueKey{}))
			<-ctx.Done()
			require.False(t, l.Held())
			cause <- context.Cause(ctx)
			return nil
		})
		require.NoError(t, err)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- p.Run(context.WithValue(ctx, valueKey{}, "value")) }()
		time.Sleep(interval)
		link.SetCut(true)
		time.Sleep(ttl)
		require.Equal(t, lease.ReasonExpired, reason(t, <-cause))
		link.SetCut(false)
		stop()
		require.NoError(t, <-ended)
	})
}

// readClock calls read before a reading that the claim's loop takes: between its
// last look whether it has to stop and the call of the handler.
type readClock struct {
	clock.Clock
	read func()
}

func (c *readClock) Now() clock.Reading {
	if pc, _, _, ok := runtime.Caller(1); ok && strings.HasSuffix(runtime.FuncForPC(pc).Name(), ".(*claim).workOn") {
		c.read()
	}
	return c.Clock.Now()
}

// The time to drain is over before the handler, which was about to be called, is.
func TestPoolCallThatBeginsTooLateIsToldAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.partitions(1)
		ctx, stop := context.WithCancel(t.Context())
		late := &readClock{clock.System, sync.OnceFunc(func() {
			stop()
			time.Sleep(time.Second)
		})}
		c, _ := w.client("0", lease.WithClock(late))
		var cause error
		p, err := pool.New(c, "p", func(ctx context.Context, _ *pool.Work) error {
			select {
			case <-ctx.Done():
			case <-time.After(time.Hour):
			}
			cause = context.Cause(ctx)
			return nil
		}, pool.WithDrainTimeout(0))
		require.NoError(t, err)
		require.NoError(t, p.Run(ctx))
		require.ErrorIs(t, cause, pool.ErrDrainTimeout)
	})
}

// A handler that was cancelled for want of progress has failed, whatever it
// returns then: it is called again, with its lease, after a pause.
func TestPoolHandlerThatWasStuckIsCalledAgainWithItsLease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.partitions(1)
		events := &recorder{}
		c, link := w.client("0", lease.WithObserver(events.Observe))
		var tokens []uint64
		var at []time.Time
		m := w.run(&member{client: c, link: link}, func(ctx context.Context, l *pool.Work) error {
			tokens, at = append(tokens, l.Token()), append(at, time.Now())
			if len(tokens) == 3 {
				return pool.ErrDone
			}
			<-ctx.Done()
			require.ErrorIs(t, context.Cause(ctx), pool.ErrStuck)
			require.True(t, l.Held())
			at = append(at, time.Now())
			if len(tokens) == 2 {
				return errJob
			}
			return nil
		}, pool.WithProgressTimeout(20*time.Second))
		require.NoError(t, <-m.ended)
		require.Equal(t, []uint64{tokens[0], tokens[0], tokens[0]}, tokens)
		require.LessOrEqual(t, at[2].Sub(at[1]), 2*time.Second)
		failed := events.Of(pool.EventFailed)
		require.Len(t, failed, 2)
		require.ErrorIs(t, failed[0].Err, pool.ErrStuck)
		require.ErrorIs(t, failed[1].Err, errJob)
		for _, e := range append(failed, events.Of(pool.EventStuck)...) {
			require.Equal(t, "pool/p/00000", e.Key)
			require.Equal(t, tokens[0], e.Token)
			require.NotEmpty(t, e.Session)
			require.Error(t, e.Err)
		}
	})
}

// What a dead member had may be half done, and its successor is told.
func TestPoolMemberThatTakesOverIsTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(4)
		first := w.member("0", b.handler("0"))
		b.await(t, time.Minute, 4, 1)
		events := &recorder{}
		var taken, fresh atomic.Int32
		c, link := w.client("1", lease.WithTTL(lease.DefaultTTL), lease.WithObserver(events.Observe))
		first.crash(b, "0")
		second := w.run(&member{client: c, link: link}, func(ctx context.Context, l *pool.Work) error {
			if l.TakenOver() {
				taken.Add(1)
			} else {
				fresh.Add(1)
			}
			return b.handler("1")(ctx, l)
		})
		b.await(t, failover+2*interval, 4, 1)
		require.NoError(t, second.Add(t.Context(), "fresh"))
		b.await(t, 2*interval, 5, 1)
		require.EqualValues(t, 4, taken.Load())
		require.EqualValues(t, 1, fresh.Load())
		over := 0
		for _, e := range events.Of(lease.EventAcquired) {
			if e.TakenOver {
				over++
			}
		}
		require.Equal(t, 4, over)
		second.leave(t)
	})
}
