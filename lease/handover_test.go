package lease_test

import (
	"context"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
)

func TestR15ReleaseHandsOverWithOneWrite(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		first := w.acquire(a, "key")
		got := waitFor(t.Context(), a, "key")
		synctest.Wait()
		link.Take()
		time.Sleep(3 * time.Second)
		require.Empty(t, link.Take(), "a local holder needs no polls")
		require.NoError(t, first.Release(t.Context()))
		second := <-got
		require.NoError(t, second.err)
		require.Equal(t, map[string]int{"AtomicPut": 1}, link.Take())
		require.Greater(t, second.Token(), first.Token())
		require.Equal(t, second.Token(), inspect(t, a, "key").Token)
		require.NoError(t, second.Release(t.Context()))
		require.Empty(t, w.rows("lease/"))
	})
}

func TestR15HandoverCarriesTheWaitersOptionsAndTheKeptValue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		for _, keep := range []bool{false, true} {
			options := []lease.AcquireOption{lease.WithValue([]byte("1"))}
			if keep {
				options = append(options, lease.KeepValue())
			}
			first, err := a.TryAcquire(t.Context(), "key", options...)
			require.NoError(t, err)
			got := make(chan *lease.Lease)
			go func() {
				l, _ := a.Acquire(t.Context(), "key", lease.WithValue([]byte("2")), lease.WithMaxHold(5*time.Second))
				got <- l
			}()
			synctest.Wait()
			if keep {
				require.NoError(t, first.ReleaseWith(t.Context(), []byte("left")))
			} else {
				require.NoError(t, first.Release(t.Context()))
			}
			second := <-got
			require.Equal(t, map[bool]string{false: "2", true: "left"}[keep], string(second.Value()))
			<-second.Context().Done()
			require.Equal(t, lease.ReasonMaxHold, reason(t, second.Err()))
			require.ErrorIs(t, second.Release(t.Context()), lease.ErrLost)
			time.Sleep(5 * time.Second)
		}
		require.Equal(t, "left", string(inspect(t, a, "key").Value))
	})
}

func TestR15OtherProcessesGetTheirChanceBesideAQueueOfGoroutines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		b, _ := w.client("b", lease.WithPoll(time.Millisecond, 10*time.Millisecond))
		ctx, stop := context.WithCancel(t.Context())
		acquired := 0
		var wait sync.WaitGroup
		var mu sync.Mutex
		for range 4 {
			wait.Go(func() {
				for ctx.Err() == nil {
					l, err := a.Acquire(ctx, "key")
					if err != nil {
						return
					}
					mu.Lock()
					acquired++
					mu.Unlock()
					time.Sleep(5 * time.Millisecond)
					_ = l.Release(ctx)
				}
			})
		}
		time.Sleep(time.Second)
		chance, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		got := <-waitFor(chance, b, "key")
		if got.err != nil {
			stop()
			wait.Wait()
		}
		require.NoError(t, got.err, "never in a minute")
		require.NoError(t, got.Release(t.Context()))
		link.Take()
		mu.Lock()
		acquired = 0
		mu.Unlock()
		time.Sleep(10 * time.Second)
		stop()
		wait.Wait()
		requests := 0
		for _, n := range link.Take() {
			requests += n
		}
		require.Greater(t, acquired, 1000)
		require.LessOrEqual(t, float64(requests)/float64(acquired), 1.1)
	})
}

func TestR15H23WaiterWhoseContextEndedPassesTheKeyOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		first := w.acquire(a, "key")
		ctx, giveUp := context.WithCancel(t.Context())
		quitter := waitFor(ctx, a, "key")
		synctest.Wait()
		waiting, cancel := context.WithCancel(t.Context())
		defer cancel()
		next := waitFor(waiting, a, "key")
		synctest.Wait()
		var once sync.Once
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			err := next(ctx)
			once.Do(func() {
				giveUp() // while the handover to it is on the wire
				synctest.Wait()
			})
			return err
		})
		require.NoError(t, first.Release(t.Context()))
		require.ErrorIs(t, (<-quitter).err, context.Canceled)
		synctest.Wait()
		require.Len(t, next, 1)
		got := <-next
		require.NoError(t, got.err)
		require.True(t, got.Held())
		require.NoError(t, got.Release(t.Context()))
		require.Empty(t, w.rows("lease/"))
		closing, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.NoError(t, a.Close(closing)) // nobody is counted twice
	})
}

