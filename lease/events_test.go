package lease_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

func TestObserverIsToldTheLifeOfALease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var events, others recorder
		a, link := w.client("a", lease.WithObserver(events.Observe))
		b, _ := w.client("b", lease.WithObserver(others.Observe))
		l := w.acquire(a, "key")
		require.Equal(t, []string{"session opened ", "acquired keya"}, events.Take())
		got := waitFor(t.Context(), b, "key")
		require.Equal(t, []string{"session opened ", "waiting keya"}, others.Take())
		time.Sleep(ttl)
		require.Empty(t, events.Take())
		link.SetCut(true)
		requireLost(t, l)
		jeopardies := events.Of(lease.EventJeopardy)
		require.NotEmpty(t, jeopardies)
		for _, e := range jeopardies {
			require.Error(t, e.Err)
			require.Positive(t, e.Remaining)
		}
		emitted := events.Take()
		require.Equal(t, []string{"session lost expired", "lost keyexpired"}, emitted[len(emitted)-2:])
		require.NoError(t, (<-got).err)
		require.Equal(t, []string{"session overdue a", "session killed a", "acquired keyb"}, others.Take())
		link.SetCut(false)
		ctx, cancel := context.WithTimeout(t.Context(), 2*margin)
		defer cancel()
		require.ErrorIs(t, b.Close(ctx), context.DeadlineExceeded)
		require.Contains(t, others.Take(), "session closed ")
	})
}

func TestObserverIsToldHowEachCallEnded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var events recorder
		a, _ := w.client("a")
		b, link := w.client("b", lease.WithObserver(events.Observe))
		l := w.acquire(a, "key")

		_, err := b.TryAcquire(t.Context(), "key")
		require.ErrorIs(t, err, lease.ErrHeld)
		refused := events.Of(lease.EventRefused)
		require.Len(t, refused, 1)
		require.Equal(t, []any{"key", "a", l.Token(), uint64(1), nil},
			[]any{refused[0].Key, refused[0].Owner, refused[0].Token, refused[0].Call, refused[0].Err})
		require.Empty(t, events.Of(lease.EventWaiting), "who only tries does not wait")

		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errLost)
		defer cancel()
		_, err = b.Acquire(ctx, "key")
		require.ErrorIs(t, err, errLost)
		link.SetIntercept(func(context.Context, kv.Call, func(context.Context) error) error { return kv.ErrTooLarge })
		_, err = b.TryAcquire(t.Context(), "other")
		require.ErrorIs(t, err, kv.ErrTooLarge)
		link.SetIntercept(nil)
		got := waitFor(t.Context(), b, "key")
		synctest.Wait()
		require.NoError(t, b.Close(expired(t)))
		require.ErrorIs(t, (<-got).err, lease.ErrClosed)

		gaveUp := events.Of(lease.EventGaveUp)
		require.Len(t, gaveUp, 3)
		require.Equal(t, []any{"key", uint64(2), time.Minute, nil},
			[]any{gaveUp[0].Key, gaveUp[0].Call, gaveUp[0].Waited, gaveUp[0].Err}, "its context ended, whatever the cause")
		require.Equal(t, "other", gaveUp[1].Key)
		require.ErrorIs(t, gaveUp[1].Err, kv.ErrTooLarge)
		require.Equal(t, []any{"key", uint64(4), nil}, []any{gaveUp[2].Key, gaveUp[2].Call, gaveUp[2].Err},
			"the client was closed")
		var waited []uint64
		for _, e := range events.Of(lease.EventWaiting) {
			waited = append(waited, e.Call)
		}
		require.Equal(t, []uint64{2, 4}, waited, "each that waits says how it ended")
	})
}

func TestEventsTellHowLongItTook(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var events recorder
		a, link := w.client("a", lease.WithObserver(events.Observe))
		l := w.acquire(a, "key")
		opened := events.Of(lease.EventSessionOpened)
		require.Len(t, opened, 1)
		require.Equal(t, []any{ttl, ttl - margin}, []any{opened[0].TTL, opened[0].Remaining})
		got := waitFor(t.Context(), a, "key")
		time.Sleep(time.Second)
		require.NoError(t, l.Release(t.Context()))
		l = (<-got).Lease
		acquired := events.Of(lease.EventAcquired)
		require.Len(t, acquired, 2)
		require.Equal(t, []any{"a", uint64(2), time.Second}, []any{acquired[1].Owner, acquired[1].Call, acquired[1].Waited})
		require.Equal(t, time.Second, events.Of(lease.EventReleased)[0].Held)

		slow := func(failure error) {
			link.SetIntercept(func(ctx context.Context, _ kv.Call, next func(context.Context) error) error {
				time.Sleep(300 * time.Millisecond)
				if failure != nil {
					return failure
				}
				return next(ctx)
			})
		}
		slow(nil)
		time.Sleep(ttl)
		for _, e := range events.Of(lease.EventHeartbeat) {
			require.Equal(t, 300*time.Millisecond, e.Took)
		}
		require.NotEmpty(t, events.Of(lease.EventHeartbeat))
		slow(kv.ErrThrottled)
		granted := acquired[1].Time
		requireLost(t, l)
		require.Equal(t, 300*time.Millisecond, events.Of(lease.EventJeopardy)[0].Took)
		lost := events.Of(lease.EventLost)
		require.Len(t, lost, 1)
		require.Equal(t, lost[0].Time.Sub(granted), lost[0].Held)
	})
}

