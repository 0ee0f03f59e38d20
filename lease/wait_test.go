package lease_test

import (
	"context"
	"errors"
	"iter"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

func TestR15LocalWaiterDoesNotWaitForALeaseWhoseSessionIsLost(t *testing.T) {
	t.Parallel()
	for _, dead := range []bool{true, false} {
		t.Run(map[bool]string{true: "dead", false: "cloned"}[dead], func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				a, _ := w.client("a")
				l := w.acquire(a, "key")
				ctx, cancel := context.WithTimeout(t.Context(), 10*ttl)
				defer cancel()
				got := waitFor(ctx, a, "key")
				synctest.Wait()
				row := w.rows("session/")[0]
				if dead {
					require.NoError(t, w.store.Delete(t.Context(), row))
				} else {
					w.spoil(row)
				}
				requireLost(t, l) // and its holder does not release it
				free := time.Now()
				if !dead {
					time.Sleep(ttl)
					require.Empty(t, got, "it lives on under the clone")
					require.NoError(t, w.store.Delete(t.Context(), row))
					free = time.Now().Add(ttl/3 + time.Second) // the next look at the session
				}
				g := <-got
				require.NoError(t, g.err)
				require.LessOrEqual(t, g.at, free)
				require.Greater(t, g.Token(), l.Token())
				require.NoError(t, g.Release(t.Context()))
				require.ErrorIs(t, l.Release(t.Context()), lease.ErrLost)
			})
		})
	}
}

// Its holder still has its margin to stop, and nobody here asks the store meanwhile.
func TestR15LeaseThatEndedAndIsNotYetGivenBackStillHasTheKey(t *testing.T) {
	t.Parallel()
	for want, end := range map[lease.Reason]func(t *testing.T, w *world){
		lease.ReasonMaxHold: func(*testing.T, *world) {},
		lease.ReasonRevoked: func(t *testing.T, w *world) {
			b, _ := w.client("b")
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			require.Error(t, b.Break(ctx, inspect(t, b, "key")))
		},
	} {
		t.Run(string(want), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				a, link := w.client("a")
				l, err := a.TryAcquire(t.Context(), "key", lease.WithMaxHold(ttl))
				require.NoError(t, err)
				end(t, w)
				requireLost(t, l)
				require.Equal(t, want, reason(t, l.Err()))
				ended := time.Now()
				var record writes
				link.SetIntercept(record.hook)
				_, err = a.TryAcquire(t.Context(), "key")
				var held *lease.HeldError
				require.ErrorAs(t, err, &held)
				require.Equal(t, l.Token(), held.Holder.Token)
				require.Empty(t, record.Take())
				g := <-waitFor(t.Context(), a, "key")
				require.NoError(t, g.err)
				require.Equal(t, ttl/10, g.at.Sub(ended), "the margin, and not a poll more")
				require.Equal(t, []string{"AtomicDelete", "AtomicPut"}, record.Take())
				require.NoError(t, g.Release(t.Context()))
				require.ErrorIs(t, l.Release(t.Context()), lease.ErrLost)
			})
		})
	}
}

func TestR9LeaseWhoseRowIsAnothersDoesNotHaveTheKeyAnyMore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		l := w.acquire(a, "key")
		require.NoError(t, w.store.Delete(t.Context(), "lease/key"))
		require.ErrorIs(t, l.Update(t.Context(), nil), lease.ErrLost)
		require.Equal(t, lease.ReasonBroken, reason(t, l.Err()))
		require.NoError(t, w.acquire(a, "key").Release(t.Context()), "whether or not the first was released")
		require.ErrorIs(t, l.Release(t.Context()), lease.ErrLost)
	})
}

func TestR8ReleaseThatGoesOnUnderALostSessionDoesNotHaveTheKeyAnyMore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		l, other := w.acquire(a, "key"), w.acquire(a, "other")
		session := inspect(t, a, "key").Session
		var deletes atomic.Int64
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Key != "lease/key" || call.Op != "AtomicDelete" {
				return next(ctx)
			}
			if deletes.Add(1) > 2 {
				<-ctx.Done() // what goes on in the background gets no answer any more
			}
			return &kv.UncertainError{Key: call.Key, Err: errLost}
		})
		require.ErrorIs(t, l.Release(t.Context()), kv.ErrUncertain)
		require.NoError(t, w.store.Delete(t.Context(), "session/"+session))
		requireLost(t, other)
		require.EqualValues(t, 3, deletes.Load())
		next := w.acquire(a, "key")
		require.True(t, next.TakenOver())
		require.NotEqual(t, session, inspect(t, a, "key").Session)
		link.SetIntercept(nil)
		require.NoError(t, next.Release(t.Context()))
		require.ErrorIs(t, other.Release(t.Context()), lease.ErrLost)
	})
}

// shortSighted is a store whose watches fail some time after they began.
type shortSighted struct {
	*link
	after time.Duration
}

