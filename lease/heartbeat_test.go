package lease_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// The first heartbeat lands and its answer is lost. The second finds that out,
// by a conflict or by an answer that is itself uncertain but carries the row;
// that does not extend the trust, so the third must not wait for its turn.
func TestR2SessionBeatsAtOnceWhenItHasAdoptedItsOwnHeartbeat(t *testing.T) {
	t.Parallel()
	for _, conflict := range []bool{true, false} {
		t.Run(map[bool]string{true: "conflict", false: "uncertain with the row"}[conflict], func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				a, link := w.client("a")
				l := w.acquire(a, "key")
				var mu sync.Mutex
				var sent []time.Time
				link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
					if !strings.HasPrefix(call.Key, "session/") {
						return next(ctx)
					}
					mu.Lock()
					sent = append(sent, time.Now())
					n := len(sent)
					mu.Unlock()
					err := next(ctx)
					switch {
					case n == 1:
						return &kv.UncertainError{Key: call.Key, Err: errLost}
					case n == 2 && !conflict:
						row, getErr := w.store.Get(ctx, call.Key)
						require.NoError(t, getErr)
						return &kv.UncertainError{Key: call.Key, Current: row, Err: errLost}
					}
					return err
				})
				time.Sleep(ttl / 2)
				synctest.Wait()
				mu.Lock()
				defer mu.Unlock()
				require.Len(t, sent, 3)
				require.Greater(t, sent[1], sent[0])
				require.WithinDuration(t, sent[1], sent[2], time.Nanosecond)
				require.Equal(t, ttl-margin-time.Since(sent[2]), l.Remaining())
			})
		})
	}
}

// beats lets hook see each write of a session's row with its number, from 1.
func (l *link) beats(hook func(ctx context.Context, n int64, call kv.Call, next func(context.Context) error) error) {
	var n atomic.Int64
	l.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
		if call.Op != "AtomicPut" || !strings.HasPrefix(call.Key, "session/") {
			return next(ctx)
		}
		return hook(ctx, n.Add(1), call, next)
	})
}

func TestR2HeartbeatThatLandsAfterALaterOneWasSentIsStillOurs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		l := w.acquire(a, "key")
		var late func(context.Context) error
		link.beats(func(ctx context.Context, n int64, call kv.Call, next func(context.Context) error) error {
			switch n {
			case 1:
				late = next
				return &kv.UncertainError{Key: call.Key, Err: errLost}
			case 2:
				return &kv.UncertainError{Key: call.Key, Err: errLost} // and never lands
			case 3:
				require.NoError(t, late(ctx))
			}
			return next(ctx)
		})
		time.Sleep(3 * ttl)
		synctest.Wait()
		require.NotNil(t, late)
		require.True(t, l.Held())
		require.NoError(t, l.Release(t.Context()))
	})
}

// An answer that leaves the outcome open may show the row as it was, or one
// that is not ours: only the latter is proof.
func TestR2RowThatAnUncertainAnswerShows(t *testing.T) {
	t.Parallel()
	for _, foreign := range []bool{false, true} {
		t.Run(map[bool]string{false: "as it was", true: "foreign"}[foreign], func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				a, link := w.client("a")
				l := w.acquire(a, "key")
				link.beats(func(ctx context.Context, n int64, call kv.Call, next func(context.Context) error) error {
					if n > 1 {
						return next(ctx)
					}
					row, err := w.store.Get(ctx, call.Key)
					require.NoError(t, err)
					if foreign {
						value := strings.Replace(row.String(), `"nonce":"`, `"nonce":"00`, 1)
						row = kv.NewPair(row.Key, row.Version+1, []byte(value), time.Time{}, nil)
					}
					return &kv.UncertainError{Key: call.Key, Current: row, Err: errLost}
				})
				time.Sleep(ttl / 2)
				require.Equal(t, !foreign, l.Held())
				if foreign {
					require.Equal(t, lease.ReasonKilled, reason(t, l.Err()))
					return
				}
				time.Sleep(2 * ttl)
				require.True(t, l.Held())
				require.NoError(t, l.Release(t.Context()))
			})
		})
	}
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

func TestR2RowOfALowerVersionIsNotOurs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		l := w.acquire(a, "key")
		row := w.rows("session/")[0]
		pair, err := w.store.Get(t.Context(), row)
		require.NoError(t, err)
		restored := kv.NewPair(row, pair.Version-1, pair.Bytes(), time.Time{}, nil) // from a backup, with our own beat
		var answers atomic.Int32
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Key == row && call.Op == "AtomicPut" && answers.Add(1) <= 3 { // not for ever, lest who adopts it spins
				return &kv.ConflictError{Key: row, Current: restored, Version: restored.Version}
			}
			return next(ctx)
		})
		began := time.Now()
		requireLost(t, l)
		require.Equal(t, lease.ReasonKilled, reason(t, l.Err()))
		require.LessOrEqual(t, time.Since(began), ttl/2, "at the next heartbeat")
	})
}
