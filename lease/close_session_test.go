package lease_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

func TestNoSessionBeatsAfterClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		var beats, opened atomic.Int64
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Op == "AtomicPut" && opened.CompareAndSwap(0, 1) {
				time.Sleep(5 * time.Second) // an attempt whose answer comes as its context ends
				return next(context.WithoutCancel(ctx))
			}
			beats.Add(1)
			return next(ctx)
		})
		go func() { _, _ = a.TryAcquire(context.Background(), "key") }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.Error(t, a.Close(ctx))
		time.Sleep(time.Hour)
		n := beats.Load()
		synctest.Wait()
		require.LessOrEqual(t, n, int64(1), "heartbeats of a closed client: one call deletes its row")
		require.Empty(t, w.rows("session/"))
	})
}

func TestR16CloseIsNotFooledByTheTaskThatEndsTheSameSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		l := w.acquire(a, "key")
		row := w.rows("session/")[0]
		// Every heartbeat lands and none is answered: the row is ahead of what the client knows.
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Op == "AtomicPut" && call.Key == row {
				_ = next(ctx)
				return &kv.UncertainError{Key: row, Err: errLost}
			}
			return next(ctx)
		})
		requireLost(t, l)
		require.ErrorIs(t, l.Release(t.Context()), lease.ErrLost)
		var deletes atomic.Int64
		both := make(chan struct{})
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Op != "AtomicDelete" || call.Key != row {
				return next(ctx)
			}
			switch n := deletes.Add(1); {
			case n <= 2: // both find the row ahead
				err := next(ctx)
				if n == 2 {
					close(both)
				}
				select {
				case <-both:
				case <-ctx.Done():
				}
				if n == 2 {
					time.Sleep(time.Second) // the other one adopts the row first
				}
				return err
			case n == 3: // and is stuck before it deletes it
				<-ctx.Done()
				return &kv.UncertainError{Key: row, Err: ctx.Err()}
			}
			return next(ctx)
		})
		for deletes.Load() == 0 {
			time.Sleep(100 * time.Millisecond)
		}
		require.NoError(t, a.Close(t.Context()))
		require.Empty(t, w.rows("session/"))
	})
}

func TestR16CloseDoesNotSpendItsTimeOnCorpses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		l := w.acquire(a, "key")
		corpse := w.rows("session/")[0]
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Key == corpse {
				<-ctx.Done()
				return &kv.UncertainError{Key: corpse, Err: ctx.Err()}
			}
			return next(ctx)
		})
		requireLost(t, l)
		require.ErrorIs(t, l.Release(t.Context()), lease.ErrLost)
		require.NoError(t, w.acquire(a, "other").Release(t.Context()))
		require.Len(t, w.rows("session/"), 2)
		require.Error(t, a.Close(t.Context()))
		rows := w.rows("session/")
		require.Len(t, rows, 1)
		require.True(t, strings.HasSuffix(rows[0], corpse))
	})
}

func TestR16CloseAfterALossEndsTheOldSessionToo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		b, _ := w.client("b")
		l := w.acquire(a, "key")
		link.SetCut(true)
		<-l.Context().Done()
		link.SetCut(false)
		require.ErrorIs(t, l.Release(t.Context()), lease.ErrLost)
		require.NoError(t, a.Close(t.Context()))
		require.Empty(t, w.rows("session/"))
		w.acquire(b, "key")
	})
}

func TestR16CloseFindsTheRowOfAHeartbeatWithALostAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		l := w.acquire(a, "key")
		var sent atomic.Int32
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			err := next(ctx)
			if call.Op == "AtomicPut" && sent.Add(1) == 1 {
				return errors.Join(err, &kv.UncertainError{Key: call.Key, Err: errLost})
			}
			return err
		})
		for sent.Load() == 0 {
			time.Sleep(time.Millisecond)
		}
		require.NoError(t, l.Release(t.Context()))
		require.NoError(t, a.Close(t.Context()))
		require.Empty(t, w.rows(""))
	})
}

// Close ends before a holder whose session was lost has had its margin: the row is
// left to its TTL.
func TestR16CloseThatCannotWaitLeavesALostSessionToItsTTL(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		l := w.acquire(a, "key")
		link.SetCut(true)
		<-l.Context().Done()
		link.SetCut(false)
		ctx, cancel := context.WithTimeout(t.Context(), margin/10)
		defer cancel()
		require.Error(t, a.Close(ctx))
		require.Len(t, w.rows("session/"), 1)
	})
}
