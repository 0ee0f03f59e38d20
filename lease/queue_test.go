package lease_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
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

// grace is that of the entries of these tests' clients: twice their longest poll.
const grace = 2 * time.Second

// leaseRow is what the row of "key" says, nil if there is none.
func (w *world) leaseRow() *rows.Lease {
	pair, err := w.store.Get(context.Background(), "lease/key")
	if errors.Is(err, kv.ErrKeyNotFound) {
		return nil
	}
	require.NoError(w.t, err)
	record, err := rows.DecodeLease(pair)
	require.NoError(w.t, err)
	return record
}

// queue are the names of those who wait, in order.
func (w *world) queue() []string {
	names := []string{}
	if record := w.leaseRow(); record != nil {
		for _, e := range record.Queue {
			names = append(names, e.Owner)
		}
	}
	return names
}

// queueUp lets clients with these names wait for the key, one after the other, until
// each has a place in the queue.
func (w *world) queueUp(names ...string) (got []<-chan grant, clients []*lease.Client, links []*link) {
	for i, name := range names {
		c, l := w.client(name, lease.WithTurnAfter(0))
		clients, links = append(clients, c), append(links, l)
		got = append(got, waitFor(w.t.Context(), c, "key"))
		time.Sleep(60 * time.Millisecond) // between two polls
		require.Equal(w.t, names[:i+1], w.queue()[len(w.queue())-i-1:])
	}
	return got, clients, links
}

// silent lets no call get through, until it is told to.
func (l *link) silent() (speak func()) {
	var over atomic.Bool
	l.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
		if over.Load() {
			return next(ctx)
		}
		_ = clock.Sleep(ctx, clock.System, time.Second)
		if call.Op == "Get" {
			return kv.ErrUnavailable
		}
		return &kv.UncertainError{Key: call.Key, Err: errLost}
	})
	return func() { over.Store(true) }
}

// take receives a grant, and how long that took.
func take(t *testing.T, got <-chan grant) (*lease.Lease, time.Duration) {
	t.Helper()
	began := time.Now()
	select {
	case g := <-got:
		require.NoError(t, g.err)
		return g.Lease, g.at.Sub(began)
	case <-time.After(time.Hour):
		require.Fail(t, "not granted")
		return nil, 0
	}
}

// hog acquires the key, holds it and releases it again and again, until the end of
// the test.
func (w *world) hog(c *lease.Client, hold time.Duration) (turns *atomic.Int64) {
	turns = &atomic.Int64{}
	ctx, stop := context.WithCancel(w.t.Context())
	done := make(chan struct{})
	w.t.Cleanup(func() { stop(); <-done })
	go func() {
		defer close(done)
		for {
			l, err := c.Acquire(ctx, "key")
			if err != nil {
				return
			}
			turns.Add(1)
			time.Sleep(hold)
			_ = l.Release(context.WithoutCancel(ctx))
		}
	}()
	return turns
}

func TestI15KeyIsGrantedInTheOrderOfTheQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("hog")
		turns := w.hog(a, 30*time.Second)
		time.Sleep(time.Second)
		names := []string{"b", "c", "d", "e", "f"}
		got, _, _ := w.queueUp(names...)
		before := turns.Load()
		for i, g := range got {
			l, waited := take(t, g)
			require.Less(t, waited, 32*time.Second)
			require.Equal(t, names[i+1:], slices.DeleteFunc(w.queue(), func(name string) bool { return name == "hog" }))
			time.Sleep(500 * time.Millisecond)
			require.NoError(t, l.Release(t.Context()))
		}
		require.Equal(t, before, turns.Load(), "the hog waits for its turn too")
		time.Sleep(3 * time.Second)
		require.Equal(t, before+1, turns.Load())
	})
}