// A handover whose answer is lost may have landed or not; either way the key is
// free for others, under either acquisition id (W3).
func TestR15R14HandoverOfUnknownOutcomeLeavesNoOrphan(t *testing.T) {
	t.Parallel()
	for _, landed := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			a, link := w.client("a")
			b, _ := w.client("b")
			first := w.acquire(a, "key")
			ctx, giveUp := context.WithCancel(t.Context())
			quitter := waitFor(ctx, a, "key")
			synctest.Wait()
			done := false
			link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
				if done || call.Op != "AtomicPut" || !strings.HasPrefix(call.Key, "lease/") {
					return next(ctx)
				}
				done = true
				giveUp() // nobody here asks for the key again, which would heal it
				if landed {
					_ = next(ctx)
				}
				return &kv.UncertainError{Key: call.Key, Err: errLost}
			})
			require.NoError(t, first.Release(t.Context()))
			require.Error(t, (<-quitter).err)
			require.True(t, done)
			time.Sleep(time.Second)
			require.Empty(t, w.rows("lease/"))
			require.NoError(t, w.acquire(b, "key").Release(t.Context()))
		})
	}
}

func TestR15ManyWaitersCostOneReadPerPoll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		holder, _ := w.client("holder")
		c, link := w.client("c")
		w.acquire(holder, "key")
		ctx, stop := context.WithCancel(t.Context())
		var wait sync.WaitGroup
		for range 1000 {
			wait.Go(func() { _, _ = c.Acquire(ctx, "key") })
		}
		time.Sleep(60 * time.Second)
		link.Take()
		time.Sleep(60 * time.Second)
		calls := link.Take()
		stop()
		wait.Wait()
		// At most a poll per 0.8 s, a look at the session per third of its TTL,
		// and the client's own heartbeats.
		require.LessOrEqual(t, calls["Get"], 75+2*18+2)
		require.LessOrEqual(t, calls["AtomicPut"], 20+18)
	})
}

func TestR9NativeWatchTellsWaitersAtOnceWithoutPolls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		holder, err := lease.New(store)
		require.NoError(t, err)
		link := newLink(store)
		waiter, err := lease.New(kv.Instrument(store, link.Hook))
		require.NoError(t, err)
		l, err := holder.TryAcquire(t.Context(), "key")
		require.NoError(t, err)
		got := waitFor(t.Context(), waiter, "key")
		time.Sleep(time.Minute)
		require.LessOrEqual(t, link.Take()["Get"], 2*14+3, "more than looks at the session, and those of the entry (R20)")
		released := time.Now()
		require.NoError(t, l.Release(t.Context()))
		second := <-got
		require.NoError(t, second.err)
		require.Zero(t, second.at.Sub(released))
		require.NoError(t, second.Release(t.Context()))
		require.NoError(t, waiter.Close(t.Context()))
		require.NoError(t, holder.Close(t.Context()))
	})
}

func TestTryAcquireOfAKeyThatThisClientHoldsCostsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		l := w.acquire(a, "key")
		link.Take()
		_, err := a.TryAcquire(t.Context(), "key")
		var held *lease.HeldError
		require.ErrorAs(t, err, &held)
		require.Equal(t, l.Token(), held.Holder.Token)
		require.Empty(t, link.Take())
	})
}

