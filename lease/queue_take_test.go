package lease_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// The holder dies. Whoever finds that out, the first of the queue gets the key.
func TestR20DeadHoldersKeyGoesToTheFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, la := w.client("a")
		w.acquire(a, "key")
		got, clients, links := w.queueUp("b", "c", "d")
		la.SetCut(true)
		links[0].slow(700 * time.Millisecond) // it finds out last
		l, took := take(t, got[0])
		require.Less(t, took, patience+ttl/3+2*time.Second)
		require.True(t, l.TakenOver())
		require.Equal(t, clients[0].Session(), w.leaseRow().Session)
		require.Equal(t, []string{"c", "d"}, w.queue())
		require.NoError(t, l.Release(t.Context()))
		l, _ = take(t, got[1])
		require.False(t, l.TakenOver(), "b has released it")
		require.NoError(t, l.Release(t.Context()))
	})
}

// The holder and the first of the queue die together.
func TestR20TakeoverIsToldToWhoFollowsAnAbsentOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, la := w.client("a")
		w.acquire(a, "key")
		got, _, links := w.queueUp("b", "c")
		la.SetCut(true)
		links[0].SetCut(true)
		l, _ := take(t, got[1])
		require.True(t, l.TakenOver())
	})
}

func TestR20LockDelayIsWaitedOutBeforeTheKeyIsReserved(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, la := w.client("a")
		_, err := a.Acquire(t.Context(), "key", lease.WithLockDelay(time.Minute))
		require.NoError(t, err)
		got, _, _ := w.queueUp("b", "c")
		la.SetCut(true)
		_, took := take(t, got[0])
		require.GreaterOrEqual(t, took, time.Minute+ttl-ttl/3)
		require.Less(t, took, time.Minute+patience+ttl/3+2*time.Second)
	})
}

// A write of another call of this client was applied late. Others are in the queue
// by then.
func TestR20OrphanIsGivenBackWhereOthersWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, la := w.client("a")
		require.NoError(t, w.acquire(a, "other").Release(t.Context()))
		la.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			switch {
			case call.Op == "AtomicPut" && call.Key == "lease/key":
				_ = next(ctx)
				return &kv.UncertainError{Key: call.Key, Err: errLost}
			case call.Op == "Get":
				return kv.ErrUnavailable // it is not given back by itself
			}
			return next(ctx)
		})
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := a.TryAcquire(short, "key")
		require.ErrorIs(t, err, kv.ErrUncertain)
		require.Equal(t, a.Session(), w.leaseRow().Session)
		got, _, _ := w.queueUp("b")
		la.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Op == "Get" {
				return kv.ErrUnavailable
			}
			return next(ctx)
		})
		_, err = a.TryAcquire(t.Context(), "key")
		var held *lease.HeldError
		require.ErrorAs(t, err, &held)
		require.Equal(t, "b", held.Holder.Reserved().Owner)
		take(t, got[0])
	})
}

// Goroutines of one process hand over to each other only while nobody else waits.
func TestR20HandoverEndsWhereOthersWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		l := w.acquire(a, "key")
		own := waitFor(t.Context(), a, "key")
		synctest.Wait()
		got, _, _ := w.queueUp("b")
		var record writes
		link.SetIntercept(record.hook)
		require.NoError(t, l.Release(t.Context()))
		synctest.Wait()
		require.Equal(t, []string{"AtomicPut", "AtomicPut"}, record.Take()[:2], "a handover that conflicts, and the reservation")
		require.Equal(t, []string{"b", "a"}, w.queue(), "who waits in this process has a place at once")
		l, _ = take(t, got[0])
		require.NoError(t, l.Release(t.Context()))
		l, _ = take(t, own)
		// It knows of b's next entry, and does not try to hand over.
		next := waitFor(t.Context(), a, "key")
		synctest.Wait()
		got, _, _ = w.queueUp("c")
		require.NoError(t, l.Update(t.Context(), nil))
		record.Take()
		require.NoError(t, l.Release(t.Context()))
		synctest.Wait()
		require.Equal(t, "AtomicPut", record.Take()[0])
		require.Equal(t, []string{"c", "a"}, w.queue())
		l, _ = take(t, got[0])
		require.NoError(t, l.Release(t.Context()))
		take(t, next)
	})
}

// Nobody but the row knows that the key was taken from the dead. The last one in the
// queue does not delete it.
func TestR20TakeoverIsToldThoughTheLastOneLeaves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, la := w.client("a")
		w.acquire(a, "key")
		b, lb := w.client("b", lease.WithTurnAfter(0))
		ctx, leave := context.WithCancel(t.Context())
		waits := waitFor(ctx, b, "key")
		time.Sleep(60 * time.Millisecond)
		require.Equal(t, []string{"b"}, w.queue())
		lb.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Op == "Get" && call.Key == "lease/key" {
				<-ctx.Done() // it does not see that its turn has come, until it leaves
				return ctx.Err()
			}
			return next(ctx)
		})
		la.SetCut(true)
		c, _ := w.client("c")
		for w.leaseRow().Session != "" {
			_, err := c.TryAcquire(t.Context(), "key")
			require.ErrorIs(t, err, lease.ErrHeld)
			time.Sleep(100 * time.Millisecond)
		}
		leave()
		require.Error(t, (<-waits).err)
		l, took := take(t, waitFor(t.Context(), c, "key"))
		require.Less(t, took, grace+grace/16+1100*time.Millisecond)
		require.True(t, l.TakenOver())
		require.NoError(t, l.Release(t.Context()))
		require.Nil(t, w.leaseRow())
	})
}