func TestObserverThatPanicsIsLoggedAndToldTheRest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var events recorder
		var log bytes.Buffer
		a, _ := w.client("a", lease.WithLogger(slog.New(slog.NewTextHandler(&log, nil))),
			lease.WithObserver(func(e lease.Event) {
				events.Observe(e)
				panic("of the " + string(e.Type))
			}))
		l := w.acquire(a, "key")
		require.Equal(t, []string{"session opened ", "acquired keya"}, events.Take())
		time.Sleep(10 * ttl)
		require.NoError(t, l.Release(t.Context()))
		require.Equal(t, []string{"released key"}, events.Take())
		require.NoError(t, a.Close(t.Context()))
		require.Contains(t, log.String(), `msg="lease: the observer panicked" event=released panic="of the released"`)
		require.Contains(t, log.String(), "events_test.go", "where it was")
	})
}

// expired returns a context that has ended.
func expired(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func TestObserverIsNotToldOfAGrantThatWasRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var events recorder
		a, link := w.client("a", lease.WithObserver(events.Observe), lease.WithHeartbeat(4*time.Second))
		require.NoError(t, w.acquire(a, "warm").Release(t.Context()))
		var answers atomic.Int64
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			switch err := next(ctx); {
			case call.Key == "lease/key" && answers.Add(1) == 1:
				time.Sleep(ttl)
				return err
			case answers.Load() == 1 && strings.HasPrefix(call.Key, "session/"):
				return &kv.UncertainError{Key: call.Key, Err: errLost} // so that the trust ends meanwhile
			default:
				return err
			}
		})
		events.Take()
		_, err := a.Acquire(t.Context(), "key", lease.WithMinRemaining(time.Second))
		require.NoError(t, err)
		require.Equal(t, 3, int(answers.Load()), "the refused write, its row given back, and the granted one")
		require.Len(t, events.Of(lease.EventAcquired), 1)
		for _, e := range events.Of(lease.EventLost) {
			require.NotEqual(t, "key", e.Key)
		}
	})
}

func TestSlowObserverHoldsUpNothingAndLearnsWhatItMissed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		emitted, dropped := 0, 0
		const ttl = 10 * time.Minute // longer than the real time that the test takes, which the boot clock counts
		a, _ := w.client("a", lease.WithTTL(ttl), lease.WithObserver(func(e lease.Event) {
			emitted, dropped = emitted+1, dropped+e.Dropped
			if e.Type == lease.EventSessionOpened {
				time.Sleep(10 * ttl)
			}
		}))
		l := w.acquire(a, "key")
		synctest.Wait() // until it is slow
		for range 6_000 {
			require.NoError(t, w.acquire(a, "other").Release(t.Context()))
		}
		time.Sleep(9 * ttl)
		require.True(t, l.Held())
		time.Sleep(2 * ttl)
		require.NoError(t, l.Release(t.Context()))
		require.NoError(t, a.Close(t.Context()))
		require.GreaterOrEqual(t, dropped, 1_000)
		require.GreaterOrEqual(t, emitted+dropped, 12_000+3, "what was not told is counted")
	})
}

func TestLogSaysWhatIsWrongAndNothingPerPoll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var warnings, all bytes.Buffer
		a, link := w.client("a",
			lease.WithLogger(slog.New(slog.NewTextHandler(&warnings, &slog.HandlerOptions{Level: slog.LevelWarn}))))
		b, _ := w.client("b",
			lease.WithLogger(slog.New(slog.NewTextHandler(&all, &slog.HandlerOptions{Level: slog.LevelDebug}))))
		l := w.acquire(a, "key")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.ErrorIs(t, (<-waitFor(ctx, b, "key")).err, context.DeadlineExceeded)
		require.NoError(t, b.Close(t.Context()))
		require.Less(t, bytes.Count(all.Bytes(), []byte("\n")), 25) // a heartbeat per line, no poll
		require.Empty(t, warnings.String())
		link.SetCut(true)
		requireLost(t, l)
		link.SetCut(false)
		require.ErrorIs(t, l.Release(t.Context()), lease.ErrLost)
		require.NoError(t, a.Close(t.Context()))
		require.Equal(t, 1, bytes.Count(warnings.Bytes(), []byte("lease: jeopardy")), warnings.String())
		require.Equal(t, 1, bytes.Count(warnings.Bytes(), []byte("lease: session lost")), warnings.String())
	})
}
