package lease_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

func TestR20WhoLeavesAReservedKeyPassesItOn(t *testing.T) {
	t.Parallel()
	for name, keep := range map[string][]lease.AcquireOption{"": nil, "kept": {lease.KeepValue()}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				a, _ := w.client("a")
				l, err := a.Acquire(t.Context(), "key", keep...)
				require.NoError(t, err)
				b, link := w.client("b", lease.WithTurnAfter(0))
				ctx, leave := context.WithCancel(t.Context())
				first := waitFor(ctx, b, "key")
				time.Sleep(50 * time.Millisecond)
				got, _, _ := w.queueUp("c")
				require.Equal(t, []string{"b", "c"}, w.queue())
				// b does not see that the key is reserved for it, until it leaves.
				link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
					if call.Op == "Get" && call.Key == "lease/key" {
						<-ctx.Done()
						return ctx.Err()
					}
					return next(ctx)
				})
				time.Sleep(time.Second)
				require.NoError(t, l.Release(t.Context()))
				released := time.Now()
				time.Sleep(100 * time.Millisecond)
				leave()
				require.Error(t, (<-first).err)
				l, _ = take(t, got[0])
				require.Less(t, time.Since(released), 1200*time.Millisecond, "long before b would be passed over")
				require.NoError(t, l.Release(t.Context()))
				if keep == nil {
					require.Nil(t, w.leaseRow())
				} else {
					require.Empty(t, w.leaseRow().Session)
				}
			})
		})
	}
}

func TestR20WithoutTurnsLeavesAReservedKeyAndTakesNoPlace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		l := w.acquire(a, "key")
		c, _ := w.client("c", lease.WithoutTurns())
		last := waitFor(t.Context(), c, "key")
		got, _, _ := w.queueUp("b", "d")
		time.Sleep(10 * time.Second)
		require.Equal(t, []string{"b", "d"}, w.queue())
		require.NoError(t, l.Release(t.Context()))
		for _, g := range got {
			l, _ = take(t, g)
			time.Sleep(10 * time.Second)
			require.NoError(t, l.Release(t.Context()))
		}
		l, _ = take(t, last)
		require.NoError(t, l.Release(t.Context()))
	})
}

func TestR20CloseLeavesTheQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		w.acquire(a, "key")
		got, clients, links := w.queueUp("b", "c")
		// The write of the key takes longer than the end of the session.
		links[0].SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Op == "AtomicPut" && call.Key == "lease/key" {
				if err := clock.Sleep(ctx, clock.System, 200*time.Millisecond); err != nil {
					return err
				}
			}
			return next(ctx)
		})
		require.NoError(t, clients[0].Close(t.Context()))
		require.ErrorIs(t, (<-got[0]).err, lease.ErrClosed)
		require.Equal(t, []string{"c"}, w.queue())
	})
}

// A dozen that began to wait at one moment give up at one moment. Nobody has to wait
// for the graces of those who have left.
func TestR20ManyWhoLeaveTogetherLeaveNoEntries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		w.acquire(a, "key")
		ctx, leave := context.WithCancel(t.Context())
		const waiters = 12
		var writes atomic.Int64
		var got []<-chan grant
		for i := range waiters {
			c, link := w.client(fmt.Sprint(i))
			link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
				if call.Op != "Get" && call.Key == "lease/key" {
					writes.Add(1)
				}
				defer time.Sleep(5 * time.Millisecond)
				return next(ctx)
			})
			got = append(got, waitFor(ctx, c, "key"))
		}
		time.Sleep(20 * time.Second)
		require.Len(t, w.queue(), waiters)
		writes.Store(0)
		leave()
		for _, g := range got {
			require.Error(t, (<-g).err)
		}
		time.Sleep(time.Second)
		require.Empty(t, w.queue())
		require.LessOrEqual(t, writes.Load(), int64(waiters*6))
	})
}

