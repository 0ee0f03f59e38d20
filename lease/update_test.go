package lease_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

func TestUpdateIsACheckpointThatTheNextHolderFinds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, _ := w.client("b")
		first, err := a.TryAcquire(t.Context(), "key", lease.KeepValue(), lease.WithValue([]byte("start")))
		require.NoError(t, err)
		require.Equal(t, "start", string(first.Value()))
		require.NoError(t, first.Update(t.Context(), []byte("half")))
		require.Equal(t, "half", string(first.Value()))
		require.NoError(t, first.Release(t.Context()))

		second, err := b.TryAcquire(t.Context(), "key", lease.WithValue([]byte("not used")))
		require.NoError(t, err)
		require.Equal(t, "half", string(second.Value()))
		require.Greater(t, second.Token(), first.Token())
		require.NoError(t, second.ReleaseWith(t.Context(), []byte("end")))

		h, err := a.Inspect(t.Context(), "key")
		require.NoError(t, err)
		require.False(t, h.Held())
		require.Equal(t, "end", string(h.Value))
	})
}

func TestReleaseWithLeavesItsValueAlsoWhileCloseWaitsForIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, _ := w.client("b")
		l, err := a.TryAcquire(t.Context(), "key", lease.KeepValue())
		require.NoError(t, err)
		closed := make(chan error, 1)
		go func() { closed <- a.Close(t.Context()) }()
		<-l.Context().Done()
		require.NoError(t, l.ReleaseWith(t.Context(), []byte("end")))
		require.NoError(t, <-closed)
		require.Equal(t, "end", string(inspect(t, b, "key").Value))
		require.False(t, inspect(t, b, "key").Held())
	})
}

func TestUpdateKeepsTheTokenAndFailsOnceTheLeaseHasEnded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		l := w.acquire(a, "key")
		token := l.Token()
		require.NoError(t, l.Update(t.Context(), []byte("v")))
		require.Equal(t, token, l.Token())
		h, err := a.Inspect(t.Context(), "key")
		require.NoError(t, err)
		require.Equal(t, token, h.Token)
		require.NoError(t, l.Release(t.Context()))
		require.ErrorIs(t, l.Update(t.Context(), nil), lease.ErrNotHeld)
		require.ErrorIs(t, l.ReleaseWith(t.Context(), nil), lease.ErrInvalid)
	})
}

func TestR13AfterALostAnswerOfUpdateTheNextWriteGoesOn(t *testing.T) {
	t.Parallel()
	for _, next := range []string{"Update", "Release"} {
		t.Run(next, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				a, link := w.client("a")
				l := w.acquire(a, "key")
				link.LoseAnswer("AtomicPut", "lease/")
				require.ErrorIs(t, l.Update(t.Context(), []byte("lost")), kv.ErrUncertain)
				if next == "Update" {
					require.NoError(t, l.Update(t.Context(), []byte("found")))
					require.Equal(t, "found", string(l.Value()))
				}
				require.NoError(t, l.Release(t.Context()))
				require.Empty(t, w.rows("lease/"))
			})
		})
	}
}

func TestUpdateOfARowThatIsNotOursAnyMoreEndsTheLease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		l := w.acquire(a, "key")
		require.NoError(t, w.store.Delete(t.Context(), "lease/key"))
		require.ErrorIs(t, l.Update(t.Context(), []byte("v")), lease.ErrLost)
		require.Equal(t, lease.ReasonBroken, reason(t, l.Err()))
		require.Empty(t, w.rows("lease/"))
	})
}

func TestUpdateOfALeaseThatHasEndedSendsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		l := w.acquire(a, "key")
		link.SetCut(true)
		requireLost(t, l)
		link.SetCut(false)
		link.Take()
		require.ErrorIs(t, l.Update(t.Context(), []byte("v")), lease.ErrLost)
		require.Empty(t, link.Take())
	})
}

func TestUpdateEndsWithTheLeaseWhateverTheStoreDoes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		l, err := a.TryAcquire(t.Context(), "key", lease.WithMaxHold(ttl))
		require.NoError(t, err)
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Op == "AtomicPut" && call.Key == "lease/key" {
				<-ctx.Done()
				return &kv.UncertainError{Key: call.Key, Err: ctx.Err()}
			}
			return next(ctx)
		})
		ctx, cancel := context.WithTimeout(t.Context(), 3*ttl)
		defer cancel()
		began := time.Now()
		err = l.Update(ctx, []byte("v"))
		require.Equal(t, ttl, time.Since(began))
		require.Equal(t, lease.ReasonMaxHold, reason(t, err))
		require.ErrorIs(t, err, kv.ErrUncertain)
		require.ErrorIs(t, l.Release(t.Context()), lease.ErrLost)
	})
}

func TestValueAndWhatItWasMadeOfAreTheCallers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		first := []byte("first")
		l, err := a.TryAcquire(t.Context(), "key", lease.WithValue(first))
		require.NoError(t, err)
		first[0] = '?'
		require.Equal(t, "first", string(l.Value()))
		l.Value()[0] = '?'
		require.Equal(t, "first", string(l.Value()))
		second := []byte("second")
		require.NoError(t, l.Update(t.Context(), second))
		second[0] = '?'
		require.Equal(t, "second", string(l.Value()))
		require.NoError(t, l.Release(t.Context()))
	})
}

