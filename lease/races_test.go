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

// The interleavings that the simulation found (tests/sim), as exact schedules.

func TestR9LeaseHandedOverAndLostBeforeTheWaiterLookedIsNotReturned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		b, _ := w.client("b")
		a, link := w.client("a")
		theirs := w.acquire(b, "key")
		held := make(chan struct{})
		polling := make(chan struct{}, 1)
		var hold atomic.Bool
		link.setIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Op == "Get" && call.Key == "lease/key" && hold.Load() {
				select {
				case polling <- struct{}{}:
				default:
				}
				<-held
				return errLost // it learns of the handover, not of what became of it
			}
			return next(ctx)
		})
		got := waitFor(t.Context(), a, "key")
		time.Sleep(time.Second)
		hold.Store(true)
		<-polling
		require.NoError(t, theirs.Release(t.Context()))
		ours := w.acquire(a, "key")
		require.NoError(t, ours.Release(t.Context())) // handed over to the waiter, which is in the middle of a read
		session := inspect(t, b, "key").Session
		require.NotEmpty(t, session)
		require.NoError(t, w.store.Delete(t.Context(), "session/"+session))
		time.Sleep(ttl / 2) // a heartbeat finds out
		hold.Store(false)
		close(held)
		g := <-got
		require.NoError(t, g.err)
		require.True(t, g.Held())
		require.NotEqual(t, session, inspect(t, b, "key").Session)
		require.NoError(t, g.Release(t.Context()))
		require.NoError(t, a.Close(t.Context()))
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
		link.setIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
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
		link.setIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Op != "AtomicDelete" || call.Key != row {
				return next(ctx)
			}
			switch n := deletes.Add(1); {
			case n <= 2: // both find the row ahead
				err := next(ctx)
				if n == 2 {
					close(both)
				}
				<-both
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
		link.setIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
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