func (s *shortSighted) WatchPrefix(ctx context.Context, _ string, _ kv.WatchSettings) iter.Seq2[kv.Event, error] {
	return func(yield func(kv.Event, error) bool) {
		if !yield(kv.Event{Type: kv.EventSynced}, nil) {
			return
		}
		select {
		case <-time.After(s.after):
			yield(kv.Event{}, errLost)
		case <-ctx.Done():
		}
	}
}

func TestR9WaiterPollsWhenItsWatchHasFailed(t *testing.T) {
	t.Parallel()
	for _, after := range []time.Duration{0, 10 * time.Second} {
		t.Run(after.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				a, _ := w.client("a")
				l := w.acquire(a, "key")
				link := newLink(w.store)
				b, err := lease.New(&shortSighted{link, after}, lease.WithTTL(ttl))
				require.NoError(t, err)
				var reads atomic.Int64
				link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
					if call.Op == "Get" && call.Key == "lease/key" && reads.Add(1) > 1000 {
						return kv.ErrClosed // a waiter that never pauses would never end
					}
					return next(ctx)
				})
				got := waitFor(t.Context(), b, "key")
				time.Sleep(30 * time.Second)
				reads.Store(0)
				time.Sleep(30 * time.Second)
				require.InDelta(t, 33, reads.Load(), 6, "a read per poll")
				require.NoError(t, l.Release(t.Context()))
				released := time.Now()
				g := <-got
				require.NoError(t, g.err)
				require.LessOrEqual(t, g.at.Sub(released), time.Second)
				require.NoError(t, g.Release(t.Context()))
				require.NoError(t, b.Close(t.Context()))
			})
		})
	}
}

func TestAcquireWaitsOutWhatTimeMendsAndReportsAnyOtherFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		require.NoError(t, w.acquire(a, "warm").Release(t.Context()))
		var left atomic.Int64
		failure := kv.ErrThrottled
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Key == "lease/key" && call.Op == "AtomicPut" && left.Add(-1) >= 0 {
				return failure
			}
			return next(ctx)
		})
		left.Store(1)
		_, err := a.TryAcquire(t.Context(), "key")
		require.ErrorIs(t, err, kv.ErrThrottled, "who only tries is told")
		for _, failure = range []error{
			kv.ErrThrottled, kv.ErrUnavailable, kv.ErrUncertain, kv.ErrClock, kv.ErrRefused, errLost,
		} {
			left.Store(3)
			l, err := a.Acquire(t.Context(), "key")
			require.NoError(t, err, "%v", failure)
			require.NoError(t, l.Release(t.Context()))
		}
		for _, failure = range []error{
			kv.ErrTooLarge, kv.ErrFormat, kv.ErrUnsupported, kv.ErrInvalidKey, kv.ErrInvalidOption, kv.ErrClosed,
		} {
			left.Store(1)
			began := time.Now()
			_, err = a.Acquire(t.Context(), "key")
			require.ErrorIs(t, err, failure)
			require.Equal(t, began, time.Now())
		}
	})
}

// A store that fails just when the call ends does not hide why it ends.
func TestAWaitThatEndsWhileTheStoreFailsSaysSo(t *testing.T) {
	t.Parallel()
	calls := map[string]func(ctx context.Context, c *lease.Client) error{
		"Acquire": func(ctx context.Context, c *lease.Client) error {
			_, err := c.Acquire(ctx, "key")
			return err
		},
		"AcquireAny": func(ctx context.Context, c *lease.Client) error {
			_, err := c.AcquireAny(ctx, []string{"key", "other"})
			return err
		},
		"AcquireAny, listed": func(ctx context.Context, c *lease.Client) error {
			_, err := c.AcquireAny(ctx, []string{"key"}, lease.WithListing("k", nil))
			return err
		},
	}
	for name, call := range calls {
		for end, want := range map[string]error{"ctx": context.Canceled, "Close": lease.ErrClosed} {
			for _, polls := range []bool{false, true} {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					a, _ := w.client("a")
					b, link := w.client("b")
					for _, key := range []string{"key", "other"} {
						w.acquire(a, key)
					}
					require.NoError(t, w.acquire(b, "warm").Release(t.Context()))
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					got := make(chan error, 1)
					if polls {
						go func() { got <- call(ctx, b) }()
						time.Sleep(time.Second)
					}
					link.SetIntercept(func(ctx context.Context, _ kv.Call, _ func(context.Context) error) error {
						<-ctx.Done()
						return kv.ErrThrottled
					})
					if !polls {
						go func() { got <- call(ctx, b) }()
					}
					time.Sleep(2 * time.Second)
					if end == "ctx" {
						cancel()
					} else {
						go func() { _ = b.Close(context.Background()) }()
					}
					err := <-got
					link.SetIntercept(nil)
					require.ErrorIs(t, err, want, "%s ended by %s, polls: %t", name, end, polls)
					var ended *lease.WaitError
					require.Equal(t, end == "ctx", errors.As(err, &ended))
				})
			}
		}
	}
}