// A client that acquires and releases in a loop. Its rests (R15) alone would leave
// the key to others once in six seconds.
func TestR20HogDoesNotKeepAWaiterFromItsTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const hold = 2 * time.Second
		w := newWorld(t)
		a, _ := w.client("hog")
		w.hog(a, hold)
		time.Sleep(10 * time.Second)
		b, _ := w.client("b")
		for i := range 20 {
			time.Sleep(time.Duration(i) * 317 * time.Millisecond) // at any time of a hold
			began := time.Now()
			l, err := b.Acquire(t.Context(), "key")
			require.NoError(t, err)
			require.Less(t, time.Since(began), lease.DefaultTurnAfter+hold+500*time.Millisecond)
			require.NoError(t, l.Release(t.Context()))
		}
	})
}

// Six clients want one key all the time.
func TestR20TurnsAreShared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var turns []*atomic.Int64
		for i := range 6 {
			c, _ := w.client(fmt.Sprint(i), lease.WithTurnAfter(0))
			turns = append(turns, w.hog(c, 200*time.Millisecond))
		}
		time.Sleep(5 * time.Minute)
		least, greatest := turns[0].Load(), int64(0)
		for _, n := range turns {
			least, greatest = min(least, n.Load()), max(greatest, n.Load())
		}
		require.Greater(t, least, int64(10))
		require.LessOrEqual(t, float64(greatest), 1.5*float64(least), "%d to %d turns", least, greatest)
	})
}

func TestR20WaitsOfLessThanASecondCostWhatTheyDid(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, link := w.client("b")
		require.NoError(t, w.acquire(b, "other").Release(t.Context()))
		l := w.acquire(a, "key")
		var record writes
		link.SetIntercept(record.hook)
		got := waitFor(t.Context(), b, "key")
		time.Sleep(900 * time.Millisecond)
		require.NoError(t, l.Release(t.Context()))
		take(t, got)
		require.Equal(t, []string{"AtomicPut", "AtomicPut"}, record.Take(), "a create that finds it held, and one when it is free")
		require.Empty(t, w.queue())
	})
}

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

// The holder's lease stays what it is while others queue up.
func TestR20EntriesLeaveTheLeaseAsItIs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		l, err := a.Acquire(t.Context(), "key", lease.KeepValue(), lease.WithValue([]byte("one")))
		require.NoError(t, err)
		got, _, _ := w.queueUp("b", "c")
		h, err := a.Holder(t.Context(), "key")
		require.NoError(t, err)
		require.Equal(t, l.Token(), h.Token)
		require.Equal(t, []string{"b", "c"}, []string{h.Waiters[0].Owner, h.Waiters[1].Owner})
		require.NoError(t, a.Annotate(t.Context(), h, []byte("note")))
		require.NoError(t, l.Update(t.Context(), []byte("two")))
		require.NoError(t, l.Update(t.Context(), []byte("three")))
		require.Equal(t, []string{"b", "c"}, w.queue())
		require.True(t, l.Held())
		pair, err := w.store.Get(t.Context(), "lease/key")
		require.NoError(t, err)
		require.Equal(t, l.Condition().Value, pair.Fields[l.Condition().Field], "the condition of the holder's writes")
		require.NoError(t, l.Release(t.Context()))
		for _, g := range got {
			l, _ = take(t, g)
			require.Equal(t, "three", string(l.Value()))
			require.Equal(t, "note", string(w.leaseRow().Note))
			require.NoError(t, l.Release(t.Context()))
		}
		require.Equal(t, "three", string(w.leaseRow().Value))
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

// The first of the queue does not answer.
func TestI16AbsentIsPassedOverAfterItsGrace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		l := w.acquire(a, "key")
		got, _, links := w.queueUp("b", "c", "d")
		speak := links[0].silent()
		time.Sleep(2 * time.Second)
		require.NoError(t, l.Release(t.Context()))
		released := time.Now()
		l, _ = take(t, got[1])
		took := time.Since(released)
		require.GreaterOrEqual(t, took, grace+grace/16)
		require.LessOrEqual(t, took, grace+grace/16+time.Second+50*time.Millisecond, "and a poll")
		require.Equal(t, []string{"d"}, w.queue())
		// b comes back at the end, under a new id.
		speak()
		time.Sleep(12 * time.Second)
		require.Equal(t, []string{"d", "b"}, w.queue())
		require.NoError(t, l.Release(t.Context()))
		for _, g := range []<-chan grant{got[2], got[0]} {
			l, took := take(t, g)
			require.Less(t, took, 1200*time.Millisecond)
			require.NoError(t, l.Release(t.Context()))
		}
	})
}

