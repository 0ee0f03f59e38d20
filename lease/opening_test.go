package lease_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/dynamomem"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// budget is for how long an attempt to open a session lasts with a TTL of ttl.
const budget = ttl - margin

// opens counts the session rows that are created.
func (l *link) opens(outcome func(ctx context.Context, next func(context.Context) error) error) (sent *atomic.Int64) {
	sent = &atomic.Int64{}
	l.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
		if call.Op != "AtomicPut" || !strings.HasPrefix(call.Key, "session/") {
			return next(ctx)
		}
		sent.Add(1)
		return outcome(ctx, next)
	})
	return sent
}

func silent(ctx context.Context, _ func(context.Context) error) error {
	<-ctx.Done()
	return &kv.UncertainError{Err: ctx.Err()}
}

func TestR1CallsShareTheOpeningOfASessionInAnOutage(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		outcome func(ctx context.Context, next func(context.Context) error) error
		within  time.Duration
		attempt int64 // 0: at least one
	}{
		"silent":        {silent, budget, 2}, // and one that ends what may have landed
		"fails at once": {func(context.Context, func(context.Context) error) error { return errLost }, 0, 0},
		"throttles": {func(context.Context, func(context.Context) error) error {
			time.Sleep(time.Second)
			return kv.ErrThrottled
		}, time.Second, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				a, link := w.client("a")
				sent := link.opens(test.outcome)
				errs, took := tries(patient(t), a, 20)
				for _, err := range errs {
					require.ErrorContains(t, err, "opening a session")
				}
				require.Equal(t, test.within, took)
				require.Positive(t, sent.Load())
				if test.attempt > 0 {
					require.Equal(t, test.attempt, sent.Load())
				}
				link.SetIntercept(nil)
				w.turn(a, "later") // the error was for those who waited for it
			})
		})
	}
}

func TestR1SessionIsOpenedWithOneWriteForAllWhoWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		sent := link.opens(func(ctx context.Context, next func(context.Context) error) error {
			time.Sleep(time.Second)
			return next(ctx)
		})
		errs, took := tries(t.Context(), a, 20)
		for _, err := range errs {
			require.NoError(t, err)
		}
		require.Equal(t, time.Second, took)
		require.EqualValues(t, 1, sent.Load())
		require.Len(t, w.rows("session/"), 1)
	})
}

func TestR1OpeningOutlivesTheCallThatBeganIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		sent := link.opens(func(ctx context.Context, next func(context.Context) error) error {
			time.Sleep(time.Second)
			if ctx.Err() != nil {
				return &kv.UncertainError{Err: ctx.Err()}
			}
			return next(ctx)
		})
		for range 50 {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
			began := time.Now()
			_, err := a.TryAcquire(ctx, "key")
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Equal(t, 5*time.Millisecond, time.Since(began), "a call ends with its own context")
			cancel()
		}
		l := w.acquire(a, "key")
		require.EqualValues(t, 1, sent.Load())
		require.Len(t, w.rows("session/"), 1, "nothing was thrown away")
		require.NoError(t, l.Release(t.Context()))
	})
}

func TestR1CallWhoseContextHasEndedOpensNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := a.TryAcquire(ctx, "key")
		require.ErrorIs(t, err, context.Canceled)
		_, err = a.Join(ctx, "group")
		require.ErrorIs(t, err, context.Canceled)
		synctest.Wait()
		require.Empty(t, link.Take())
	})
}

func TestR1AcquireWaitsOutTheOpeningsThatFail(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		inspect(t, a, "nothing") // the store answers
		link.opens(silent)
		got := waitFor(t.Context(), a, "key")
		time.Sleep(3 * budget)
		require.Empty(t, got)
		link.SetIntercept(nil)
		require.NoError(t, (<-got).err)
	})
}

func TestR1SessionWhoseOpeningTookLongIsHeartbeatedInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		first := true
		link.opens(func(ctx context.Context, next func(context.Context) error) error {
			if first {
				first = false
				time.Sleep(budget - time.Second)
			}
			return next(ctx)
		})
		l := w.acquire(a, "key")
		time.Sleep(3 * ttl)
		require.True(t, l.Held())
	})
}

func TestR2HeartbeatThatTookLongIsFollowedInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		// 1.1 intervals and two attempts are just less than the trust of 9 s.
		a, link := w.client("a", lease.WithHeartbeat(6*time.Second))
		l := w.acquire(a, "key")
		slow := 2300 * time.Millisecond
		link.opens(func(ctx context.Context, next func(context.Context) error) error {
			err := next(ctx)
			time.Sleep(slow)
			slow = 1300 * time.Millisecond
			return err
		})
		time.Sleep(3 * ttl)
		require.True(t, l.Held())
	})
}

func TestR16CloseWaitsForTheOpeningOfASessionAndEndsIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		sent := link.opens(func(ctx context.Context, next func(context.Context) error) error {
			time.Sleep(time.Second)
			return next(ctx)
		})
		got := waitFor(t.Context(), a, "key")
		synctest.Wait()
		began := time.Now()
		require.NoError(t, a.Close(t.Context()))
		require.Equal(t, time.Second, time.Since(began))
		require.ErrorIs(t, (<-got).err, lease.ErrClosed)
		require.EqualValues(t, 1, sent.Load())
		require.Empty(t, w.rows(""), "it was opened, and ended")
	})
}

