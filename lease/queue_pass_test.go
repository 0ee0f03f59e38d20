package lease_test

import (
	"context"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/lease"
)

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
