package lease_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// slots are the keys of these tests, listed in one go.
var slots = []string{"slot/0", "slot/1", "slot/2"}

func listSlots() lease.AcquireOption { return lease.WithListing("slot/", nil) }

func acquireAny(t *testing.T, c *lease.Client) *lease.Lease {
	t.Helper()
	l, err := c.TryAcquireAny(t.Context(), slots, listSlots())
	require.NoError(t, err)
	return l
}

// waitForAny is waitFor for one of the slots.
func waitForAny(ctx context.Context, c *lease.Client) <-chan grant {
	got := make(chan grant, 1)
	go func() {
		l, err := c.AcquireAny(ctx, slots, listSlots())
		got <- grant{l, err, time.Now()}
	}()
	return got
}

func TestR21AcquireAnyGetsEachKeyOnceAndThenSaysWhoHoldsThem(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, link := w.client("b")
		got := map[string]bool{}
		for range 2 {
			got[acquireAny(t, a).Key()] = true
		}
		last := acquireAny(t, b)
		got[last.Key()] = true
		require.Len(t, got, 3)
		_, err := a.TryAcquireAny(t.Context(), slots, listSlots())
		var held *lease.HeldError
		require.ErrorAs(t, err, &held)
		require.Len(t, held.Holders, 3)
		owners := map[string]int{}
		for _, h := range held.Holders {
			owners[h.Owner]++
		}
		require.Equal(t, map[string]int{"a": 2, "b": 1}, owners)
		require.NoError(t, last.Release(t.Context()))
		link.Take()
		again := acquireAny(t, a)
		require.Equal(t, last.Key(), again.Key())
		require.Greater(t, again.Token(), last.Token())
		_, err = b.TryAcquireAny(t.Context(), slots) // without a listing
		require.ErrorIs(t, err, lease.ErrHeld)
		require.Equal(t, map[string]int{"AtomicPut": 1, "Get": 4}, link.Take(), "three keys and a session")
	})
}

func TestR21Costs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, mine := w.client("a")
		b, theirs := w.client("b")
		w.acquire(a, "warm")
		w.acquire(b, "warm too")
		mine.Take()
		first := acquireAny(t, a)
		require.Equal(t, map[string]int{"AtomicPut": 1}, mine.Take(), "a free key")
		acquireAny(t, a)
		require.Equal(t, map[string]int{"AtomicPut": 1}, mine.Take(), "what is held here is not asked for")
		acquireAny(t, a)
		mine.Take()
		_, err := a.TryAcquireAny(t.Context(), slots, listSlots())
		require.ErrorIs(t, err, lease.ErrHeld)
		require.Empty(t, mine.Take(), "all are held here")
		theirs.Take()
		_, err = b.TryAcquireAny(t.Context(), slots, listSlots())
		require.ErrorIs(t, err, lease.ErrHeld)
		require.Equal(t, map[string]int{"AtomicPut": 1, "ListPage": 1, "Get": 1}, theirs.Take(),
			"full, its holder not seen of late")
		_, err = b.TryAcquireAny(t.Context(), slots, listSlots())
		require.ErrorIs(t, err, lease.ErrHeld)
		require.Equal(t, map[string]int{"AtomicPut": 1, "ListPage": 1}, theirs.Take(), "full: refused")
		require.NoError(t, first.Release(t.Context()))
		require.NoError(t, acquireAny(t, b).Release(t.Context()))
		for range 10 { // the first key that they look at is another one each time
			c, link := w.client("c")
			l := acquireAny(t, c)
			calls := link.Take()
			require.LessOrEqual(t, calls["AtomicPut"], 3, "the session's, a create and a write")
			require.LessOrEqual(t, calls["ListPage"], 1)
			require.Zero(t, calls["Get"], "a free key comes before a look at a session")
			require.NoError(t, l.Release(t.Context()))
		}
	})
}

