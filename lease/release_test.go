package lease_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

func TestR13R19ReleaseAfterAnUpdateOfUnknownOutcomeKeepsTheValueThatLanded(t *testing.T) {
	t.Parallel()
	for _, waiting := range []bool{false, true} {
		t.Run(map[bool]string{false: "nobody waits", true: "with a local waiter"}[waiting], func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				a, link := w.client("a")
				l, err := a.TryAcquire(t.Context(), "key", lease.KeepValue(), lease.WithValue([]byte("old")))
				require.NoError(t, err)
				link.LoseAnswer("AtomicPut", "lease/")
				require.ErrorIs(t, l.Update(t.Context(), []byte("new")), kv.ErrUncertain)
				require.Equal(t, "old", string(l.Value()))
				if !waiting {
					require.NoError(t, l.Release(t.Context()))
					require.Equal(t, "new", string(inspect(t, a, "key").Value))
					return
				}
				got := waitFor(t.Context(), a, "key")
				synctest.Wait()
				require.NoError(t, l.Release(t.Context())) // the handover conflicts with the update
				g := <-got
				require.NoError(t, g.err)
				require.Equal(t, "new", string(g.Value()))
				require.NoError(t, g.Release(t.Context()))
			})
		})
	}
}

func TestR13WhoReleasesMeanwhileWaitsAndLearnsTheSame(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		l := w.acquire(a, "key")
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Key == "lease/key" && call.Op == "AtomicDelete" {
				time.Sleep(time.Second)
				require.NoError(t, w.store.Delete(ctx, "lease/key")) // somebody is faster
			}
			return next(ctx)
		})
		began := time.Now()
		outcomes := make(chan error, 3)
		for range 3 {
			go func() { outcomes <- l.Release(t.Context()) }()
		}
		for range 3 {
			require.ErrorIs(t, <-outcomes, lease.ErrLost)
			require.Equal(t, time.Second, time.Since(began))
		}
		require.Equal(t, 1, link.Take()["AtomicDelete"])
	})
}

// unreleased makes a client whose release of "key" gets no answer, and goes on
// in the background until answer is set.
func (w *world) unreleased() (c *lease.Client, l *link, answer *atomic.Bool) {
	w.t.Helper()
	answer = &atomic.Bool{}
	c, l = w.client("a")
	held := w.acquire(c, "key")
	l.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
		if call.Key == "lease/key" && call.Op == "AtomicDelete" && !answer.Load() {
			return &kv.UncertainError{Key: call.Key, Err: errLost}
		}
		return next(ctx)
	})
	require.ErrorIs(w.t, held.Release(w.t.Context()), kv.ErrUncertain)
	return c, l, answer
}

func TestR13ReleaseOfUnknownOutcomeEndsWithTheDeathOfTheSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link, _ := w.unreleased()
		time.Sleep(time.Minute)
		require.Positive(t, link.Take()["AtomicDelete"])
		require.NoError(t, w.store.Delete(t.Context(), w.rows("session/")[0])) // and all that it holds is free
		time.Sleep(time.Minute)                                                // a heartbeat finds out
		link.Take()
		time.Sleep(10 * time.Minute)
		require.Zero(t, link.Take()["AtomicDelete"])
		require.NoError(t, a.Close(t.Context()))
	})
}

// A session that is lost may live on for everybody else, and with it what it holds.
func TestR13ReleaseOfUnknownOutcomeGoesOnWhenTheSessionIsLostButNotDead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		_, _, answer := w.unreleased()
		w.spoil(w.rows("session/")[0])
		time.Sleep(2 * time.Minute)
		require.Equal(t, []string{"lease/key"}, w.rows("lease/"))
		answer.Store(true)
		time.Sleep(time.Minute)
		require.Empty(t, w.rows("lease/"))
		require.Len(t, w.rows("session/"), 1)
	})
}

func TestR13ReleaseOfUnknownOutcomeIsNoOrphan(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link, answer := w.unreleased()
		link.Take()
		_, err := a.TryAcquire(t.Context(), "key")
		require.ErrorIs(t, err, lease.ErrHeld)
		require.Zero(t, link.Take()["AtomicPut"])
		answer.Store(true)
		time.Sleep(time.Minute)
		require.NoError(t, w.acquire(a, "key").Release(t.Context()))
	})
}

func TestR13R15ReleaseThatWentOnWakesTheLocalWaiterAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link, answer := w.unreleased()
		var freed time.Time
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Key != "lease/key" || call.Op != "AtomicDelete" || !freed.IsZero() {
				return next(ctx)
			}
			if !answer.Load() {
				return &kv.UncertainError{Key: call.Key, Err: errLost}
			}
			freed = time.Now()
			return next(ctx)
		})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		got := waitFor(ctx, a, "key")
		time.Sleep(5 * time.Minute)
		answer.Store(true)
		g := <-got
		require.NoError(t, g.err)
		require.Equal(t, freed, g.at)
		require.NoError(t, g.Release(t.Context()))
	})
}

// hints notes the hint of WithSweepAfter that the last write of each key carried.
type hints struct {
	kv.Store
	mu    sync.Mutex
	swept map[string]time.Duration
}

func (h *hints) AtomicPut(ctx context.Context, key string, options ...kv.WriteOption) (*kv.KVPair, error) {
	if s, err := kv.AtomicPutSettings(key, options); err == nil {
		h.mu.Lock()
		h.swept[key] = s.SweepAfter
		h.mu.Unlock()
	}
	return h.Store.AtomicPut(ctx, key, options...)
}

func (h *hints) Of(key string) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.swept[key]
}

func TestR19RetentionIsTheKeysAndCountsWhenNobodyHasIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		store := &hints{Store: w.store, swept: map[string]time.Duration{}}
		c, err := lease.New(store, lease.WithTTL(ttl))
		require.NoError(t, err)
		for i, options := range [][]lease.AcquireOption{
			{lease.WithRetention(time.Hour), lease.WithValue([]byte("v"))}, {}, {lease.KeepValue()},
			{lease.WithRetention(2 * time.Hour)}, {},
		} {
			l, err := c.TryAcquire(t.Context(), "key", options...)
			require.NoError(t, err)
			require.Zero(t, store.Of("lease/key"), "a row that is held is not garbage")
			require.Equal(t, "v", string(l.Value()))
			require.NoError(t, l.Update(t.Context(), []byte("v")))
			require.Zero(t, store.Of("lease/key"))
			require.NoError(t, l.Release(t.Context()))
			require.Equal(t, map[bool]time.Duration{true: time.Hour, false: 2 * time.Hour}[i < 3], store.Of("lease/key"), i)
		}
		require.NoError(t, c.Close(t.Context()))
	})
}
