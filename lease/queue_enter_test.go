package lease_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

func TestR20PlaceCostsAWriteAndTheReleaseOneMore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, la := w.client("a")
		b, lb := w.client("b")
		require.NoError(t, w.acquire(b, "other").Release(t.Context()))
		l := w.acquire(a, "key")
		var record, release writes
		la.SetIntercept(release.hook)
		lb.SetIntercept(record.hook)
		got := waitFor(t.Context(), b, "key")
		time.Sleep(30 * time.Second)
		require.Equal(t, []string{"b"}, w.queue())
		require.Equal(t, []string{"AtomicPut", "AtomicPut"}, record.Take(), "a create, and the entry")
		require.NoError(t, l.Release(t.Context()))
		require.Equal(t, []string{"AtomicDelete", "AtomicPut"}, release.Take())
		l, waited := take(t, got)
		require.Less(t, waited, 1100*time.Millisecond)
		require.Equal(t, []string{"AtomicPut"}, record.Take())
		require.NoError(t, l.Release(t.Context()))
		require.Nil(t, w.leaseRow())
	})
}

// Goroutines of one client have one entry. If the one that made it leaves, the
// others inherit it. When the last one leaves, the entry goes.
func TestR20ClientHasOnePlaceForAllItsGoroutines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		l := w.acquire(a, "key")
		b, link := w.client("b")
		first, leave := context.WithCancel(t.Context())
		second, leaveToo := context.WithCancel(t.Context())
		one, two := waitFor(first, b, "key"), waitFor(second, b, "key")
		time.Sleep(3 * time.Second)
		require.Equal(t, []string{"b"}, w.queue())
		id := w.leaseRow().Queue[0].ID
		leave()
		require.ErrorIs(t, (<-one).err, context.Canceled)
		time.Sleep(3 * time.Second)
		require.Equal(t, id, w.leaseRow().Queue[0].ID)
		var record writes
		link.SetIntercept(record.hook)
		leaveToo()
		require.ErrorIs(t, (<-two).err, context.Canceled)
		synctest.Wait()
		require.Empty(t, w.queue())
		require.Equal(t, []string{"AtomicPut"}, record.Take())
		require.Equal(t, l.Token(), w.leaseRow().Token, "the holder's token stays")
		require.NoError(t, l.Release(t.Context()))
		require.Nil(t, w.leaseRow())
	})
}

func TestR20QueueHasSixteenPlaces(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		l := w.acquire(a, "key")
		var names []string
		for i := range rows.MaxQueue {
			names = append(names, fmt.Sprint("c", i))
		}
		got, _, _ := w.queueUp(names...)
		late, _ := w.client("late", lease.WithTurnAfter(0))
		last := waitFor(t.Context(), late, "key")
		own := waitFor(t.Context(), a, "key")
		time.Sleep(5 * time.Second)
		require.Len(t, w.storedQueue(), rows.MaxQueue)
		require.Equal(t, names, w.queue())
		require.NoError(t, l.Release(t.Context()))
		require.Len(t, w.storedQueue(), rows.MaxQueue, "no place for those who wait in the releaser's process either")
		require.Equal(t, names, w.queue())
		for _, g := range got {
			l, _ := take(t, g)
			require.NoError(t, l.Release(t.Context()))
		}
		for range 2 { // in any order
			select {
			case g := <-last:
				require.NoError(t, g.Release(t.Context()))
			case g := <-own:
				require.NoError(t, g.Release(t.Context()))
			}
		}
	})
}

// A store that takes no write of the key is not asked at every poll.
func TestR20EntryThatFailsIsNotRepeatedAtEachPoll(t *testing.T) {
	t.Parallel()
	for name, failure := range map[string]error{
		"refused": kv.ErrThrottled, "unknown": &kv.UncertainError{Key: "lease/key", Err: errLost},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				a, _ := w.client("a")
				l := w.acquire(a, "key")
				b, link := w.client("b")
				require.NoError(t, w.acquire(b, "other").Release(t.Context()))
				var record writes
				var failing atomic.Bool
				link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
					record.add(call)
					if failing.Load() && call.Op == "AtomicPut" && call.Key == "lease/key" {
						return failure
					}
					return next(ctx)
				})
				got := waitFor(t.Context(), b, "key")
				synctest.Wait()
				record.Take()
				failing.Store(true)
				time.Sleep(time.Minute)
				n := len(record.Take())
				require.GreaterOrEqual(t, n, 8)
				require.LessOrEqual(t, n, 13)
				failing.Store(false)
				time.Sleep(6 * time.Second)
				require.Equal(t, []string{"b"}, w.queue())
				require.NoError(t, l.Release(t.Context()))
				take(t, got)
			})
		})
	}
}

// Many begin to wait at one moment. A conflict is not repeated before the next poll.
func TestR20EntriesThatCollideCostThreeWritesEach(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		w.acquire(a, "key")
		var record writes
		var all sync.WaitGroup
		const waiters = 12
		ctx, cancel := context.WithCancel(t.Context())
		for i := range waiters {
			c, link := w.client(fmt.Sprint(i))
			require.NoError(t, w.acquire(c, fmt.Sprint("other", i)).Release(t.Context()))
			link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
				record.add(call)
				defer time.Sleep(5 * time.Millisecond)
				return next(ctx)
			})
			all.Go(func() { _, _ = c.Acquire(ctx, "key") })
		}
		time.Sleep(20 * time.Second)
		require.Len(t, w.queue(), waiters)
		require.LessOrEqual(t, len(record.Take()), waiters*(1+4), "a create, and four for the place")
		cancel()
		all.Wait()
	})
}

// A client's old session has an entry. The client enters with its new one.
func TestR20EntryOfALostSessionIsNotItsOwn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		l := w.acquire(a, "key")
		got, clients, links := w.queueUp("b")
		before := clients[0].Session()
		speak := links[0].silent()
		time.Sleep(2 * ttl)
		speak()
		time.Sleep(20 * time.Second)
		require.NotEqual(t, before, clients[0].Session())
		require.Equal(t, []string{"b", "b"}, w.queue())
		require.NoError(t, l.Release(t.Context()))
		_, took := take(t, got[0])
		require.Less(t, took, grace+grace/16+1100*time.Millisecond)
	})
}

func TestTurnOptionsAreChecked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, d := range []time.Duration{-1, lease.MaxTTL + 1} {
		_, err := lease.New(w.store, lease.WithTurnAfter(d))
		require.ErrorIs(t, err, lease.ErrInvalid)
		require.ErrorContains(t, err, fmt.Sprintf("WithTurnAfter(%v): want 0s to 24h0m0s", d))
	}
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
