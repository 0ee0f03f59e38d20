package lease_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// blocking is a log handler that never returns until it is told to.
type blocking struct {
	slog.Handler
	done chan struct{}
}

func (b blocking) Enabled(context.Context, slog.Level) bool { return true }
func (b blocking) Handle(context.Context, slog.Record) error {
	<-b.done
	return nil
}

func TestR7HeartbeatsWaitForNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		done := make(chan struct{})
		a, link := w.client("a", lease.WithLogger(slog.New(blocking{done: done})),
			lease.WithObserver(func(lease.Event) { <-done }))
		l := w.acquire(a, "key")
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if strings.HasPrefix(call.Key, "lease/") { // every other call hangs
				<-ctx.Done()
				return &kv.UncertainError{Key: call.Key, Err: ctx.Err()}
			}
			return next(ctx)
		})
		ctx, cancel := context.WithCancel(t.Context())
		waiting := waitFor(ctx, a, "other")
		updated := make(chan error, 1)
		go func() { updated <- l.Update(ctx, []byte("v")) }()
		time.Sleep(5 * ttl)
		require.True(t, l.Held())
		cancel()
		require.Error(t, (<-waiting).err)
		require.Error(t, <-updated)
		close(done)
		link.SetIntercept(nil)
		require.NoError(t, l.Release(t.Context()))
		require.NoError(t, a.Close(t.Context()))
	})
}

// resource accepts what is written under a token that is not smaller than the greatest it has seen.
type resource struct{ token uint64 }

var errStale = errors.New("stale token")

func (r *resource) write(l *lease.Lease) error {
	if l.Token() < r.token {
		return errStale
	}
	r.token = l.Token()
	return nil
}

func TestI1FencedResourceRefusesAHolderThatWasPausedBetweenCheckAndAct(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link, skewed := w.skewed("a", 1)
		b, _ := w.client("b")
		var r resource
		old := w.acquire(a, "key")
		require.NoError(t, r.write(old))
		got := waitFor(t.Context(), b, "key")
		time.Sleep(ttl)
		require.True(t, old.Held()) // the check
		link.SetCut(true)
		skewed.FreezeMonotonic()
		g := <-got // while it is paused
		require.NoError(t, g.err)
		require.NoError(t, r.write(g.Lease))
		skewed.ThawMonotonic()
		require.ErrorIs(t, r.write(old), errStale) // the act
		require.False(t, old.Held())
	})
}

func TestI7EndedLeaseStaysEndedByWhateverReason(t *testing.T) {
	t.Parallel()
	ends := map[lease.Reason]func(t *testing.T, w *world, c *lease.Client, link *link, l *lease.Lease){
		lease.ReasonReleased: func(t *testing.T, _ *world, _ *lease.Client, _ *link, l *lease.Lease) {
			require.NoError(t, l.Release(t.Context()))
		},
		lease.ReasonExpired: func(_ *testing.T, _ *world, _ *lease.Client, link *link, _ *lease.Lease) {
			link.SetCut(true)
			time.Sleep(ttl)
			link.SetCut(false)
		},
		lease.ReasonKilled: func(t *testing.T, w *world, _ *lease.Client, _ *link, _ *lease.Lease) {
			require.NoError(t, w.store.Delete(t.Context(), w.rows("session/")[0]))
			time.Sleep(ttl / 2)
		},
		lease.ReasonRevoked: func(t *testing.T, w *world, _ *lease.Client, _ *link, _ *lease.Lease) {
			other, _ := w.client("operator")
			require.NoError(t, other.Break(t.Context(), inspect(t, other, "key")))
		},
		lease.ReasonBroken: func(t *testing.T, w *world, _ *lease.Client, _ *link, l *lease.Lease) {
			require.NoError(t, w.store.Delete(t.Context(), "lease/key"))
			require.Error(t, l.Update(t.Context(), nil))
		},
		lease.ReasonMaxHold: func(*testing.T, *world, *lease.Client, *link, *lease.Lease) { time.Sleep(time.Minute) },
		lease.ReasonClosed: func(t *testing.T, _ *world, c *lease.Client, _ *link, _ *lease.Lease) {
			require.ErrorIs(t, c.Close(expired(t)), context.Canceled)
		},
	}
	for want, end := range ends {
		t.Run(string(want), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				c, link, skewed := w.skewed("a", 1)
				options := []lease.AcquireOption{}
				if want == lease.ReasonMaxHold {
					options = append(options, lease.WithMaxHold(time.Minute))
				}
				l, err := c.TryAcquire(t.Context(), "key", options...)
				require.NoError(t, err)
				end(t, w, c, link, l)
				for range 3 {
					require.False(t, l.Held())
					require.Zero(t, l.Remaining())
					require.Equal(t, want, reason(t, l.Err()))
					require.Equal(t, want, reason(t, context.Cause(l.Context())))
					skewed.Step(-time.Hour)
					time.Sleep(ttl)
				}
			})
		})
	}
}

func TestI8NothingIsReturnedWhoseTrustHasEnded(t *testing.T) {
	t.Parallel()
	for _, late := range []time.Duration{ttl / 2, ttl, 3 * ttl} {
		t.Run(fmt.Sprint(late), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				a, link := w.client("a")
				require.NoError(t, w.acquire(a, "warm").Release(t.Context()))
				link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
					err := next(ctx)
					if call.Key == "lease/key" || strings.HasPrefix(call.Key, "session/") {
						time.Sleep(late) // every answer
					}
					return err
				})
				ctx, cancel := context.WithTimeout(t.Context(), 6*ttl)
				defer cancel()
				l, err := a.Acquire(ctx, "key")
				require.True(t, err != nil || l.Held())
				if late >= ttl {
					require.Error(t, err, "no heartbeat is ever answered in time")
				}
			})
		})
	}
}