func TestR21AWaiterListsAndOneForItsProcess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, link := w.client("b")
		var held []*lease.Lease
		for range slots {
			held = append(held, acquireAny(t, a))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		first := waitForAny(ctx, b)
		synctest.Wait()
		second := waitForAny(ctx, b)
		time.Sleep(time.Minute)
		link.Take()
		time.Sleep(time.Minute)
		calls := link.Take()
		require.InDelta(t, 60+18, calls["ListPage"], 10, "one per poll, and before each look at a session")
		require.InDelta(t, 18, calls["Get"], 4, "one per third of the TTL")
		require.InDelta(t, 18, calls["AtomicPut"], 4, "heartbeats")
		require.NoError(t, held[0].Release(t.Context()))
		g := <-first
		require.NoError(t, g.err)
		require.Equal(t, held[0].Key(), g.Key(), "who came first")
		require.Empty(t, second)
		released := time.Now()
		require.NoError(t, g.Release(t.Context()))
		h := <-second
		require.NoError(t, h.err)
		require.Less(t, h.at.Sub(released), 3*time.Second)
	})
}

func TestR21AWaiterIsWokenByAReleaseInItsProcess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		var held []*lease.Lease
		for range slots {
			held = append(held, acquireAny(t, a))
		}
		got := waitForAny(t.Context(), a)
		time.Sleep(10*time.Second + 17*time.Millisecond)
		require.Zero(t, link.Take()["ListPage"], "it waits for its own process")
		require.Empty(t, got)
		began := time.Now()
		require.NoError(t, held[1].Release(t.Context()))
		g := <-got
		require.NoError(t, g.err)
		require.Equal(t, held[1].Key(), g.Key())
		require.Zero(t, g.at.Sub(began), "at once")
	})
}

func TestR21TheKeysOfADeadProcessPassOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		b, _ := w.client("b")
		for range slots {
			acquireAny(t, a)
		}
		link.SetCut(true)
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		g := <-waitForAny(ctx, b)
		require.NoError(t, g.err)
		require.True(t, g.TakenOver())
		require.Less(t, time.Since(began), patience+ttl/3+2*time.Second, "I5")
		require.GreaterOrEqual(t, time.Since(began), patience-ttl/3)
		acquireAny(t, b)
		require.True(t, acquireAny(t, b).TakenOver(), "all come back together")
	})
}

// A lone client whose answer was lost finds its own key held by itself, and takes
// it (R9.2).
func TestR21AnOrphanIsTaken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		w.acquire(a, "warm")
		lost := false
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			switch {
			case call.Op == "Get" && call.Key == "lease/"+slots[0]:
				return errLost // the resolver does not get to it first
			case call.Op == "AtomicPut" && call.Key == "lease/"+slots[0] && !lost:
				lost = true
				_ = next(ctx)
				return &kv.UncertainError{Key: call.Key, Err: errLost}
			}
			return next(ctx)
		})
		_, err := a.TryAcquireAny(t.Context(), slots[:1], listSlots())
		require.ErrorIs(t, err, kv.ErrUncertain)
		l, err := a.TryAcquireAny(t.Context(), slots[:1], listSlots())
		require.NoError(t, err)
		link.SetIntercept(nil)
		require.Equal(t, slots[0], l.Key())
		require.True(t, l.Held())
		time.Sleep(time.Minute)
		require.True(t, l.Held(), "the resolver leaves it alone")
		require.Equal(t, l.Token(), inspect(t, a, slots[0]).Token)
	})
}

func TestR21AnUnreadableRowIsLeftAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		for _, key := range slots[:2] {
			_, err := w.store.AtomicPut(t.Context(), "lease/"+key, kv.WithString(`{"f":99}`))
			require.NoError(t, err)
		}
		require.Equal(t, slots[2], acquireAny(t, a).Key())
		_, err := a.TryAcquireAny(t.Context(), slots, listSlots())
		require.ErrorIs(t, err, lease.ErrHeld)
		_, err = a.AcquireAny(t.Context(), slots[:2], listSlots())
		require.ErrorIs(t, err, kv.ErrFormat)
	})
}

func TestR21TheKeysComeWithTheListing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, _ := w.client("b")
		var n atomic.Int32
		n.Store(1)
		grows := lease.WithListing("slot/", func(listed []*lease.Holder) []string {
			require.NotEmpty(t, listed)
			return slots[:n.Load()]
		})
		l, err := a.TryAcquireAny(t.Context(), slots[:1], grows)
		require.NoError(t, err)
		require.Equal(t, slots[0], l.Key())
		for _, c := range []*lease.Client{a, b} { // where all are held here, and by its polls
			got := make(chan *lease.Lease, 1)
			go func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				l, _ := c.AcquireAny(ctx, slots[:n.Load()], grows)
				got <- l
			}()
			time.Sleep(time.Minute)
			require.Empty(t, got)
			n.Add(1)
			time.Sleep(2 * ttl)
			require.Len(t, got, 1)
			require.Equal(t, slots[n.Load()-1], (<-got).Key())
		}
	})
}

func TestR21EndsWithItsContextAndWithClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, _ := w.client("b")
		for range slots {
			acquireAny(t, a)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.ErrorIs(t, (<-waitForAny(ctx, b)).err, context.DeadlineExceeded)
		got := waitForAny(t.Context(), b)
		synctest.Wait()
		require.NoError(t, b.Close(t.Context()))
		require.ErrorIs(t, (<-got).err, lease.ErrClosed)
	})
}

func TestR21GivesItsPlaceToTheNextWhenItsContextEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, _ := w.client("b")
		held := []*lease.Lease{acquireAny(t, a), acquireAny(t, a), acquireAny(t, a)}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		first := waitForAny(ctx, b)
		synctest.Wait()
		later, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		second := waitForAny(later, b)
		require.ErrorIs(t, (<-first).err, context.DeadlineExceeded)
		require.NoError(t, held[2].Release(t.Context()))
		require.NoError(t, (<-second).err)
	})
}

func TestAcquireAnyRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		for _, options := range [][]lease.AcquireOption{
			{lease.WithListing("", nil)}, {lease.WithListing("other/", nil)}, {nil}, {lease.WithMaxHold(1)},
		} {
			_, err := a.TryAcquireAny(t.Context(), slots, options...)
			require.ErrorIs(t, err, lease.ErrInvalid)
		}
		for _, keys := range [][]string{nil, {""}, make([]string, lease.MaxAnyKeys+1)} {
			_, err := a.AcquireAny(t.Context(), keys)
			require.ErrorIs(t, err, lease.ErrInvalid)
		}
		_, err := a.TryAcquire(t.Context(), "slot/0", listSlots())
		require.ErrorIs(t, err, lease.ErrInvalid)
		require.Empty(t, link.Take())
	})
}

// Three clients, two slots, answers and requests lost, one client cut off: never
// more than two trust at once, and nobody blocks.
func TestR21Storm(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			random := rand.New(rand.NewPCG(seed, 21)) //nolint:gosec // repeatable
			var mu sync.Mutex
			draw := func(n int) int {
				mu.Lock()
				defer mu.Unlock()
				return random.IntN(n)
			}
			var users [2]atomic.Int32
			var rounds atomic.Int32
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			var wait sync.WaitGroup
			tokens := map[string]uint64{}
			for i := range 3 {
				c, link := w.client(fmt.Sprint(i))
				link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
					time.Sleep(time.Duration(draw(10)) * time.Millisecond)
					fault := draw(40)
					if fault == 0 && call.Op != "ListPage" && call.Op != "Get" {
						return &kv.UncertainError{Key: call.Key, Err: errLost}
					}
					err := next(ctx)
					if err == nil && fault == 1 && call.Op != "ListPage" && call.Op != "Get" {
						return &kv.UncertainError{Key: call.Key, Err: errLost}
					}
					return err
				})
				for range 2 {
					wait.Go(func() {
						for ctx.Err() == nil {
							l, err := c.AcquireAny(ctx, slots[:2], listSlots())
							if err != nil {
								continue
							}
							slot := int(l.Key()[len("slot/")] - '0')
							if users[slot].Add(1) != 1 {
								t.Errorf("seed %d: two have %s", seed, l.Key())
							}
							mu.Lock()
							if l.Token() <= tokens[l.Key()] {
								t.Errorf("seed %d: the token of %s falls", seed, l.Key())
							}
							tokens[l.Key()] = l.Token()
							mu.Unlock()
							time.Sleep(time.Duration(draw(100)) * time.Millisecond)
							users[slot].Add(-1)
							rounds.Add(1)
							_ = l.Release(ctx)
						}
					})
				}
				if i == 0 {
					time.AfterFunc(time.Minute, func() { link.SetCut(true) })
				}
			}
			time.Sleep(100 * time.Second)
			before := rounds.Load()
			require.Greater(t, before, int32(100))
			wait.Wait()
			require.Greater(t, rounds.Load(), before, "the others go on")
		})
	}
}
