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

// unanswered makes a client, with a session, whose TryAcquire of "key" got no
// answer to a write that may land up to two minutes later: skip tells how many
// others come before it, version what it would give the row. land lets it reach
// the store; meanwhile is around all other calls, nil: nothing is. When
// unanswered returns, the resolver has looked once.
func (w *world) unanswered(skip int, version uint64, meanwhile kv.Hook) (l *link, land func() error) {
	w.t.Helper()
	l = newLink(w.store)
	c, err := lease.New(slow{l}, lease.WithTTL(ttl), lease.WithOwner("slow"))
	require.NoError(w.t, err)
	w.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = c.Close(ctx) // a session that was spoilt may not be there any more
	})
	require.NoError(w.t, w.acquire(c, "warm").Release(w.t.Context()))
	var late func(context.Context) error
	l.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
		switch {
		case call.Key == "lease/key" && call.Op == "AtomicPut" && skip == 0 && late == nil:
			late = next
			return &kv.UncertainError{Key: call.Key, Version: version, Err: errLost}
		case call.Key == "lease/key" && call.Op == "AtomicPut":
			skip--
		case meanwhile != nil:
			return meanwhile(ctx, call, next)
		}
		return next(ctx)
	})
	_, err = c.TryAcquire(w.t.Context(), "key")
	require.ErrorIs(w.t, err, kv.ErrUncertain)
	require.NotNil(w.t, late)
	synctest.Wait()
	return l, func() error { return late(context.Background()) }
}

// spoil changes a session's row as a clone of its process does, so that the
// session is lost and its row is not gone.
func (w *world) spoil(row string) {
	pair, err := w.store.Get(w.t.Context(), row)
	require.NoError(w.t, err)
	require.NoError(w.t, w.store.Put(w.t.Context(), row,
		kv.WithString(strings.Replace(pair.String(), `"nonce":"`, `"nonce":"00`, 1))))
}

func TestR14ResolverReadsNoMoreOnceTheRowHasReachedTheVersionOfTheWrite(t *testing.T) {
	t.Parallel()
	t.Run("another's row", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			b, _ := w.client("b")
			theirs := w.acquire(b, "key")
			link, _ := w.unanswered(0, theirs.Token(), nil)
			require.Equal(t, 1, link.Take()["Get"])
			time.Sleep(5 * time.Minute)
			require.Zero(t, link.Take()["Get"])
			require.True(t, theirs.Held())
		})
	})
	t.Run("tombstone", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			link, _ := w.unanswered(0, 1000, func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
				if call.Op == "Get" {
					return &kv.NotFoundError{Key: call.Key, Version: 1000}
				}
				return next(ctx)
			})
			require.Equal(t, 1, link.Take()["Get"])
			time.Sleep(5 * time.Minute)
			require.Zero(t, link.Take()["Get"])
		})
	})
}

func TestR14WriteThatLandsOnAnOlderVersionThanItsOwnIsGivenBack(t *testing.T) {
	t.Parallel()
	t.Run("row", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			b, _ := w.client("b")
			kept, err := b.TryAcquire(t.Context(), "key", lease.KeepValue(), lease.WithValue([]byte("v")))
			require.NoError(t, err)
			require.NoError(t, kept.Release(t.Context()))
			unowned, err := w.store.Get(t.Context(), "lease/key")
			require.NoError(t, err)
			_, land := w.unanswered(1, unowned.Version+1, nil) // the first, a create, finds the row
			time.Sleep(time.Minute)
			require.NoError(t, land())
			require.True(t, inspect(t, b, "key").Held())
			time.Sleep(50 * time.Second)
			require.False(t, inspect(t, b, "key").Held())
			require.Equal(t, "v", string(inspect(t, b, "key").Value))
		})
	})
	t.Run("tombstone", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			_, land := w.unanswered(0, 1000, func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
				err := next(ctx)
				if errors.Is(err, kv.ErrKeyNotFound) && call.Op == "Get" {
					return &kv.NotFoundError{Key: call.Key, Version: 999}
				}
				return err
			})
			time.Sleep(time.Minute)
			require.NoError(t, land())
			time.Sleep(50 * time.Second)
			require.Empty(t, w.rows("lease/"))
		})
	})
}

