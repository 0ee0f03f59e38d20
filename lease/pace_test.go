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

// errRefused stands for whatever a store answers at once, again and again.
var errRefused = errors.New("access denied")

// fails makes calls of op on keys with the prefix fail at once, while failing
// is true.
func (l *link) fails(failing *atomic.Bool, op, prefix string, err error) {
	l.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
		if failing.Load() && call.Op == op && strings.HasPrefix(call.Key, prefix) {
			return err
		}
		return next(ctx)
	})
}

// I13: a waiter whose requests fail at once begins a round per minimum poll at
// most, and its pauses double to five seconds. A round reads or writes the row
// and reads its holder's session.
func TestI13FailingStoreIsAskedLessAndLessOften(t *testing.T) {
	t.Parallel()
	wait := func(ctx context.Context, c *lease.Client) { _, _ = c.Acquire(ctx, "key") }
	for name, test := range map[string]struct {
		op, prefix string
		err        error
		run        func(context.Context, *lease.Client)
	}{
		"reads of the row":               {"Get", "lease/key", errRefused, wait},
		"reads of the session":           {"Get", "session/", errRefused, wait},
		"throttled reads of the session": {"Get", "session/", kv.ErrThrottled, wait},
		"all reads":                      {"Get", "", errRefused, wait},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				holder, _ := w.client("holder")
				l, err := holder.TryAcquire(t.Context(), "key", lease.KeepValue())
				require.NoError(t, err)
				c, link := w.client("waiter")
				var failing atomic.Bool
				link.fails(&failing, test.op, test.prefix, test.err)
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan struct{})
				go func() {
					defer close(ended)
					test.run(ctx, c)
				}()
				time.Sleep(30 * time.Second)
				failing.Store(true)
				link.Take()
				time.Sleep(10 * time.Second)
				require.LessOrEqual(t, link.Take()["Get"], 2*10*20, "a round per 50 ms")
				for range 5 {
					time.Sleep(12 * time.Second)
					require.LessOrEqual(t, link.Take()["Get"], 2*12, "a round a second")
				}
				failing.Store(false)
				time.Sleep(8 * time.Second) // the longest pause and its jitter
				if name == "reads of the row" || name == "reads of the session" {
					link.Take()
					time.Sleep(10 * time.Second)
					require.InDelta(t, 12, link.Take()["Get"], 5, "once they succeed it polls as before")
				}
				cancel()
				<-ended
				require.NoError(t, l.Release(t.Context()))
			})
		})
	}
}

// A waiter polls after a tenth of the time since the key last changed hands,
// not of the time that it has waited.
func TestR9PollsCountFromTheLastChangeOfTheRow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		first := w.acquire(a, "key")
		next := waitFor(t.Context(), a, "key")
		synctest.Wait()
		b, link := w.client("b", lease.WithoutTurns())
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		got := waitFor(ctx, b, "key")
		reads := func(d time.Duration) int {
			link.Take()
			time.Sleep(d)
			return link.Take()["Get"]
		}
		time.Sleep(11 * time.Second)
		require.InDelta(t, 13, reads(10*time.Second), 4, "a poll a second, and the looks at the session")
		require.NoError(t, first.Release(t.Context())) // handoff over to next, with one write
		second := <-next
		require.NoError(t, second.err)
		time.Sleep(1100 * time.Millisecond) // until it is seen
		require.GreaterOrEqual(t, reads(500*time.Millisecond), 4, "as often as after a wait of a second")
		require.NoError(t, second.Release(t.Context()))
		released := time.Now()
		g := <-got
		require.NoError(t, g.err)
		require.Less(t, g.at.Sub(released), 200*time.Millisecond)
		require.NoError(t, g.Release(t.Context()))
	})
}

// A key is free, and each write of its row fails at once.
func TestI13FailingWritesAreRepeatedLessAndLessOften(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c, link := w.client("waiter")
		require.NoError(t, w.acquire(c, "warm").Release(t.Context()))
		var failing atomic.Bool
		failing.Store(true)
		link.fails(&failing, "AtomicPut", "lease/", kv.ErrThrottled)
		got := waitFor(t.Context(), c, "key")
		time.Sleep(10 * time.Second)
		require.LessOrEqual(t, link.Take()["AtomicPut"], 10*20)
		for range 5 {
			time.Sleep(12 * time.Second)
			require.LessOrEqual(t, link.Take()["AtomicPut"], 12, "a round a second, and the heartbeats")
		}
		failing.Store(false)
		g := <-got
		require.NoError(t, g.err)
		require.NoError(t, g.Release(t.Context()))
	})
}

func TestR9SlowPollsStillSeeARelease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, _ := w.client("b", lease.WithPoll(5*time.Second, 5*time.Second)) // longer than a third of a's TTL
		held := w.acquire(a, "key")
		got := waitFor(t.Context(), b, "key")
		time.Sleep(20 * time.Second)
		require.NoError(t, held.Release(t.Context()))
		time.Sleep(6 * time.Second)
		require.Len(t, got, 1)
	})
}
