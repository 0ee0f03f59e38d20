package lease_test

import (
	"context"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/seam"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// slow lets each call take d, half of it before the store has carried it out.
func (l *link) slow(d time.Duration) {
	l.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
		time.Sleep(d / 2)
		defer time.Sleep(d / 2)
		return next(ctx)
	})
}

// Goroutines of one client hand the key over to each other with one write. At
// a poll of 50 ms that goes on for a second and a half. Then the key is
// released, and left alone for one and a half polls from where it is free.
func TestR15HandoversEndInARestAfterTwentyTimesItsLength(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const hold, rounds, slow = 50 * time.Millisecond, 2, 10 * time.Millisecond
		const each = 30 // 30 holds last 1.5 s
		w := newWorld(t)
		a, link := w.client("a")
		l := w.acquire(a, "key")
		var got []<-chan grant
		for range rounds * each {
			got = append(got, waitFor(t.Context(), a, "key"))
			synctest.Wait()
		}
		var record writes
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			record.add(call)
			if call.Op == "AtomicDelete" {
				time.Sleep(slow) // the rest counts from where the key is free
			}
			return next(ctx)
		})
		for round := range rounds {
			for i := range each - 1 {
				time.Sleep(hold)
				require.NoError(t, l.Release(t.Context()))
				g := <-got[round*each+i]
				require.NoError(t, g.err)
				l = g.Lease
				require.Equal(t, []string{"AtomicPut"}, record.Take(), "handover %d of round %d", i+1, round+1)
			}
			time.Sleep(hold)
			began := time.Now()
			require.NoError(t, l.Release(t.Context()))
			require.Equal(t, []string{"AtomicDelete"}, record.Take())
			g := <-got[round*each+each-1]
			require.NoError(t, g.err)
			require.Equal(t, slow+75*time.Millisecond, g.at.Sub(began))
			require.Equal(t, []string{"AtomicPut"}, record.Take())
			l = g.Lease
		}
		require.NoError(t, l.Release(t.Context()))
	})
}

// A rest belongs to the client: whoever waits next observes it too.
func TestR15RestIsNotSkippedWhenAWaiterGivesUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		l := w.acquire(a, "key")
		ctx, quit := context.WithCancel(t.Context())
		first := waitFor(ctx, a, "key")
		synctest.Wait()
		second := waitFor(t.Context(), a, "key")
		synctest.Wait()
		time.Sleep(30 * time.Second) // a rest of one and a half polls of a second is due
		released := time.Now()
		require.NoError(t, l.Release(t.Context()))
		time.Sleep(100 * time.Millisecond)
		quit()
		require.Error(t, (<-first).err)
		g := <-second
		require.NoError(t, g.err)
		require.Equal(t, 1500*time.Millisecond, g.at.Sub(released))
		require.NoError(t, g.Release(t.Context()))
	})
}

// A process that locks, works and unlocks without a pause shares the key with
// others that wait for it or do the same: whoever waits has it after about
// three holds of the others, or a second and a half, and some polls.
func TestR15LoopDoesNotStarveOtherProcesses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		hold    time.Duration
		clients int
	}{{2 * time.Millisecond, 2}, {20 * time.Millisecond, 2}, {200 * time.Millisecond, 2}, {2 * time.Second, 2},
		{10 * time.Second, 2}, {50 * time.Millisecond, 5}} {
		t.Run(test.hold.String()+" "+strconv.Itoa(test.clients), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				ctx, cancel := context.WithTimeout(t.Context(), max(5*time.Minute, 200*test.hold))
				defer cancel()
				turns, waits := make([]int, test.clients), make([]time.Duration, test.clients)
				var group sync.WaitGroup
				for i := range test.clients {
					c, link := w.client(strconv.Itoa(i))
					link.slow(5 * time.Millisecond)
					group.Go(func() {
						for {
							asked := time.Now()
							l, err := c.Acquire(ctx, "key")
							waits[i] = max(waits[i], time.Since(asked))
							if err != nil {
								return
							}
							turns[i]++
							time.Sleep(test.hold)
							require.NoError(t, l.Release(ctx))
						}
					})
				}
				group.Wait()
				sum, longest := 0, time.Duration(0)
				for i, n := range turns {
					sum, longest = sum+n, max(longest, waits[i])
				}
				t.Logf("turns %v, longest wait %v", turns, longest)
				for _, n := range turns {
					require.Greater(t, 5*(test.clients-1)*n, sum, "%v", turns)
				}
				stint := max(1500*time.Millisecond, 4*test.hold) + 200*time.Millisecond
				require.Less(t, longest, time.Duration(test.clients*5)*stint)
			})
		})
	}
}