func TestTenThousandLeasesCostNoGoroutineAndAKibibyteEach(t *testing.T) {
	w := newWorld(t)
	c, _ := w.client("a")
	const n = 10_000
	key := func(i int) string {
		return "some/key/" + string(rune('a'+i%26)) + strings.Repeat("x", i%7) + time.Duration(i).String()
	}
	warm, err := c.TryAcquire(t.Context(), "warm")
	require.NoError(t, err)
	rows, err := memRows(n, key)
	require.NoError(t, err)
	goroutines := runtime.NumGoroutine()
	before := heap()
	leases := make([]*lease.Lease, n)
	for i := range n {
		leases[i], err = c.TryAcquire(t.Context(), key(i))
		require.NoError(t, err)
	}
	perLease := (int64(heap()) - int64(before) - rows) / n
	t.Logf("heap per held lease: %d B, without the rows of the store in memory, which take %d B each", perLease, rows/n)
	require.LessOrEqual(t, perLease, int64(1024))
	require.LessOrEqual(t, runtime.NumGoroutine(), goroutines)
	require.NoError(t, warm.Release(t.Context()))
	runtime.KeepAlive(leases)
	for _, l := range leases {
		require.NoError(t, l.Release(t.Context()))
	}
}

// memRows returns how many bytes of heap n rows like those of leases take in a memkv.Store.
func memRows(n int, key func(int) string) (int64, error) {
	store := memkv.New()
	before := heap()
	value := strings.Repeat("v", 190)
	for i := range n {
		_, err := store.AtomicPut(context.Background(), "lease/"+key(i), kv.WithString(value),
			kv.WithFields(kv.Fields{"acq": strings.Repeat("a", 32)}))
		if err != nil {
			return 0, err
		}
	}
	size := int64(heap()) - int64(before)
	runtime.KeepAlive(store)
	return size, nil
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestHandedLeaseIsHeldWhenAcquireReturnsIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		b, _ := w.client("b")
		theirs := w.acquire(b, "key")
		var slow atomic.Bool
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			err := next(ctx)
			if call.Op == "Get" && call.Key == "lease/key" && slow.CompareAndSwap(true, false) {
				time.Sleep(1500 * time.Millisecond) // two attempts
			}
			return err
		})
		var held, ok bool
		done := make(chan struct{})
		go func() {
			defer close(done)
			l, err := a.Acquire(t.Context(), "key", lease.WithMaxHold(time.Second))
			ok, held = err == nil, err == nil && l.Held()
			if err == nil {
				_ = l.Release(t.Context())
			}
		}()
		time.Sleep(time.Second)
		slow.Store(true)
		for slow.Load() {
			time.Sleep(10 * time.Millisecond)
		}
		require.NoError(t, theirs.Release(t.Context()))
		mine := w.acquire(a, "key")
		require.NoError(t, mine.Release(t.Context())) // hands over
		<-done
		require.True(t, ok)
		require.True(t, held, "Acquire returned a lease that had ended")
	})
}

// The interleavings that the simulation found (tests/sim), as exact schedules.

func TestR9LeaseHandedOverAndLostBeforeTheWaiterLookedIsNotReturned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		b, _ := w.client("b")
		a, link := w.client("a")
		theirs := w.acquire(b, "key")
		held := make(chan struct{})
		polling := make(chan struct{}, 1)
		var hold atomic.Bool
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Op == "Get" && call.Key == "lease/key" && hold.Load() {
				select {
				case polling <- struct{}{}:
				default:
				}
				<-held
				return errLost // it learns of the handover, not of what became of it
			}
			return next(ctx)
		})
		got := waitFor(t.Context(), a, "key")
		time.Sleep(time.Second)
		hold.Store(true)
		<-polling
		require.NoError(t, theirs.Release(t.Context()))
		ours := w.acquire(a, "key")
		require.NoError(t, ours.Release(t.Context())) // handoff over to the waiter, which is in the middle of a read
		session := inspect(t, b, "key").Session
		require.NotEmpty(t, session)
		require.NoError(t, w.store.Delete(t.Context(), "session/"+session))
		time.Sleep(ttl / 2) // a heartbeat finds out
		hold.Store(false)
		close(held)
		g := <-got
		require.NoError(t, g.err)
		require.True(t, g.Held())
		require.NotEqual(t, session, inspect(t, b, "key").Session)
		require.NoError(t, g.Release(t.Context()))
		require.NoError(t, a.Close(t.Context()))
	})
}
