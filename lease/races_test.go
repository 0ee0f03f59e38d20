package lease_test

import (
	"context"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
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
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
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
		require.NoError(t, ours.Release(t.Context())) // handoff over to the waiter, which is in the middle of a read
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

func TestR14RowThatLandsAfterTheLastReadBeganIsStillGivenBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		link := newLink(w.store)
		a, err := lease.New(slow{link}, lease.WithTTL(ttl))
		require.NoError(t, err)
		defer func() { require.NoError(t, a.Close(t.Context())) }()
		began := time.Now()
		var land func(context.Context) error
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			switch {
			case call.Key == "lease/key" && call.Op == "AtomicPut":
				land = next
				return &kv.UncertainError{Key: call.Key, Err: errLost}
			case call.Key == "lease/key" && call.Op == "Get" && land != nil && time.Since(began) > time.Minute:
				err := next(ctx) // which finds nothing
				require.NoError(t, land(context.Background()))
				land = nil
				time.Sleep(2*time.Minute + time.Second - time.Since(began)) // now no write lands any more
				return err
			}
			return next(ctx)
		})
		_, err = a.TryAcquire(t.Context(), "key")
		require.ErrorIs(t, err, kv.ErrUncertain)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		require.Nil(t, land)
		require.Empty(t, w.rows("lease/"))
	})
}

// stalled is a clock on which the check of a grant stalls once, when it is
// armed: what it then returns was true before.
type stalled struct {
	clock.Clock
	armed         atomic.Bool
	stalls, going chan struct{}
}

func (c *stalled) Now() clock.Reading {
	now := c.Clock.Now()
	if inGrant() && c.armed.CompareAndSwap(true, false) {
		close(c.stalls)
		<-c.going
	}
	return now
}

// inGrant reports whether it is called from the last check of a grant.
func inGrant() bool {
	callers := make([]uintptr, 16)
	frames := runtime.CallersFrames(callers[:runtime.Callers(0, callers)])
	check := false
	for {
		frame, more := frames.Next()
		check = check || strings.HasSuffix(frame.Function, ".(*Lease).holdLeft")
		if check && strings.HasSuffix(frame.Function, ".(*Client).grant") {
			return true
		}
		if !more {
			return false
		}
	}
}

func TestR9LeaseThatIsRevokedWhileItIsGrantedDoesNotHaveTheKeyAfterwards(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := &stalled{Clock: clock.System, stalls: make(chan struct{}), going: make(chan struct{})}
		a, _ := w.client("a", lease.WithClock(c))
		b, _ := w.client("b")
		w.turn(a, "warm")
		c.armed.Store(true)
		granted := make(chan *lease.Lease, 1)
		go func() {
			l, _ := a.TryAcquire(context.Background(), "key", lease.WithMaxHold(time.Hour))
			granted <- l
		}()
		<-c.stalls
		require.NoError(t, b.Break(t.Context(), inspect(t, b, "key")))
		time.Sleep(ttl) // it is given back
		require.Empty(t, w.rows("lease/"))
		close(c.going)
		l := <-granted
		require.NotNil(t, l)
		require.False(t, l.Held())
		w.turn(a, "key")
		require.ErrorIs(t, l.Release(t.Context()), lease.ErrLost)
	})
}