// A process that only tries, again and again, leaves the key to who waits for
// it as one does that acquires it.
func TestR15LoopOfTriesDoesNotStarveWhoWaits(t *testing.T) {
	t.Parallel()
	for _, hold := range []time.Duration{2 * time.Millisecond, 20 * time.Millisecond, 200 * time.Millisecond,
		2 * time.Second} {
		t.Run(hold.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				a, tries := w.client("a")
				b, waits := w.client("b")
				tries.slow(5 * time.Millisecond)
				waits.slow(5 * time.Millisecond)
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
				defer cancel()
				var loop sync.WaitGroup
				loop.Go(func() {
					for ctx.Err() == nil {
						l, err := a.TryAcquire(ctx, "key")
						if err != nil {
							time.Sleep(time.Millisecond)
							continue
						}
						time.Sleep(hold)
						require.NoError(t, l.Release(ctx))
					}
				})
				longest := time.Duration(0)
				for range 50 {
					time.Sleep(time.Duration(rand.Int64N(int64(5 * time.Second))))
					asked := time.Now()
					l, err := b.Acquire(ctx, "key")
					require.NoError(t, err)
					longest = max(longest, time.Since(asked))
					require.NoError(t, l.Release(ctx))
				}
				cancel()
				loop.Wait()
				t.Logf("longest wait %v", longest)
				stint := max(1500*time.Millisecond, 4*hold) + 200*time.Millisecond
				require.Less(t, longest, 10*stint)
			})
		})
	}
}

// Who has a key for itself loses a twentieth of its time at most, and nothing
// if it pauses by itself or holds the key but now and then.
func TestR15RestsTakeATwentiethOfTheTimeOfALoneLoop(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		acquire func(*lease.Client, context.Context, string, ...lease.AcquireOption) (*lease.Lease, error)
		pause   time.Duration
		rested  float64
	}{
		{(*lease.Client).Acquire, 0, 1 / 21.0},
		{(*lease.Client).TryAcquire, 0, 1 / 21.0},
		{(*lease.Client).Acquire, 80 * time.Millisecond, 0},
		{(*lease.Client).TryAcquire, 80 * time.Millisecond, 0},
	} {
		pause, rested := test.pause, test.rested
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			a, _ := w.client("a")
			const lasts, hold = 2 * time.Minute, 10 * time.Millisecond
			began, turns := time.Now(), 0
			for time.Since(began) < lasts {
				l, err := test.acquire(a, t.Context(), "key")
				require.NoError(t, err)
				time.Sleep(hold)
				require.NoError(t, l.Release(t.Context()))
				time.Sleep(pause)
				turns++
			}
			most := float64(lasts) / float64(hold+pause)
			require.InEpsilon(t, most*(1-rested), turns, 0.02, "with pauses of %v", pause)
		})
	}
}

// Another process has had the key in between: there is nothing to make up for.
func TestR15NobodyRestsWhoHasWaitedForAnother(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, _ := w.client("b")
		l := w.acquire(a, "key")
		time.Sleep(10 * time.Second)
		require.NoError(t, l.Release(t.Context()))
		other := w.acquire(b, "key")
		got := waitFor(t.Context(), a, "key")
		time.Sleep(20 * time.Millisecond)
		require.NoError(t, other.Release(t.Context()))
		g := <-got
		require.NoError(t, g.err)
		time.Sleep(time.Second)
		next := waitFor(t.Context(), a, "key")
		synctest.Wait()
		released := time.Now()
		require.NoError(t, g.Release(t.Context()))
		l = (<-next).Lease
		require.Equal(t, released, time.Now(), "handed over: its own second is all it has had")
		require.NoError(t, l.Release(t.Context()))
	})
}

// Who only tries is not made to wait for longer than a minimum poll.
func TestR15TryRestsForAMinimumPollAtMost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		l := w.acquire(a, "key")
		time.Sleep(time.Hour)
		require.NoError(t, l.Release(t.Context()))
		began := time.Now()
		l = w.acquire(a, "key")
		require.Equal(t, 50*time.Millisecond, time.Since(began))
		require.NoError(t, l.Release(t.Context()))
		began = time.Now()
		g := <-waitFor(t.Context(), a, "key")
		require.NoError(t, g.err)
		require.Equal(t, 75*time.Millisecond, g.at.Sub(began), "the others are still owed their chance")
		require.NoError(t, g.Release(t.Context()))
	})
}

// What is remembered of released keys is forgotten when it is of no use.
func TestR15ReleasedKeysAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		const keys = 20_000
		cycle := func(i int) {
			l := w.acquire(a, "some/longer/key/that/is/never/used/again/"+strconv.Itoa(i))
			time.Sleep(time.Millisecond)
			require.NoError(t, l.Release(t.Context()))
		}
		for i := range 1000 {
			cycle(-i)
		}
		before := heap()
		for i := range keys {
			cycle(i)
		}
		require.Less(t, float64(heap())-float64(before), 20.0*keys, "bytes")
	})
}

// A key that no other client wants is acquired at once, however often.
func TestR15APrivateKeyIsNotLeftToOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		const hold, rounds = 100 * time.Millisecond, 100
		took := func(options ...lease.AcquireOption) time.Duration {
			began := time.Now()
			for range rounds {
				l, err := a.TryAcquire(t.Context(), "key", options...)
				require.NoError(t, err)
				time.Sleep(hold)
				require.NoError(t, l.Release(t.Context()))
			}
			return time.Since(began)
		}
		require.Greater(t, took(), rounds*hold)
		time.Sleep(time.Minute)
		require.Equal(t, rounds*hold, took(seam.Private.(lease.AcquireOption)))
	})
}

func TestTheIDOfAClientIsItsOwn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, _ := w.client("b")
		id := seam.Of(a).ID()
		require.Len(t, id, 16)
		require.Equal(t, id, seam.Of(a).ID())
		require.NotEqual(t, id, seam.Of(b).ID())
	})
}