// All who wait pass an absent one over, and then another. One of them is the next.
func TestR20EachOfTwoAbsentIsPassedOverAfterItsOwnGrace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		l := w.acquire(a, "key")
		got, _, links := w.queueUp("b", "c", "d", "e")
		links[0].SetCut(true)
		links[1].SetCut(true)
		require.NoError(t, l.Release(t.Context()))
		released := time.Now()
		_, _ = take(t, got[2])
		require.GreaterOrEqual(t, time.Since(released), 2*(grace+grace/16))
		require.LessOrEqual(t, time.Since(released), 2*(grace+grace/16+time.Second+50*time.Millisecond))
	})
}

// Two clients that come and go change the row all the time. That does not put off
// when a third passes the absent one over.
func TestR20GraceCountsFromTheFirstLookNotFromTheLastChange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		l := w.acquire(a, "key")
		got, _, links := w.queueUp("b", "c")
		links[0].SetCut(true)
		ctx, stop := context.WithCancel(t.Context())
		var all sync.WaitGroup
		defer all.Wait()
		defer stop()
		for _, name := range []string{"d", "e"} {
			c, _ := w.client(name, lease.WithTurnAfter(0))
			all.Go(func() {
				for ctx.Err() == nil {
					short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
					if l, err := c.Acquire(short, "key"); err == nil {
						_ = l.Release(ctx)
					}
					cancel()
				}
			})
			time.Sleep(250 * time.Millisecond)
		}
		require.NoError(t, l.Release(t.Context()))
		released := time.Now()
		l, _ = take(t, got[1])
		require.LessOrEqual(t, time.Since(released), grace+grace/16+time.Second+50*time.Millisecond)
		require.NoError(t, l.Release(t.Context()))
	})
}

// A client's memory of one reservation says nothing about the next.
func TestR20GraceOfOneIsNotThatOfTheNext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		l := w.acquire(a, "key")
		got, _, links := w.queueUp("b", "c", "d")
		for _, link := range links[:2] {
			link.slow(400 * time.Millisecond) // they answer late, and in time
		}
		require.NoError(t, l.Release(t.Context()))
		for _, g := range got {
			l, _ := take(t, g)
			require.NoError(t, l.Release(t.Context()))
		}
	})
}

func TestR20TryFindsAReservedKeyHeldForAMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		l := w.acquire(a, "key")
		_, _, links := w.queueUp("b", "c")
		for _, link := range links {
			link.SetCut(true)
		}
		time.Sleep(time.Second)
		require.NoError(t, l.Release(t.Context()))
		released := time.Now()
		for time.Since(released) < 59*time.Second {
			c, link := w.client("once") // a process that tries once and exits
			var record writes
			require.NoError(t, w.acquire(c, "other").Release(t.Context()))
			link.SetIntercept(record.hook)
			_, err := c.TryAcquire(t.Context(), "key")
			var held *lease.HeldError
			require.ErrorAs(t, err, &held)
			require.Equal(t, "b", held.Holder.Reserved().Owner)
			require.False(t, held.Holder.Held())
			require.EqualError(t, err, `lease: "key" is reserved for b, who waits`)
			require.Equal(t, []string{"AtomicPut"}, record.Take())
			free, err := c.Free(t.Context(), &held.Holder)
			require.NoError(t, err)
			require.False(t, free)
			_, err = c.TryAcquireAny(t.Context(), []string{"key"})
			require.ErrorAs(t, err, &held)
			require.Equal(t, "b", held.Holder.Reserved().Owner)
			require.NoError(t, c.Close(t.Context()))
			time.Sleep(10 * time.Second)
		}
		time.Sleep(2 * time.Second)
		c, _ := w.client("late")
		l, err := c.TryAcquire(t.Context(), "key")
		require.NoError(t, err)
		require.Empty(t, w.queue(), "the next try does not wait for another minute")
		require.NoError(t, l.Release(t.Context()))
		require.Nil(t, w.leaseRow())
	})
}