func TestR16CloseCutsTheOpeningOfASessionShort(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		ended := false
		link.opens(func(ctx context.Context, next func(context.Context) error) error {
			defer func() { ended = true }()
			return silent(ctx, next)
		})
		got := waitFor(t.Context(), a, "key")
		synctest.Wait()
		began := time.Now()
		require.ErrorContains(t, a.Close(t.Context()), "being opened")
		require.Equal(t, ttl/3, time.Since(began))
		require.True(t, ended, "I10")
		require.ErrorIs(t, (<-got).err, lease.ErrClosed)
	})
}

func TestR16CloseEndsACorpseWhileASessionIsBeingOpened(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		l := w.acquire(a, "key")
		link.SetCut(true)
		requireLost(t, l)
		require.ErrorIs(t, l.Release(t.Context()), lease.ErrLost)
		link.SetCut(false)
		link.opens(silent)
		got := waitFor(t.Context(), a, "key")
		synctest.Wait()
		require.Len(t, w.rows("session/"), 1)
		closed := make(chan error, 1)
		go func() { closed <- a.Close(t.Context()) }()
		synctest.Wait()
		require.Empty(t, w.rows("session/"), "at once, not when the other is opened")
		require.ErrorContains(t, <-closed, "being opened")
		require.ErrorIs(t, (<-got).err, lease.ErrClosed)
	})
}

// R1: what was thrown away is not left behind.
func TestR1SessionWhoseCreateIsUnknownIsEnded(t *testing.T) {
	t.Parallel()
	for name, lands := range map[string]func(next func(context.Context) error){
		"it has landed":  func(next func(context.Context) error) { _ = next(context.Background()) },
		"it never lands": func(func(context.Context) error) {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				a, link := w.client("a")
				var opens atomic.Int64
				link.opens(func(ctx context.Context, next func(context.Context) error) error {
					if opens.Add(1) > 1 {
						return next(ctx)
					}
					lands(next)
					return &kv.UncertainError{Err: errLost}
				})
				_, err := a.TryAcquire(t.Context(), "key")
				require.ErrorIs(t, err, kv.ErrUncertain)
				synctest.Wait()
				require.Empty(t, w.rows("session/"), "no phantom member")
				require.Zero(t, lease.Remembered(a)["unlanded"])
			})
		})
	}
}

func TestR1SessionWhoseCreateLandsLateIsEnded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		a, wire, _ := c.node("a")
		wire.Inject(func(ctx context.Context, call dynamomem.Call, apply dynamomem.Apply) (any, error) {
			if call.Number == 1 {
				return dynamomem.Late(clock.System, 20*time.Second, errLost)(ctx, call, apply)
			}
			if call.Number < 20 {
				return dynamomem.Hang(ctx, call, apply)
			}
			return apply()
		})
		_, err := a.TryAcquire(t.Context(), "key")
		require.Error(t, err)
		time.Sleep(time.Hour)
		b, _, _ := c.node("b")
		for m, err := range b.Members(t.Context()) {
			require.NoError(t, err)
			require.Fail(t, "a phantom", m.Owner)
		}
	})
}

func TestR16CloseLeavesNoRowOfASessionThatCouldNotBeOpened(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		var opens atomic.Int64
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Op == "AtomicPut" && strings.HasPrefix(call.Key, "session/") && opens.Add(1) == 1 {
				_ = next(ctx)
				return &kv.UncertainError{Err: errLost}
			}
			if opens.Load() < 4 {
				return kv.ErrUnavailable
			}
			return next(ctx)
		})
		_, err := a.TryAcquire(t.Context(), "key")
		require.ErrorIs(t, err, kv.ErrUncertain)
		require.NoError(t, a.Close(t.Context()))
		require.Empty(t, w.rows("session/"))
	})
}

func TestR8NewSessionAfterALossAndTheOldOneIsEnded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		l := w.acquire(a, "key")
		old := w.rows("session/")
		link.SetCut(true)
		<-l.Context().Done()
		link.SetCut(false)
		began := time.Now()
		again, err := a.Acquire(t.Context(), "key")
		require.NoError(t, err)
		require.LessOrEqual(t, time.Since(began), ttl/10+time.Second, "not waited out: its own corpse is buried at t0 + TTL")
		require.GreaterOrEqual(t, time.Since(began), ttl/10-time.Millisecond)
		require.NotEqual(t, old, w.rows("session/"))
		require.Len(t, w.rows("session/"), 1)
		require.Greater(t, again.Token(), l.Token())
	})
}

func TestR1SessionOfUnknownOutcomeIsThrownAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		var thrown string
		var calls atomic.Int64
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			err := next(ctx)
			if calls.Add(1) == 1 {
				thrown = strings.TrimPrefix(call.Key, "session/")
				return &kv.UncertainError{Key: call.Key, Err: errLost}
			}
			return err
		})
		_, err := a.TryAcquire(t.Context(), "key")
		require.ErrorIs(t, err, kv.ErrUncertain)
		require.Empty(t, w.rows("lease/"))
		synctest.Wait()
		w.acquire(a, "key")
		pair, err := w.store.Get(t.Context(), "lease/key")
		require.NoError(t, err)
		require.NotContains(t, pair.String(), thrown)
	})
}