func TestUpdatesOfOneLeaseWaitForEachOtherAndNoLongerThanTheirContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		l := w.acquire(a, "key")
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Key == "lease/key" {
				time.Sleep(time.Second)
			}
			return next(ctx)
		})
		began := time.Now()
		updated := make(chan error, 1)
		go func() { updated <- l.Update(t.Context(), []byte("first")) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		require.ErrorIs(t, l.Update(ctx, []byte("never")), context.DeadlineExceeded)
		require.Equal(t, 100*time.Millisecond, time.Since(began))
		require.NoError(t, l.Update(t.Context(), []byte("second")))
		require.Equal(t, 2*time.Second, time.Since(began))
		require.NoError(t, <-updated)
		require.Equal(t, "second", string(inspect(t, a, "key").Value))
		require.NoError(t, l.Release(t.Context()))
	})
}

func TestConditionNamesTheAcquisition(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c, err := lease.New(kv.Prefixed(w.store, "app/"))
		require.NoError(t, err)
		defer c.Close(context.Background())
		l := w.acquire(c, "key")
		pair, err := w.store.Get(t.Context(), "app/lease/key")
		require.NoError(t, err)
		condition := l.Condition()
		require.Equal(t, pair.Key, condition.Key)
		require.Equal(t, pair.Fields[condition.Field], condition.Value)
		require.NoError(t, l.Release(t.Context()))
	})
}

func TestWithMinRemainingHeartbeatsFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a", lease.WithHeartbeat(4*time.Second))
		require.NoError(t, w.acquire(a, "other").Release(t.Context()))
		time.Sleep(3 * time.Second)
		link.Take()
		l, err := a.TryAcquire(t.Context(), "key", lease.WithMinRemaining(4600*time.Millisecond))
		require.NoError(t, err)
		require.Equal(t, map[string]int{"AtomicPut": 1}, link.Take())
		require.GreaterOrEqual(t, l.Remaining(), 4600*time.Millisecond)
		require.NoError(t, l.Release(t.Context()))
		time.Sleep(2 * time.Second)
		_, err = a.TryAcquire(t.Context(), "key", lease.WithMinRemaining(4601*time.Millisecond))
		require.ErrorIs(t, err, lease.ErrInvalid)
	})
}

func TestR9GrantWithLessThanTheMinimumRemainingIsNotReturned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a", lease.WithHeartbeat(4*time.Second))
		require.NoError(t, w.acquire(a, "other").Release(t.Context()))
		var held atomic.Bool
		first := true
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			for held.Load() { // no heartbeat comes through while the answer is under way
				time.Sleep(100 * time.Millisecond)
			}
			err := next(ctx)
			if first && call.Key == "lease/key" {
				first = false
				held.Store(true)
				time.Sleep(5 * time.Second)
				held.Store(false)
			}
			return err
		})
		l, err := a.TryAcquire(patient(t), "key", lease.WithMinRemaining(4500*time.Millisecond))
		require.NoError(t, err)
		require.GreaterOrEqual(t, l.Remaining(), 4500*time.Millisecond)
	})
}

func TestR12LongDeadSessionIsKilledAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		b, _ := w.client("b", lease.WithMaxClockSkew(time.Second))
		plain, _ := w.client("plain")
		w.acquire(a, "key")
		link.SetCut(true) // dead
		// The last heartbeat was sent now: ttl + ttl/16 + 1 s from now on b may
		// kill, and not before.
		time.Sleep(ttl + ttl/16 + time.Second)
		_, err := b.TryAcquire(t.Context(), "key")
		require.ErrorIs(t, err, lease.ErrHeld)
		_, err = plain.TryAcquire(t.Context(), "key")
		require.ErrorIs(t, err, lease.ErrHeld)
		time.Sleep(ttl/3 + time.Millisecond)
		_, err = plain.TryAcquire(t.Context(), "key")
		require.ErrorIs(t, err, lease.ErrHeld)
		_, err = b.TryAcquire(t.Context(), "key")
		require.NoError(t, err)
	})
}

// The end of the lease interrupts the request, which the caller has not asked for.
func TestUpdateThatTheEndOfItsLeaseInterruptsSaysSo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		l := w.acquire(a, "key")
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Key != "lease/key" {
				return next(ctx)
			}
			<-ctx.Done()
			return ctx.Err() // it was not sent
		})
		go func() { _ = a.Close(context.Background()) }()
		err := l.Update(t.Context(), []byte("value"))
		require.Equal(t, lease.ReasonClosed, reason(t, err))
		require.NotErrorIs(t, err, context.Canceled)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.Error(t, l.Update(ctx, nil))
		link.SetIntercept(nil)
		_ = l.Release(t.Context())
	})
}

// A holder learns by Update that its row is gone. Others of its process need not
// wait until it has released.
func TestR15UpdateThatFindsItsRowGoneWakesTheLocalWaiter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		l := w.acquire(a, "key")
		next := waitFor(patient(t), a, "key")
		synctest.Wait()
		require.NoError(t, w.store.Delete(t.Context(), "lease/key"))
		require.ErrorIs(t, l.Update(t.Context(), []byte("x")), lease.ErrLost)
		time.Sleep(2 * time.Second)
		require.Len(t, next, 1)
		got := <-next
		require.NoError(t, got.err)
		require.True(t, got.Held())
		require.ErrorIs(t, l.Release(t.Context()), lease.ErrLost)
		require.True(t, got.Held())
	})
}
