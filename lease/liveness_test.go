package lease_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

func TestR12RowWithoutRenewedAtIsNotLongDead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		b, _ := w.client("b", lease.WithMaxClockSkew(time.Second))
		_, err := w.store.AtomicPut(t.Context(), "session/x", kv.WithString(`{"f":2,"ttl_ms":10000,"nonce":"00"}`))
		require.NoError(t, err)
		_, err = w.store.AtomicPut(t.Context(), "lease/key", kv.WithString(`{"f":2,"session":"x","acq":"y"}`))
		require.NoError(t, err)
		_, err = b.TryAcquire(t.Context(), "key")
		require.Error(t, err)
	})
}

// bound is I5: within it a waiter has the key of a holder that crashed.
const bound = ttl + ttl/16 + ttl/3 + time.Second

func TestI5I3CrashedHolderIsTakenOverAfterItsTrustAndWithinTheBound(t *testing.T) {
	t.Parallel()
	for name, rates := range map[string][2]float64{
		"equal clocks":             {1, 1},
		"slow holder, fast waiter": {0.985, 1.015},
		"fast holder, slow waiter": {1.015, 0.985},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				a, link, _ := w.skewed("a", rates[0])
				b, _, _ := w.skewed("b", rates[1])
				old := w.acquire(a, "key")
				ctx, cancel := context.WithTimeout(t.Context(), 10*ttl)
				defer cancel()
				got := waitFor(ctx, b, "key")
				time.Sleep(2 * ttl)
				require.True(t, old.Held())

				link.SetCut(true)
				crashed := time.Now()
				<-old.Context().Done()
				require.Equal(t, lease.ReasonExpired, reason(t, context.Cause(old.Context())))
				stopped := time.Now()
				g := <-got
				require.NoError(t, g.err)
				require.True(t, g.at.After(stopped), "I3: the holder stopped before anybody else began")
				require.LessOrEqual(t, g.at.Sub(crashed), bound*103/100, "I5")
				require.Greater(t, g.Token(), old.Token(), "I2")
				require.True(t, g.TakenOver())
				require.False(t, old.Held(), "I7")
			})
		})
	}
}

func TestR11FreshArrivalsShareWhatTheClientHasSeen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		b, other := w.client("b")
		for _, key := range []string{"1", "2", "3"} {
			w.acquire(a, key)
		}
		_, err := b.TryAcquire(t.Context(), "1")
		require.ErrorIs(t, err, lease.ErrHeld)
		time.Sleep(ttl)
		link.SetCut(true)
		time.Sleep(10 * ttl)
		_, err = b.TryAcquire(t.Context(), "1")
		require.ErrorIs(t, err, lease.ErrHeld, "a version not seen before: the wait begins")
		time.Sleep(ttl + ttl/16)
		other.Take()
		for _, key := range []string{"1", "2", "3"} {
			require.True(t, w.acquire(b, key).TakenOver(), "nobody had to wait in Acquire")
		}
		require.Equal(t, map[string]int{"AtomicPut": 6, "Get": 1, "AtomicDelete": 1}, other.Take(),
			"a conflict and a takeover per key, and one read and one kill for all of them")
	})
}

func TestR10HeartbeatBetweenTheLastReadAndTheKillSavesTheSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, holder := w.client("a")
		b, contender := w.client("b")
		l := w.acquire(a, "key")
		row := w.rows("session/")[0]
		_, err := b.TryAcquire(t.Context(), "key")
		require.ErrorIs(t, err, lease.ErrHeld)
		holder.SetCut(true)
		<-l.Context().Done()
		time.Sleep(ttl)
		contender.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Op == "AtomicDelete" && call.Key == row {
				pair, err := w.store.Get(ctx, row)
				require.NoError(t, err)
				_, err = w.store.AtomicPut(ctx, row, kv.WithPrevious(pair), kv.WithString(pair.String()))
				require.NoError(t, err)
			}
			return next(ctx)
		})
		_, err = b.TryAcquire(t.Context(), "key")
		require.ErrorIs(t, err, lease.ErrHeld, "the kill failed on the version")
		require.Equal(t, 1, contender.Take()["AtomicDelete"])
	})
}

func TestR10SessionRowThatLivesOnUnderACloneIsNotDead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		l := w.acquire(a, "key")
		row := w.rows("session/")[0]
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go func() {
			for ctx.Err() == nil { // the clone beats
				if p, err := w.store.Get(ctx, row); err == nil {
					beat := strings.Replace(p.String(), `"nonce":"`, `"nonce":"0`, 1)
					_, _ = w.store.AtomicPut(ctx, row, kv.WithPrevious(p), kv.WithString(beat))
				}
				time.Sleep(time.Second)
			}
		}()
		<-l.Context().Done()
		time.Sleep(3 * ttl)
		_, err := a.TryAcquire(t.Context(), "key")
		require.ErrorIs(t, err, lease.ErrHeld)
		require.Contains(t, w.rows("session/"), row)
	})
}

func TestR18SpoiledSessionRowIsNotDead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		l := w.acquire(a, "key")
		require.NoError(t, w.store.Put(t.Context(), w.rows("session/")[0], kv.WithString("?")))
		<-l.Context().Done()
		time.Sleep(3 * ttl)
		_, err := a.TryAcquire(t.Context(), "key")
		require.ErrorIs(t, err, kv.ErrFormat)
	})
}
