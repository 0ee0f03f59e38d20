package lease_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
)

func TestR16CloseWithoutADeadlineEndsAndNamesWhatWasForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var log bytes.Buffer
		a, _ := w.client("a", lease.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
		for i := range 12 {
			w.acquire(a, fmt.Sprintf("key%02d", i))
		}
		require.NoError(t, w.acquire(a, "given back").Release(t.Context()))
		began := time.Now()
		err := a.Close(t.Context())
		require.Equal(t, margin+10*time.Second, time.Since(began))
		require.ErrorContains(t, err, `closed with 12 leases not released ("key00", "key01"`)
		require.ErrorContains(t, err, `"key09", 2 more)`)
		require.NotContains(t, err.Error(), "given back")
		require.Empty(t, w.rows("session/"), "they have had their margin, so all is free")
		require.Equal(t, err, a.Close(t.Context()), "again: what the first returned")
		require.Contains(t, log.String(), "Close waits for leases to be released")
		require.Contains(t, log.String(), "key00")
	})
}

func TestR16CloseWaitsForALostLeaseUntilItsMarginIsOver(t *testing.T) {
	t.Parallel()
	for name, lost := range map[string]func(t *testing.T, w *world, a *lease.Client, link *link, l *lease.Lease){
		"with its session": func(t *testing.T, _ *world, _ *lease.Client, link *link, l *lease.Lease) {
			link.SetCut(true)
			requireLost(t, l)
			link.SetCut(false)
		},
		"by an operator": func(t *testing.T, w *world, _ *lease.Client, _ *link, l *lease.Lease) {
			b, _ := w.client("b")
			h := inspect(t, b, "key")
			go func() { _ = b.Break(context.Background(), h) }()
			requireLost(t, l)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				a, link := w.client("a")
				l := w.acquire(a, "key")
				lost(t, w, a, link, l)
				latched := time.Now()
				b, _ := w.client("other")
				next := waitFor(t.Context(), b, "key")
				require.NoError(t, a.Close(t.Context()))
				require.InDelta(t, margin, time.Since(latched), float64(20*time.Millisecond))
				got := <-next
				require.NoError(t, got.err)
				require.GreaterOrEqual(t, got.at.Sub(latched), margin, "its holder has had its margin")
				require.NoError(t, got.Release(t.Context()))
			})
		})
	}
}

func TestR16CloseEndsWithTheLastReleaseThoughALostLeaseIsForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		lost := w.acquire(a, "lost")
		link.SetCut(true)
		requireLost(t, lost)
		link.SetCut(false)
		time.Sleep(ttl)
		l := w.acquire(a, "key")
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		began := time.Now()
		time.AfterFunc(time.Minute, func() { _ = l.Release(context.Background()) })
		require.NoError(t, a.Close(ctx))
		require.InDelta(t, time.Minute, time.Since(began), float64(time.Second))
	})
}

func TestR16CloseThatCannotWaitForTheMarginLeavesTheSessionToItsTTL(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		b, _ := w.client("b")
		w.acquire(a, "key")
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), margin/2)
		defer cancel()
		err := a.Close(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, fmt.Sprintf("others get the keys %v after the last heartbeat", ttl))
		require.Len(t, w.rows("session/"), 1)
		link.Take()
		g := <-waitFor(t.Context(), b, "key")
		require.NoError(t, g.err)
		require.GreaterOrEqual(t, g.at.Sub(began), margin, "its holder may still be at work")
		require.Empty(t, link.Take(), "no heartbeat comes any more")
	})
}

func TestR16CloseEndsThoughAnObserverDoesNot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		blocked := make(chan struct{})
		a, _ := w.client("a", lease.WithObserver(func(lease.Event) { <-blocked }))
		require.NoError(t, w.acquire(a, "key").Release(t.Context()))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		closed := make(chan error, 1)
		go func() { closed <- a.Close(ctx) }()
		time.Sleep(time.Minute)
		synctest.Wait()
		ended := len(closed) > 0
		close(blocked)
		err := <-closed
		require.True(t, ended, "it waits for the observer")
		require.ErrorContains(t, err, "an Observer had not returned")
		require.Empty(t, w.rows("session/"))
	})
}

func TestR16CloseOfASessionThatIsGoneSaysNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		l := w.acquire(a, "key")
		require.NoError(t, w.store.Delete(t.Context(), w.rows("session/")[0]))
		requireLost(t, l)
		require.ErrorIs(t, l.Release(t.Context()), lease.ErrLost)
		require.NoError(t, a.Close(t.Context()))
	})
}

func TestAStoreThatFailsForAMomentIsNoWarning(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var log bytes.Buffer
		a, link := w.client("a", lease.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
		w.turn(a, "warm")
		link.LoseAnswer("AtomicPut", "lease/")
		_, err := a.TryAcquire(t.Context(), "key")
		require.ErrorIs(t, err, kv.ErrUncertain)
		time.Sleep(time.Minute)
		require.NotContains(t, log.String(), "does not answer")
		link.answersAlways(0, kv.ErrUnavailable)
		_, err = a.Acquire(patientFor(t, time.Hour), "key")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		synctest.Wait()
		require.InDelta(t, 60, bytes.Count(log.Bytes(), []byte("the store does not answer")), 3, "once a minute")
	})
}

func patientFor(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// A min-hold ends with its session: Close does not wait for it.
func TestR16CloseDoesNotWaitForTheMinHoldOfALostLease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		lost, err := a.TryAcquire(patient(t), "lost", lease.WithMinHold(24*time.Hour))
		require.NoError(t, err)
		link.SetCut(true)
		requireLost(t, lost)
		link.SetCut(false)
		w.acquire(a, "forgotten")
		began := time.Now()
		require.ErrorContains(t, a.Close(t.Context()), `1 leases not released ("forgotten")`)
		require.Equal(t, margin+10*time.Second, time.Since(began))
	})
}

// Where only calls are under way no lease is named.
func TestR16CloseThatWaitsForACallNamesNoLease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var log bytes.Buffer
		a, link := w.client("a", lease.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
		require.NoError(t, w.acquire(a, "warm").Release(t.Context()))
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Key == "lease/key" {
				time.Sleep(20 * time.Second) // whatever its context says
			}
			return next(ctx)
		})
		got := waitFor(t.Context(), a, "key")
		time.Sleep(time.Second)
		err := a.Close(t.Context())
		require.ErrorContains(t, err, "lease: closed with 1 calls under way")
		require.NotContains(t, err.Error(), "leases not released")
		require.NotContains(t, log.String(), "leases to be released")
		require.Contains(t, log.String(), "Close waits for calls")
		require.ErrorIs(t, (<-got).err, lease.ErrClosed)
		time.Sleep(time.Minute)
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

func TestReleaseDuringCloseTellsOfALoss(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		b, _ := w.client("b")
		l := w.acquire(a, "key")
		closed := make(chan error, 1)
		go func() { closed <- a.Close(context.Background()) }()
		<-l.Context().Done()
		link.SetCut(true)
		_, err := b.Acquire(t.Context(), "key")
		require.NoError(t, err)
		link.SetCut(false) // Close goes on as soon as the lease is released
		require.ErrorIs(t, l.Release(t.Context()), lease.ErrLost, "b holds the key by now")
		require.NoError(t, <-closed)
	})
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