// Who leaves a key that was taken from the dead leaves it to the next.
func TestR20TakeoverIsToldToTheNextWhereOneLeaves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, la := w.client("a")
		w.acquire(a, "key")
		b, lb := w.client("b", lease.WithTurnAfter(0))
		ctx, leave := context.WithCancel(t.Context())
		waits := waitFor(ctx, b, "key")
		time.Sleep(60 * time.Millisecond)
		got, _, _ := w.queueUp("d")
		lb.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Op == "Get" && call.Key == "lease/key" {
				<-ctx.Done() // it does not see that its turn has come, until it leaves
				return ctx.Err()
			}
			return next(ctx)
		})
		la.SetCut(true)
		for w.leaseRow().Session != "" {
			time.Sleep(100 * time.Millisecond)
		}
		leave()
		require.Error(t, (<-waits).err)
		l, took := take(t, got[0])
		require.Less(t, took, 1100*time.Millisecond)
		require.True(t, l.TakenOver())
		require.NoError(t, l.Release(t.Context()))
	})
}

// A row that this client has written unseen had been taken from the dead.
func TestR20TakeoverIsToldWhereAnOrphanIsGivenBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		require.NoError(t, w.acquire(a, "other").Release(t.Context()))
		orphan := rows.Lease{
			Session: a.Session(), Acq: "x", Taken: true, Queue: rows.Queue{rows.NewEntry("nobody", "", time.Second)},
		}
		_, err := w.store.AtomicPut(t.Context(), "lease/key", orphan.Options(nil, kv.WithAttemptTimeout(time.Second))...)
		require.NoError(t, err)
		l, _ := take(t, waitFor(t.Context(), a, "key"))
		require.True(t, l.TakenOver())
	})
}

func TestR20TakeoverIsToldToWhoFollowsTheAbsent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, la := w.client("a")
		w.acquire(a, "key")
		got, _, links := w.queueUp("b", "c", "d")
		la.SetCut(true)
		links[0].SetCut(true)
		links[1].SetCut(true)
		l, _ := take(t, got[2])
		require.True(t, l.TakenOver())
	})
}

func TestR20WithoutTurnsLinesNobodyUpAtARelease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a", lease.WithoutTurns())
		l := w.acquire(a, "key")
		own := waitFor(t.Context(), a, "key")
		synctest.Wait()
		got, _, links := w.queueUp("b")
		links[0].slow(100 * time.Millisecond)
		require.NoError(t, l.Release(t.Context()))
		require.Equal(t, []string{"b"}, w.queue())
		l, _ = take(t, got[0])
		require.NoError(t, l.Release(t.Context()))
		l, _ = take(t, own)
		require.NoError(t, l.Release(t.Context()))
	})
}

func TestR20WhoTakesTheKeyInTheLastMomentHasIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		l := w.acquire(a, "key")
		got, clients, links := w.queueUp("b", "d", "c")
		speak := links[0].silent()
		links[1].SetCut(true)
		var late atomic.Bool
		links[2].SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Op == "AtomicPut" && call.Key == "lease/key" && !late.Swap(true) {
				speak()
				for range 100 { // b's pauses have grown meanwhile
					if w.leaseRow().Session != "" {
						break
					}
					time.Sleep(100 * time.Millisecond)
				}
				return next(context.WithoutCancel(ctx))
			}
			return next(ctx)
		})
		time.Sleep(2 * time.Second)
		require.NoError(t, l.Release(t.Context()))
		l, _ = take(t, got[0])
		require.True(t, late.Load(), "c passes b over")
		time.Sleep(2 * time.Second)
		require.True(t, l.Held())
		require.Equal(t, clients[0].Session(), w.leaseRow().Session)
		require.Equal(t, []string{"d", "c"}, w.queue())
	})
}

func TestR20OrphanIsTakenByTheCallThatWroteIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, la := w.client("a")
		require.NoError(t, w.acquire(a, "other").Release(t.Context()))
		var writes atomic.Int64
		la.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			switch {
			case call.Op == "AtomicPut" && call.Key == "lease/key" && writes.Add(1) == 1:
				require.NoError(t, next(ctx))
				w.queueUp("b")
				current, err := w.store.Get(ctx, "lease/key")
				require.NoError(t, err)
				return &kv.UncertainError{Key: call.Key, Current: current, Err: errLost}
			case call.Op == "Get" && call.Key == "lease/key":
				_ = clock.Sleep(ctx, clock.System, time.Second) // it is not given back meanwhile
			}
			return next(ctx)
		})
		l, err := a.TryAcquire(t.Context(), "key")
		require.NoError(t, err)
		time.Sleep(5 * time.Second)
		require.True(t, l.Held())
		require.Equal(t, a.Session(), w.leaseRow().Session)
		require.Equal(t, []string{"b"}, w.queue())
	})
}