func TestI10ClosedClientLeavesNoRowNoRequestNoGoroutine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // a bubble fails if goroutines are left
		w := newWorld(t)
		holder, _ := w.client("holder")
		w.acquire(holder, "held")
		c, link := w.client("c", lease.WithObserver(func(lease.Event) {}))
		_, err := c.Join(t.Context(), "group")
		require.NoError(t, err)
		waiting := waitFor(t.Context(), c, "held")
		l, err := c.TryAcquire(t.Context(), "key", lease.WithMaxHold(time.Hour))
		require.NoError(t, err)
		link.LoseAnswer("AtomicPut", "lease/abandoned")
		_, err = c.TryAcquire(t.Context(), "abandoned")
		require.ErrorIs(t, err, kv.ErrUncertain)
		synctest.Wait() // until the resolver has looked: what it leaves to Close is freed with the session
		go func() {
			<-l.Context().Done()
			_ = l.Release(context.Background())
		}()
		require.NoError(t, c.Close(t.Context()))
		require.ErrorIs(t, (<-waiting).err, lease.ErrClosed)
		link.Take()
		time.Sleep(10 * ttl)
		require.Empty(t, link.Take())
		require.Len(t, w.rows("session/"), 1)
		require.NotContains(t, w.rows("lease/"), "lease/abandoned")
	})
}

func TestI11VersionsOfARowNeverGoBackAndAKilledSessionNeverLivesAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ctx, stop := context.WithCancel(t.Context())
		var watching sync.WaitGroup
		versions, killed := map[string]uint64{}, map[string]bool{}
		watching.Go(func() {
			for event, err := range kv.Watch(ctx, w.store, "") {
				switch {
				case err != nil:
				case event.Type == kv.EventPut:
					require.Greater(t, event.Pair.Version, versions[event.Key], event.Key)
					require.False(t, killed[event.Key], event.Key)
					versions[event.Key] = event.Pair.Version
				case event.Type == kv.EventDelete:
					killed[event.Key] = strings.HasPrefix(event.Key, "session/")
				}
			}
		})
		a, link, skewed := w.skewed("a", 1)
		b, _ := w.client("b")
		for range 5 {
			l, err := a.Acquire(t.Context(), "key")
			require.NoError(t, err)
			got := waitFor(t.Context(), b, "key")
			time.Sleep(ttl)
			late := make(chan struct{})
			link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
				<-late // a heartbeat that lands after the kill
				return next(context.WithoutCancel(ctx))
			})
			skewed.FreezeMonotonic()
			g := <-got
			require.NoError(t, g.err)
			skewed.ThawMonotonic()
			link.SetIntercept(nil)
			close(late)
			requireLost(t, l)
			require.ErrorIs(t, l.Release(t.Context()), lease.ErrLost)
			time.Sleep(ttl)
			require.NoError(t, g.Release(t.Context()))
		}
		stop()
		watching.Wait()
		require.GreaterOrEqual(t, len(killed), 5)
	})
}

// The rows of the cost table that TestI12RequestsPerOperation has not.
func TestI12RequestsOfWaitingTakingOverAndKeptValues(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, crashed := w.client("a")
		b, link := w.client("b")
		fresh, arrival := w.client("fresh")
		w.acquire(b, "warm")
		w.acquire(fresh, "cold")
		for _, key := range []string{"1", "2", "3", "4"} {
			w.acquire(a, key)
		}
		got := waitFor(t.Context(), b, "1")
		time.Sleep(10 * time.Second)
		link.Take()
		time.Sleep(60 * time.Second)
		calls := link.Take()
		require.InDelta(t, 60/0.9+60/(ttl.Seconds()/3), calls["Get"], 12,
			"a read per poll, and one of the session per third of its TTL")
		require.InDelta(t, 18, calls["AtomicPut"], 3, "heartbeats only")

		crashed.SetCut(true)
		first := <-got
		require.NoError(t, first.err)
		link.Take()
		for _, key := range []string{"2", "3"} {
			w.acquire(b, key)
		}
		require.Equal(t, map[string]int{"AtomicPut": 4}, link.Take(),
			"the conflict that names the dead session, and the takeover")
		arrival.Take()
		w.acquire(fresh, "4")
		require.Equal(t, map[string]int{"AtomicPut": 2, "Get": 1}, arrival.Take(), "a fresh arrival")

		kept, err := b.TryAcquire(t.Context(), "kept", lease.KeepValue())
		require.NoError(t, err)
		require.NoError(t, kept.Release(t.Context()))
		link.Take()
		kept = w.acquire(b, "kept")
		require.Equal(t, map[string]int{"AtomicPut": 2}, link.Take(), "an unowned row that keeps its value")
		require.NoError(t, kept.Update(t.Context(), []byte("v")))
		require.Equal(t, map[string]int{"AtomicPut": 1}, link.Take(), "an update")
		require.NoError(t, kept.Release(t.Context()))
		require.Equal(t, map[string]int{"AtomicPut": 1}, link.Take(), "a release")
	})
}
