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

// unlandedFaults are what the requests of a client meet that opens its first
// session: those of its first create, and those of the second, which is to end
// what the first may leave.
var unlandedFaults = map[string]struct {
	first, second []dynamomem.Fault
	step          time.Duration // of the clock in between
}{
	"the first lands late, above a second from a clock that was set back": {
		first: []dynamomem.Fault{dynamomem.Late(clock.System, time.Minute, errLost)}, step: -10 * time.Minute,
	},
	"the first has landed, and the second lands when that was deleted": {
		first:  []dynamomem.Fault{dynamomem.LostAnswer(errLost)},
		second: []dynamomem.Fault{dynamomem.Late(clock.System, time.Minute, errLost)},
	},
}

func TestR1NoCreateOfASessionLandsAfterItWasEnded(t *testing.T) {
	t.Parallel()
	for name, faults := range unlandedFaults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := newCloud(t)
				first, _, _ := c.node("first")
				require.NoError(t, try(t, first, "other").Release(t.Context()))
				require.NoError(t, first.Close(t.Context()))
				a, wire, skewed := c.node("a")
				_, err := a.Inspect(t.Context(), "other") // its store has read the layout of the partition
				require.NoError(t, err)
				var second atomic.Bool
				var n atomic.Int64
				wire.Inject(func(ctx context.Context, call dynamomem.Call, apply dynamomem.Apply) (any, error) {
					todo, otherwise := faults.first, dynamomem.Fault(dynamomem.Hang)
					if second.Load() {
						todo, otherwise = faults.second, dynamomem.None
					}
					if i := int(n.Add(1)); i <= len(todo) {
						return todo[i-1](ctx, call, apply)
					}
					return otherwise(ctx, call, apply)
				})
				time.AfterFunc(time.Second, func() { skewed.Step(faults.step) })
				_, err = a.TryAcquire(patient(t), "key")
				require.ErrorIs(t, err, kv.ErrUncertain)
				second.Store(true)
				n.Store(0)
				time.Sleep(time.Hour)
				require.Zero(t, lease.Remembered(a)["unlanded"], "it is known to be over")
				b, _, _ := c.node("b")
				for m, err := range b.Members(t.Context()) {
					require.NoError(t, err)
					require.Fail(t, "a phantom", m.Owner)
				}
			})
		})
	}
}

// A session that was opened while Close waited for something else, and could not
// be deleted when it was.
func TestR16CloseEndsASessionThatCouldNotBeEndedWhenItWasOpened(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a", lease.WithMargin(4*time.Second))
		lost := w.acquire(a, "lost")
		link.SetCut(true)
		requireLost(t, lost)
		link.SetCut(false)
		deletable := time.Now().Add(3900 * time.Millisecond)
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if strings.HasPrefix(call.Key, "session/") {
				switch {
				case call.Op == "AtomicPut":
					time.Sleep(200 * time.Millisecond)
				case time.Now().Before(deletable):
					return kv.ErrUnavailable
				}
			}
			return next(ctx)
		})
		waitFor(t.Context(), a, "key")
		time.Sleep(100 * time.Millisecond)
		require.NoError(t, a.Close(t.Context()))
		require.Empty(t, w.rows("session/"))
	})
}

// What each attempt to open a session leaves to be ended must not ask on its
// own, or an outage of an hour ends in a storm.
func TestR1WhatAnOutageLeavesToBeEndedIsEndedInTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		leave, err := a.Join(t.Context(), "group") // so it opens sessions for as long as it lives
		require.NoError(t, err)
		var sent atomic.Int64
		link.SetIntercept(func(_ context.Context, call kv.Call, _ func(context.Context) error) error {
			time.Sleep(time.Second)
			sent.Add(1)
			return &kv.UncertainError{Key: call.Key, Err: errLost}
		})
		time.Sleep(12 * time.Hour)
		require.Greater(t, lease.Remembered(a)["unlanded"], 1000)
		sent.Store(0)
		time.Sleep(time.Minute)
		require.LessOrEqual(t, sent.Load(), int64(30), "requests in a minute")
		link.SetIntercept(nil)
		leave()
		time.Sleep(5 * time.Minute)
		require.Zero(t, lease.Remembered(a)["unlanded"])
		require.LessOrEqual(t, len(w.rows("session/")), 1, "its own")
	})
}
