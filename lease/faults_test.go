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

func TestR2LostHeartbeatAnswerCostsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		l := w.acquire(a, "key")
		for range 5 {
			link.LoseAnswer("AtomicPut", "session/")
			time.Sleep(ttl)
			require.True(t, l.Held())
		}
	})
}

func TestR2AdoptingDoesNotExtendTrust(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		l := w.acquire(a, "key")
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if err := next(ctx); err != nil {
				return err
			}
			return &kv.UncertainError{Key: call.Key, Err: errLost} // every heartbeat lands, no answer ever arrives
		})
		began := time.Now()
		requireLost(t, l)
		require.Equal(t, lease.ReasonExpired, reason(t, l.Err()))
		require.Equal(t, ttl-ttl/10, time.Since(began))
	})
}

func TestR2ForeignSessionRowEndsTheSession(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(w *world, row string){
		"deleted": func(w *world, row string) { require.NoError(w.t, w.store.Delete(w.t.Context(), row)) },
		"cloned": func(w *world, row string) {
			pair, err := w.store.Get(w.t.Context(), row)
			require.NoError(w.t, err)
			value := strings.Replace(pair.String(), `"nonce":"`, `"nonce":"00`, 1)
			require.NoError(w.t, w.store.Put(w.t.Context(), row, kv.WithString(value)))
		},
		"garbage": func(w *world, row string) { require.NoError(w.t, w.store.Put(w.t.Context(), row, kv.WithString("?"))) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				a, _ := w.client("a")
				l := w.acquire(a, "key")
				spoil(w, w.rows("session/")[0])
				began := time.Now()
				requireLost(t, l)
				require.Equal(t, lease.ReasonKilled, reason(t, l.Err()))
				require.LessOrEqual(t, time.Since(began), ttl/2, "at the next heartbeat")
			})
		})
	}
}

func TestR3AnswerAfterTheDeadlineIsNotApplied(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		l := w.acquire(a, "key")
		link.SetIntercept(func(ctx context.Context, _ kv.Call, next func(context.Context) error) error {
			err := next(ctx)
			time.Sleep(ttl) // whatever the caller's context says
			return err
		})
		<-l.Context().Done()
		time.Sleep(3 * ttl)
		require.Equal(t, lease.ReasonExpired, reason(t, l.Err()))
		require.Zero(t, l.Remaining())
	})
}

func TestR4R5HolderAsksAllItsClocks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link, c := w.skewed("a", 1)
		l := w.acquire(a, "key")
		c.FreezeMonotonic()
		link.SetCut(true)
		time.Sleep(ttl - ttl/10)
		require.False(t, l.Held(), "the wall clock went on while the monotonic clock stood still")
		c.ThawMonotonic()
		c.Step(-time.Hour)
		require.False(t, l.Held(), "I7: once false, for ever")

		d, cut, back := w.skewed("d", 1)
		third := w.acquire(d, "third")
		cut.SetCut(true)
		back.Step(-time.Hour)
		require.True(t, third.Held())
		time.Sleep(ttl - ttl/10)
		require.False(t, third.Held(), "a backward step is covered by the monotonic clock")

		b, _, step := w.skewed("b", 1)
		other := w.acquire(b, "other")
		step.Step(time.Hour)
		require.False(t, other.Held(), "a forward step ends it at once")
	})
}

func TestR6LossDoesNotWaitForAHungRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		l := w.acquire(a, "key")
		release := make(chan struct{})
		link.SetIntercept(func(context.Context, kv.Call, func(context.Context) error) error {
			<-release // not even when its context ends
			return &kv.UncertainError{Err: errLost}
		})
		began := time.Now()
		<-l.Context().Done()
		require.Equal(t, ttl-ttl/10, time.Since(began))
		link.SetIntercept(nil)
		close(release)
	})
}

func TestR8NewSessionAfterALossAndTheOldOneIsEnded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		l := w.acquire(a, "key")
		old := w.rows("session/")
		link.SetCut(true)
		<-l.Context().Done()
		link.SetCut(false)
		began := time.Now()
		again, err := a.Acquire(t.Context(), "key")
		require.NoError(t, err)
		require.LessOrEqual(t, time.Since(began), ttl/10+time.Second, "not waited out: its own corpse is buried at t0 + TTL")
		require.GreaterOrEqual(t, time.Since(began), ttl/10-time.Millisecond)
		require.NotEqual(t, old, w.rows("session/"))
		require.Len(t, w.rows("session/"), 1)
		require.Greater(t, again.Token(), l.Token())
	})
}

func TestR9OrphanOfOurOwnIsTakenAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		w.acquire(a, "other")
		link.LoseAnswer("AtomicPut", "lease/")
		_, err := a.TryAcquire(t.Context(), "key")
		require.ErrorIs(t, err, kv.ErrUncertain)
		began := time.Now()
		l, err := a.TryAcquire(t.Context(), "key")
		require.NoError(t, err)
		require.Zero(t, time.Since(began), "I6")
		time.Sleep(2 * ttl)
		require.True(t, l.Held(), "I4: the resolver of the first left the second alone")
		require.Len(t, w.rows("lease/"), 2)
	})
}

func TestR9AcquireGoesOnAfterALostAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		w.acquire(a, "other")
		link.LoseAnswer("AtomicPut", "lease/")
		began := time.Now()
		l, err := a.Acquire(t.Context(), "key")
		require.NoError(t, err)
		require.LessOrEqual(t, time.Since(began), 100*time.Millisecond, "I6")
		require.True(t, l.Held())
	})
}

func TestR14AbandonedAcquireIsGivenBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		b, _ := w.client("b")
		w.acquire(a, "other")
		link.LoseAnswer("AtomicPut", "lease/")
		_, err := a.TryAcquire(t.Context(), "key")
		require.ErrorIs(t, err, kv.ErrUncertain)
		time.Sleep(time.Second)
		require.Equal(t, []string{"lease/other"}, w.rows("lease/"))
		require.NotNil(t, w.acquire(b, "key"))
	})
}

// slow is a store whose unanswered writes may land a minute later.
type slow struct{ *link }

func (slow) MaxWriteDelay() time.Duration { return time.Minute }

func TestR14AcquireThatLandsLateIsGivenBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		l := newLink(w.store)
		a, err := lease.New(slow{l}, lease.WithTTL(ttl))
		require.NoError(t, err)
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_ = a.Close(ctx) // a check that failed has left the lease
		})
		other := w.acquire(a, "other")
		landed := make(chan error, 1)
		l.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Key != "lease/key" || call.Op != "AtomicPut" {
				return next(ctx)
			}
			go func() {
				time.Sleep(50 * time.Second)
				landed <- next(context.Background())
			}()
			return &kv.UncertainError{Key: call.Key, Err: errLost}
		})
		_, err = a.TryAcquire(t.Context(), "key")
		require.ErrorIs(t, err, kv.ErrUncertain)
		require.NoError(t, <-landed)
		require.Len(t, w.rows("lease/"), 2)
		time.Sleep(time.Minute)
		require.Equal(t, []string{"lease/other"}, w.rows("lease/"))
		time.Sleep(2 * time.Minute)
		l.Take()
		time.Sleep(2 * time.Minute)
		require.Zero(t, l.Take()["Get"], "and then it looks no more")
		require.NoError(t, other.Release(t.Context()))
	})
}

func TestR9GrantIsRecheckedWhenItsAnswerCame(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		w.acquire(a, "other")
		var slowed atomic.Bool
		before := w.rows("session/")
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			switch {
			case call.Key == "lease/key" && slowed.CompareAndSwap(false, true):
				err := next(ctx)
				time.Sleep(ttl) // the answer comes when the session is no longer trusted
				return err
			case call.Key == before[0] && call.Op == "AtomicPut" && slowed.Load():
				return &kv.UncertainError{Key: call.Key, Err: errLost} // since no heartbeat succeeds
			}
			return next(ctx)
		})
		l, err := a.Acquire(t.Context(), "key")
		link.SetIntercept(nil)
		require.NoError(t, err)
		require.True(t, l.Held(), "I8")
		require.NotEqual(t, before, w.rows("session/"), "under a session that is trusted")
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

func TestR18ForeignRowsAreLeftAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c, _ := w.client("a")
		for row, value := range map[string]string{
			"lease/text":    "hello",
			"lease/newer":   `{"f":9,"session":"x","acq":"y"}`,
			"lease/neither": `{"f":2}`,
			"lease/ttl":     `{"f":2,"session":"short","acq":"y"}`,
			"session/short": `{"f":2,"ttl_ms":10}`,
		} {
			require.NoError(t, w.store.Put(t.Context(), row, kv.WithString(value)))
		}
		before := w.rows("")
		for _, key := range []string{"text", "newer", "neither", "ttl"} {
			for range 2 {
				_, err := c.TryAcquire(t.Context(), key)
				require.ErrorIs(t, err, kv.ErrFormat, key)
				_, err = c.Acquire(t.Context(), key)
				require.ErrorIs(t, err, kv.ErrFormat, key)
				time.Sleep(2 * ttl)
			}
		}
		require.Subset(t, w.rows(""), before)
	})
}

func TestR19TakeoverOfAKeepRowKeepsItsValue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c, _ := w.client("a")
		require.NoError(t, w.store.Put(t.Context(), "lease/key",
			kv.WithString(`{"f":2,"keep":true,"value":"Y2hlY2twb2ludA=="}`)))
		for range 2 {
			l := w.acquire(c, "key")
			require.NoError(t, l.Release(t.Context()))
			pair, err := w.store.Get(t.Context(), "lease/key")
			require.NoError(t, err)
			require.JSONEq(t, `{"f":2,"keep":true,"value":"Y2hlY2twb2ludA=="}`, pair.String())
		}
	})
}