func TestR14ResolverReadsNoMoreOnceTheSessionIsDead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		link, _ := w.unanswered(0, 0, nil)
		require.NoError(t, w.store.Delete(t.Context(), w.rows("session/")[0]))
		time.Sleep(50 * time.Second) // a heartbeat finds out, and another read may have been due
		link.Take()
		time.Sleep(50 * time.Second) // longer than any pause, and the write could still land
		require.Zero(t, link.Take()["Get"])
	})
}

// A session that is lost may live on for everybody else, and with it what it holds.
func TestR14ResolverGoesOnWhenTheSessionIsLostButNotDead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		_, land := w.unanswered(0, 0, nil)
		w.spoil(w.rows("session/")[0])
		time.Sleep(50 * time.Second)
		require.NoError(t, land())
		require.Equal(t, []string{"lease/key"}, w.rows("lease/"))
		time.Sleep(50 * time.Second)
		require.Empty(t, w.rows("lease/"))
		require.Len(t, w.rows("session/"), 1)
	})
}

// The store's unanswered writes land up to a minute after they were sent, and
// the last attempt may be sent a minute after the first (S6).
func TestR14WriteMayLandAMinuteAfterTheDelayOfTheStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		link, land := w.unanswered(0, 0, nil)
		time.Sleep(2*time.Minute - time.Second)
		require.NoError(t, land())
		time.Sleep(50 * time.Second)
		require.Empty(t, w.rows("lease/"))
		link.Take()
		time.Sleep(5 * time.Minute)
		require.Zero(t, link.Take()["Get"])
	})
}

func TestR14FailedReadAndFailedGivingBackProveNothing(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"Get", "AtomicDelete"} {
		t.Run(op, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				var failing atomic.Int64
				failing.Store(3)
				link, land := w.unanswered(0, 0, func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
					if call.Key == "lease/key" && call.Op == op && failing.Add(-1) >= 0 {
						return kv.ErrThrottled
					}
					return next(ctx)
				})
				require.NoError(t, land())
				time.Sleep(10 * time.Second)
				require.Negative(t, failing.Load())
				require.Empty(t, w.rows("lease/"))
				link.Take()
				time.Sleep(5 * time.Minute)
				require.Zero(t, link.Take()["Get"], "applied once, and so never again")
			})
		})
	}
}

func TestR14ResolverLooksAfterAWriteThatComesWhileItReads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		require.NoError(t, w.acquire(a, "warm").Release(t.Context()))
		reading := make(chan struct{})
		var reads atomic.Int64
		var late func(context.Context) error
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			switch {
			case call.Key == "lease/key" && call.Op == "AtomicPut":
				late = next
				return &kv.UncertainError{Key: call.Key, Err: errLost}
			case call.Key == "lease/key" && call.Op == "Get" && reads.Add(1) == 1:
				err := next(ctx)
				<-reading
				return err
			}
			return next(ctx)
		})
		for range 2 {
			_, err := a.TryAcquire(t.Context(), "key")
			require.ErrorIs(t, err, kv.ErrUncertain)
			synctest.Wait()
		}
		require.EqualValues(t, 1, reads.Load())
		require.NoError(t, late(t.Context())) // the second lands after the read
		close(reading)
		time.Sleep(time.Second)
		require.Empty(t, w.rows("lease/"))
	})
}

func TestR14ResolverLooksAtOnceForAnotherWriteHoweverLongItsPausesAre(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		l := newLink(w.store)
		a, err := lease.New(slow{l}, lease.WithTTL(ttl))
		require.NoError(t, err)
		defer func() { require.NoError(t, a.Close(t.Context())) }()
		var lands atomic.Bool
		l.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Key == "lease/key" && call.Op == "AtomicPut" {
				if lands.Load() {
					_ = next(ctx)
				}
				return &kv.UncertainError{Key: call.Key, Err: errLost}
			}
			return next(ctx)
		})
		_, err = a.TryAcquire(t.Context(), "key")
		require.ErrorIs(t, err, kv.ErrUncertain)
		time.Sleep(100 * time.Second)
		lands.Store(true)
		_, err = a.TryAcquire(t.Context(), "key")
		require.ErrorIs(t, err, kv.ErrUncertain)
		synctest.Wait()
		require.Empty(t, w.rows("lease/"))
	})
}