// Who can wait waits for the grace, also where the key was reserved long ago.
func TestR20AcquireWaitsForTheGraceWhenTheMinuteIsOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		l := w.acquire(a, "key")
		_, _, links := w.queueUp("b")
		links[0].SetCut(true)
		require.NoError(t, l.Release(t.Context()))
		time.Sleep(2 * time.Minute)
		c, _ := w.client("c")
		_, took := take(t, waitFor(t.Context(), c, "key"))
		require.GreaterOrEqual(t, took, grace+grace/16)
		require.Less(t, took, grace+grace/16+1100*time.Millisecond)
	})
}

// A clock that is ahead or behind does not refuse a try for longer than a minute.
func TestR20TryDoesNotWaitForAClockThatIsWrong(t *testing.T) {
	t.Parallel()
	for _, offset := range []time.Duration{-time.Hour, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			a, _ := w.client("a", lease.WithClock(clock.NewSkewed(clock.System, 1, offset)))
			l := w.acquire(a, "key")
			_, _, links := w.queueUp("b")
			links[0].SetCut(true)
			require.NoError(t, l.Release(t.Context()))
			c, _ := w.client("c")
			w.acquire(c, "key")
		})
	}
}

// One who tries again and again remembers what it has found, as it does of
// sessions (R11).
func TestR20TriesNowAndThenPassAnAbsentOverToo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		l := w.acquire(a, "key")
		_, _, links := w.queueUp("b")
		links[0].SetCut(true)
		require.NoError(t, l.Release(t.Context()))
		c, _ := w.client("c")
		began := time.Now()
		for {
			l, err := c.TryAcquire(t.Context(), "key")
			if err == nil {
				require.True(t, l.Held())
				break
			}
			require.ErrorIs(t, err, lease.ErrHeld)
			time.Sleep(500 * time.Millisecond)
		}
		require.InDelta(t, (grace + grace/16).Seconds(), time.Since(began).Seconds(), 0.6)
	})
}

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

func TestR20WhoIsNotFirstReadsOncePerLongestPoll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		w.acquire(a, "key")
		_, _, links := w.queueUp("b", "c")
		reads := func(link *link) int {
			n := atomic.Int64{}
			link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
				if call.Op == "Get" && call.Key == "lease/key" {
					n.Add(1)
				}
				return next(ctx)
			})
			time.Sleep(2 * time.Second)
			return int(n.Load())
		}
		require.Greater(t, reads(links[0]), 6)
		require.LessOrEqual(t, reads(links[1]), 3)
		require.Equal(t, []string{"b", "c"}, w.queue())
	})
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

