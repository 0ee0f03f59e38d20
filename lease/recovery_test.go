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

func TestAcquireWaitsOutAnOutageOnceItFoundTheKeyHeld(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, link := w.client("b")
		held := w.acquire(a, "key")
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Op == "Get" {
				return errLost
			}
			return next(ctx)
		})
		_, err := b.TryAcquire(t.Context(), "key")
		require.ErrorIs(t, err, errLost, "who only tries is told")
		got := waitFor(t.Context(), b, "key")
		time.Sleep(2 * ttl)
		require.Empty(t, got)
		link.SetIntercept(nil)
		require.NoError(t, held.Release(t.Context()))
		require.NoError(t, (<-got).err)
	})
}

func TestR1SessionOfUnknownOutcomeIsThrownAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		var thrown string
		var calls atomic.Int64
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			err := next(ctx)
			if calls.Add(1) == 1 {
				thrown = strings.TrimPrefix(call.Key, "session/")
				return &kv.UncertainError{Key: call.Key, Err: errLost}
			}
			return err
		})
		_, err := a.TryAcquire(t.Context(), "key")
		require.ErrorIs(t, err, kv.ErrUncertain)
		require.Empty(t, w.rows("lease/"))
		synctest.Wait()
		w.acquire(a, "key")
		pair, err := w.store.Get(t.Context(), "lease/key")
		require.NoError(t, err)
		require.NotContains(t, pair.String(), thrown)
	})
}

func TestR16CloseAfterALossEndsTheOldSessionToo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		b, _ := w.client("b")
		l := w.acquire(a, "key")
		link.SetCut(true)
		<-l.Context().Done()
		link.SetCut(false)
		require.ErrorIs(t, l.Release(t.Context()), lease.ErrLost)
		require.NoError(t, a.Close(t.Context()))
		require.Empty(t, w.rows("session/"))
		w.acquire(b, "key")
	})
}

func TestR16CloseFindsTheRowOfAHeartbeatWithALostAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		l := w.acquire(a, "key")
		var sent atomic.Int32
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			err := next(ctx)
			if call.Op == "AtomicPut" && sent.Add(1) == 1 {
				return errors.Join(err, &kv.UncertainError{Key: call.Key, Err: errLost})
			}
			return err
		})
		for sent.Load() == 0 {
			time.Sleep(time.Millisecond)
		}
		require.NoError(t, l.Release(t.Context()))
		require.NoError(t, a.Close(t.Context()))
		require.Empty(t, w.rows(""))
	})
}

func TestReleaseDuringCloseTellsOfALoss(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		b, _ := w.client("b")
		l := w.acquire(a, "key")
		closed := make(chan error, 1)
		go func() { closed <- a.Close(context.Background()) }()
		<-l.Context().Done()
		link.SetCut(true)
		_, err := b.Acquire(t.Context(), "key")
		require.NoError(t, err)
		link.SetCut(false) // Close goes on as soon as the lease is released
		require.ErrorIs(t, l.Release(t.Context()), lease.ErrLost, "b holds the key by now")
		require.NoError(t, <-closed)
	})
}

func TestR13ReleaseLatchesBeforeItWrites(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		l := w.acquire(a, "key")
		asked := false
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Key == "lease/key" && call.Op == "AtomicDelete" {
				asked = true
				require.False(t, l.Held())
				require.Error(t, l.Context().Err())
				_, err := a.TryAcquire(ctx, "key")
				require.ErrorIs(t, err, lease.ErrHeld, "a pending release is no orphan")
			}
			return next(ctx)
		})
		require.NoError(t, l.Release(t.Context()))
		require.True(t, asked)
	})
}

func TestR13ReleaseAdoptsOurOwnWriteAndNobodyElses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		l := w.acquire(a, "key")
		pair, err := w.store.Get(t.Context(), "lease/key")
		require.NoError(t, err)
		require.Equal(t, pair.Version, l.Token(), "the token is the row's version")
		require.Contains(t, pair.String(), pair.Fields["acq"], "for the conditions of other writes")
		require.NoError(t, w.store.Put(t.Context(), "lease/key", kv.WithString(pair.String())))
		require.NoError(t, l.Release(t.Context()), "another version, the same acquisition")
		require.Empty(t, w.rows("lease/"))

		l = w.acquire(a, "key")
		require.NoError(t, w.store.Put(t.Context(), "lease/key", kv.WithString(`{"f":2,"session":"x","acq":"y"}`)))
		require.ErrorIs(t, l.Release(t.Context()), lease.ErrLost)
		require.Len(t, w.rows("lease/"), 1, "another acquisition")
	})
}

func TestR9RowGrantedTooLateIsGivenBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		w.acquire(a, "other")
		session := w.rows("session/")[0]
		var slowed atomic.Bool
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			switch {
			case call.Key == "lease/key" && slowed.CompareAndSwap(false, true):
				err := next(ctx)
				time.Sleep(ttl)
				return err
			case call.Key == session && call.Op == "AtomicPut" && slowed.Load():
				return &kv.UncertainError{Key: call.Key, Err: errLost}
			case strings.HasPrefix(call.Key, "session/") && call.Op == "AtomicPut":
				return errLost // and no new session can be opened
			}
			return next(ctx)
		})
		_, err := a.TryAcquire(patient(t), "key")
		require.ErrorIs(t, err, errLost)
		require.Equal(t, []string{"lease/other"}, w.rows("lease/"))
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

func TestReleaseAndCloseDoNotHangWithTheStoreHoweverLongTheTTL(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a", lease.WithTTL(lease.MaxTTL))
		l := w.acquire(a, "key")
		link.SetCut(true)
		began := time.Now()
		require.Error(t, l.Release(t.Context()))
		require.LessOrEqual(t, time.Since(began), 10*time.Second)
		began = time.Now()
		require.Error(t, a.Close(t.Context()))
		require.LessOrEqual(t, time.Since(began), 10*time.Second)
	})
}
