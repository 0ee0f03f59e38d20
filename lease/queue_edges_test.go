package lease_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strings"
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

func (w *world) storedQueue() []rows.Entry {
	pair, err := w.store.Get(context.Background(), "lease/key")
	require.NoError(w.t, err)
	var record struct {
		Queue []rows.Entry `json:"queue"`
	}
	require.NoError(w.t, json.Unmarshal(pair.Bytes(), &record))
	return record.Queue
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

func TestR20MinuteIsForThoseWhoCannotWait(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]time.Duration{
		"Acquire": 100*time.Second + 100*time.Second/16, "AcquireAny": time.Minute,
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			a, _ := w.client("a")
			l := w.acquire(a, "key")
			b, link := w.client("b", lease.WithTTL(5*time.Minute), lease.WithPoll(50*time.Millisecond, 50*time.Second))
			waitFor(t.Context(), b, "key")
			time.Sleep(2 * time.Second)
			require.Equal(t, []string{"b"}, w.queue())
			link.SetCut(true)
			require.NoError(t, l.Release(t.Context()))
			released := time.Now()
			c, _ := w.client("c", lease.WithTurnAfter(0))
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			var err error
			if name == "Acquire" {
				_, err = c.Acquire(ctx, "key")
			} else {
				_, err = c.AcquireAny(ctx, []string{"key"})
			}
			require.NoError(t, err)
			require.GreaterOrEqual(t, time.Since(released), want)
			require.Less(t, time.Since(released), want+1500*time.Millisecond)
		})
	}
}

func TestR20EntryDoesNotRenewTheMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		l := w.acquire(a, "key")
		_, _, links := w.queueUp("b")
		links[0].SetCut(true)
		require.NoError(t, l.Release(t.Context()))
		before := w.leaseRow().Until
		time.Sleep(100 * time.Millisecond)
		w.queueUp("c")
		require.Equal(t, []string{"b", "c"}, w.queue())
		require.Equal(t, before, w.leaseRow().Until)
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

func TestR20PlaceIsTakenInTimeWhateverThePoll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		w.acquire(a, "key")
		b, err := lease.New(w.store, lease.WithTTL(ttl), lease.WithOwner("b")) // the store tells it of changes
		require.NoError(t, err)
		t.Cleanup(func() { _ = b.Close(context.Background()) })
		waitFor(t.Context(), b, "key")
		time.Sleep(lease.DefaultTurnAfter - 10*time.Millisecond)
		require.Empty(t, w.queue())
		time.Sleep(100 * time.Millisecond)
		require.Equal(t, []string{"b"}, w.queue())
	})
}

func TestR20EntryHasTheClientsGraceAndTheBeginningOfItsName(t *testing.T) {
	t.Parallel()
	for longest, want := range map[time.Duration]time.Duration{3 * time.Second: 6 * time.Second, 8 * time.Second: ttl} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			a, _ := w.client("a")
			w.acquire(a, "key")
			b, _ := w.client("b"+strings.Repeat("é", 30), lease.WithPoll(50*time.Millisecond, longest))
			waitFor(t.Context(), b, "key")
			time.Sleep(2 * time.Second)
			require.Equal(t, "b"+strings.Repeat("é", 19), w.leaseRow().Queue[0].Owner, "whole characters of 40 bytes")
			require.Equal(t, want.Milliseconds(), w.leaseRow().Queue[0].Grace)
		})
	}
}

func TestI16GraceIsADayAtMost(t *testing.T) {
	t.Parallel()
	for ms, want := range map[int64]time.Duration{
		math.MaxInt64: lease.MaxTTL + lease.MaxTTL/16, math.MinInt64: 0, 1600: 1700 * time.Millisecond,
	} {
		e := rows.Entry{ID: "e", Session: "s", Grace: ms}
		require.Equal(t, want, e.PassAfter())
	}
}

func TestI16NobodyIsPassedOverBeforeTheSixteenthIsOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		l := w.acquire(a, "key")
		_, _, links := w.queueUp("b")
		links[0].SetCut(true)
		require.NoError(t, l.Release(t.Context()))
		time.Sleep(time.Second) // nobody looks
		c, _ := w.client("c")
		_, err := c.TryAcquire(t.Context(), "key")
		require.ErrorIs(t, err, lease.ErrHeld)
		time.Sleep(grace + grace/16 - time.Millisecond)
		_, err = c.TryAcquire(t.Context(), "key")
		require.ErrorIs(t, err, lease.ErrHeld)
		time.Sleep(time.Millisecond)
		w.acquire(c, "key")
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

func TestR20WhoBreaksALeaseAndWaitsKeepsItsOnePlace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		w.acquire(a, "key")
		got, clients, links := w.queueUp("x", "b")
		links[0].SetCut(true)
		h, err := clients[1].Holder(t.Context(), "key")
		require.NoError(t, err)
		require.NoError(t, clients[1].Break(t.Context(), h, lease.BreakForce()))
		require.Equal(t, []string{"x", "b"}, w.queue())
		take(t, got[1])
		require.Empty(t, w.queue())
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

func TestR20SweepAsksAfterAllWhoWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, la := w.client("a")
		w.acquire(a, "key")
		_, _, links := w.queueUp("b", "c")
		kept, err := a.Acquire(t.Context(), "kept", lease.KeepValue())
		require.NoError(t, err)
		d, ld := w.client("d", lease.WithTurnAfter(0))
		waitFor(t.Context(), d, "kept")
		time.Sleep(100 * time.Millisecond)
		ld.SetCut(true)
		require.NoError(t, kept.Release(t.Context()))
		la.SetCut(true)
		links[0].SetCut(true)
		links[1].SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Key == "lease/key" {
				<-ctx.Done() // it hangs, and lives
				return ctx.Err()
			}
			return next(ctx)
		})
		operator, _ := w.client("operator")
		swept, err := operator.Sweep(t.Context(), "")
		require.NoError(t, err)
		require.Equal(t, lease.Swept{Sessions: 3}, swept)
		require.Equal(t, []string{"b", "c"}, w.queue())
	})
}

func TestR20LongerQueueIsReadToItsSixteenthPlace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, _ := w.client("a")
	record := rows.Lease{Session: "s", Acq: "x", Owner: "o"}
	for i := range rows.MaxQueue + 4 {
		record.Queue = append(record.Queue, rows.NewEntry(fmt.Sprint(i), "", time.Second))
	}
	_, err := w.store.AtomicPut(t.Context(), "lease/key", record.Options(nil, kv.WithAttemptTimeout(time.Second))...)
	require.NoError(t, err)
	h, err := a.Holder(t.Context(), "key")
	require.NoError(t, err)
	require.Len(t, h.Waiters, rows.MaxQueue)
}

func TestR20ReservedRowIsSweptByTheStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		store := &hints{Store: w.store, swept: map[string]time.Duration{}}
		a, err := lease.New(store, lease.WithTTL(ttl))
		require.NoError(t, err)
		defer func() { _ = a.Close(context.Background()) }()
		l := w.acquire(a, "key")
		_, _, links := w.queueUp("b")
		links[0].SetCut(true)
		require.NoError(t, l.Release(t.Context()))
		require.Equal(t, 24*time.Hour, store.Of("lease/key"))
	})
}