// What cannot be read of a queue costs the order, and nothing else.
func TestR20UnreadableQueueIsNone(t *testing.T) {
	t.Parallel()
	for name, value := range map[string]string{
		"held":              `{"f":2,"session":"%s","acq":"x","owner":"a","queue":17}`,
		"held, entries":     `{"f":2,"session":"%s","acq":"x","owner":"a","queue":[{"id":7}]}`,
		"reserved":          `{"f":2,"session":"%s","acq":"x","owner":"a","queue":"b","until_ms":99999999999999}`,
		"reserved, no time": `{"f":2,"session":"%s","acq":"x","owner":"a","queue":{},"until_ms":"soon"}`,
		"reserved, at zero": `{"f":2,"session":"%s","acq":"x","owner":"a","queue":[],"until_ms":0}`,
		"held, for nobody":  `{"f":2,"session":"%s","acq":"x","owner":"a","queue":[{"id":"e","s":""}]}`,
		"reserved for none": `{"f":2,"session":"%s","acq":"x","owner":"a","queue":[{"id":"","s":"t"}],"until_ms":-1}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				a, la := w.client("a")
				require.NoError(t, w.acquire(a, "other").Release(t.Context()))
				err := w.store.Put(t.Context(), "lease/key", kv.WithBytes(fmt.Appendf(nil, value, a.Session())))
				require.NoError(t, err)
				b, _ := w.client("b")
				h, err := b.Holder(t.Context(), "key")
				require.NoError(t, err)
				require.Empty(t, h.Waiters)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				_, err = b.TryAcquire(ctx, "key")
				if name[:4] == "held" {
					require.ErrorIs(t, err, lease.ErrHeld)
					la.SetCut(true)
					_, err = b.Acquire(ctx, "key")
				}
				require.NoError(t, err)
			})
		})
	}
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

func TestR20SweepLeavesWhatALiveClientWaitsFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, la := w.client("a")
		w.acquire(a, "key")
		_, _, links := w.queueUp("b", "c")
		la.SetCut(true)
		operator, _ := w.client("operator")
		for _, link := range links {
			link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
				if call.Key == "lease/key" {
					<-ctx.Done() // they hang, and live
					return ctx.Err()
				}
				return next(ctx)
			})
		}
		swept, err := operator.Sweep(t.Context(), "")
		require.NoError(t, err)
		require.Zero(t, swept.Keys)
		require.Equal(t, []string{"b", "c"}, w.queue())
		for _, link := range links {
			link.SetCut(true)
		}
		swept, err = operator.Sweep(t.Context(), "")
		require.NoError(t, err)
		require.Equal(t, 1, swept.Keys)
		require.Nil(t, w.leaseRow())
	})
}

// A key that is reserved for the dead is swept as well.
func TestR20SweepRemovesWhatIsReservedForTheDead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		l := w.acquire(a, "key")
		_, _, links := w.queueUp("b", "c")
		for _, link := range links {
			link.SetCut(true)
		}
		require.NoError(t, l.Release(t.Context()))
		operator, _ := w.client("operator")
		swept, err := operator.Sweep(t.Context(), "")
		require.NoError(t, err)
		require.Equal(t, lease.Swept{Sessions: 2, Keys: 1}, swept)
		require.Nil(t, w.leaseRow())
	})
}

// A waiter's session that cannot be read may be alive.
func TestR20SweepGoesOnBesideAWaiterThatCannotBeRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, la := w.client("a")
		w.acquire(a, "key")
		w.acquire(a, "other")
		_, clients, links := w.queueUp("b")
		la.SetCut(true)
		links[0].SetCut(true)
		require.NoError(t, w.store.Put(t.Context(), "session/"+clients[0].Session(), kv.WithString(`{"f":9}`)))
		operator, _ := w.client("operator")
		swept, err := operator.Sweep(t.Context(), "")
		require.NoError(t, err)
		require.Equal(t, 1, swept.Keys)
		require.Equal(t, []string{"b"}, w.queue())
	})
}

func TestR20KeepOfAReservedKeyKeepsTheQueueToo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		l := w.acquire(a, "key")
		got, _, links := w.queueUp("b", "c")
		links[0].SetCut(true)
		require.NoError(t, l.Release(t.Context()))
		h, err := a.Keep(t.Context(), "key", []byte("v"))
		require.NoError(t, err)
		require.True(t, h.Kept)
		require.Equal(t, []string{"b", "c"}, w.queue())
		l, _ = take(t, got[1])
		require.Equal(t, "v", string(l.Value()))
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

// Longest polls that are longer than the grace do not make a client miss its turns.
func TestR20WhoPollsSeldomAnswersWithinItsGrace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for _, name := range []string{"one", "another"} { // their sessions are looked at every 20 minutes
			c, _ := w.client(name, lease.WithTTL(time.Hour))
			w.hog(c, 50*time.Second)
		}
		time.Sleep(time.Second)
		b, _ := w.client("b", lease.WithPoll(50*time.Millisecond, time.Hour), lease.WithTTL(3*time.Second))
		for range 3 {
			l, took := take(t, waitFor(t.Context(), b, "key"))
			require.Less(t, took, 4*time.Minute)
			require.NoError(t, l.Release(t.Context()))
		}
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