func TestR20WhoLeavesAReservedKeyLastLeavesItsValue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		l, err := a.Acquire(t.Context(), "key", lease.KeepValue(), lease.WithValue([]byte("v")))
		require.NoError(t, err)
		b, link := w.client("b", lease.WithTurnAfter(0))
		ctx, leave := context.WithCancel(t.Context())
		got := waitFor(ctx, b, "key")
		time.Sleep(50 * time.Millisecond)
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Op == "Get" && call.Key == "lease/key" {
				<-ctx.Done()
				return ctx.Err()
			}
			return next(ctx)
		})
		time.Sleep(time.Second)
		require.NoError(t, l.Release(t.Context()))
		require.Equal(t, []string{"b"}, w.queue())
		leave()
		require.Error(t, (<-got).err)
		synctest.Wait()
		require.Empty(t, w.queue())
		require.NotNil(t, w.leaseRow())
		require.Equal(t, "v", string(w.leaseRow().Value))
	})
}

func TestR20LeavingKeepsTheTokenOfWhoTookItsTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		l := w.acquire(a, "key")
		got, _, _ := w.queueUp("b")
		c, _ := w.client("c", lease.WithTurnAfter(0))
		ctx, leave := context.WithCancel(t.Context())
		gave := waitFor(ctx, c, "key")
		time.Sleep(60 * time.Millisecond)
		require.NoError(t, l.Release(t.Context()))
		l, _ = take(t, got[0])
		require.Equal(t, []string{"c"}, w.queue())
		time.Sleep(2 * time.Second) // c sees that
		leave()
		require.Error(t, (<-gave).err)
		synctest.Wait()
		h, err := a.Holder(t.Context(), "key")
		require.NoError(t, err)
		require.Empty(t, h.Waiters)
		require.Equal(t, l.Token(), h.Token)
		require.Greater(t, h.Version, h.Token)
	})
}

func TestR20WhoWasLinedUpByAReleaseLeavesTheQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		l := w.acquire(a, "key")
		ctx, leave := context.WithCancel(t.Context())
		own := waitFor(ctx, a, "key")
		synctest.Wait()
		_, _, links := w.queueUp("b")
		links[0].SetCut(true)
		var writes atomic.Int64
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Op == "AtomicPut" && call.Key == "lease/key" && writes.Add(1) == 3 {
				<-ctx.Done() // a handover, the reservation, and the first look of who waits
				return ctx.Err()
			}
			return next(ctx)
		})
		require.NoError(t, l.Release(t.Context()))
		require.Equal(t, []string{"b", "a"}, w.queue())
		leave()
		require.ErrorIs(t, (<-own).err, context.Canceled)
		synctest.Wait()
		require.Equal(t, []string{"b"}, w.queue())
	})
}

func TestR20WhoComesBackHasANewGrace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		l := w.acquire(a, "key")
		got, _, links := w.queueUp("b", "c")
		speak := links[0].silent()
		time.Sleep(2 * time.Second)
		require.NoError(t, l.Release(t.Context()))
		n, _ := w.client("n")
		_, err := n.TryAcquire(t.Context(), "key")
		require.ErrorIs(t, err, lease.ErrHeld)
		l, _ = take(t, got[1])
		speak()
		time.Sleep(12 * time.Second)
		require.Equal(t, []string{"b"}, w.queue())
		links[0].SetCut(true)
		require.NoError(t, l.Release(t.Context()))
		_, err = n.TryAcquire(t.Context(), "key")
		require.ErrorIs(t, err, lease.ErrHeld)
		time.Sleep(grace + grace/16)
		w.acquire(n, "key")
	})
}

func TestR20NotesAndValuesLeaveTheReservation(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		l, err := a.Acquire(t.Context(), "key", lease.KeepValue())
		require.NoError(t, err)
		got, _, links := w.queueUp("b")
		speak := links[0].silent()
		require.NoError(t, l.Release(t.Context()))
		before := w.leaseRow()
		h, err := a.Holder(t.Context(), "key")
		require.NoError(t, err)
		require.NoError(t, a.Annotate(t.Context(), h, []byte("note")))
		h, err = a.Holder(t.Context(), "key")
		require.NoError(t, err)
		require.NoError(t, a.Replace(t.Context(), h, []byte("value")))
		require.Equal(t, before.Queue, w.leaseRow().Queue)
		require.Equal(t, before.Until, w.leaseRow().Until)
		speak()
		l, _ = take(t, got[0])
		require.Equal(t, "value", string(l.Value()))
	})
}
