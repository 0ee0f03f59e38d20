package lease_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// tryAny is a TryAcquireAny in the background.
func tryAny(ctx context.Context, c *lease.Client) <-chan grant {
	got := make(chan grant, 1)
	go func() {
		l, err := c.TryAcquireAny(ctx, slots, listSlots())
		got <- grant{l, err, time.Now()}
	}()
	return got
}

// stall lets calls of op on lease rows wait for d, before or after the store has
// carried them out.
func (l *link) stall(op string, d time.Duration, after bool) {
	l.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
		if call.Op != op || !strings.HasPrefix(call.Key, "lease/") {
			return next(ctx)
		}
		if after {
			defer time.Sleep(d)
		} else {
			time.Sleep(d)
		}
		return next(ctx)
	})
}

func TestR21CallsAtTheSameTimeTakeDifferentKeys(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		w.acquire(a, "warm")
		link.stall("AtomicPut", time.Second, false)
		link.Take()
		keys := map[string]bool{}
		var calls []<-chan grant
		for range slots {
			calls = append(calls, tryAny(t.Context(), a))
			synctest.Wait() // it is at its write
		}
		for _, got := range calls {
			g := <-got
			require.NoError(t, g.err)
			keys[g.Key()] = true
		}
		require.Len(t, keys, 3)
		require.Equal(t, map[string]int{"AtomicPut": 3}, link.Take(), "nobody waits for the other or lists")
	})
}

func TestR21AKeyThatACallOfOursIsAtComesLast(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		w.acquire(a, "warm")
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Key == "lease/slot/0" || call.Key == "lease/slot/1" {
				time.Sleep(2 * time.Second)
			}
			return next(ctx)
		})
		_, err := a.Keep(t.Context(), slots[2], nil) // so that its create fails, and the listing shows all as free
		require.NoError(t, err)
		for _, key := range slots[:2] {
			go func() { _, _ = a.TryAcquire(t.Context(), key) }()
		}
		synctest.Wait()
		began := time.Now()
		l, err := a.TryAcquireAny(t.Context(), slots, listSlots())
		require.NoError(t, err)
		require.Equal(t, slots[2], l.Key())
		require.Zero(t, time.Since(began))
		time.Sleep(time.Minute) // the others end
	})
}

// A row of a call that is under way is this client's: its session is not asked
// after.
func TestR21TheRowOfACallUnderWayIsHeldHere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		b, _ := w.client("b")
		w.acquire(a, "warm")
		w.acquire(b, slots[0])
		w.acquire(b, slots[1])
		_, err := a.TryAcquireAny(t.Context(), slots[:2], listSlots()) // b's session was seen
		require.ErrorIs(t, err, lease.ErrHeld)
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Key == "lease/slot/2" {
				defer time.Sleep(time.Second)
			}
			return next(ctx)
		})
		first := tryAny(t.Context(), a)
		for len(w.rows("lease/slot/2")) == 0 {
			time.Sleep(10 * time.Millisecond)
		}
		link.Take()
		second := <-tryAny(t.Context(), a)
		require.ErrorIs(t, second.err, lease.ErrHeld)
		require.Zero(t, link.Take()["Get"])
		require.NoError(t, (<-first).err)
	})
}

// R15: a key that this client has had for long it leaves to others, and takes
// another one meanwhile.
func TestR21TakesAnotherKeyThanTheOneThatItYields(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		l := acquireAny(t, a)
		time.Sleep(time.Hour)
		require.NoError(t, l.Release(t.Context()))
		began := time.Now()
		g := <-waitForAny(t.Context(), a)
		require.NoError(t, g.err)
		require.NotEqual(t, l.Key(), g.Key())
		require.Zero(t, g.at.Sub(began), "at once")
		acquireAny(t, a)
		g = <-waitForAny(t.Context(), a)
		require.NoError(t, g.err)
		require.Equal(t, l.Key(), g.Key(), "where no other is free it is taken after all")
		require.Greater(t, g.at.Sub(began), 100*time.Millisecond)
	})
}

func TestR21AnOutageWhileAskingAfterHoldersIsWaitedOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, link := w.client("b")
		w.acquire(b, "warm")
		held := []*lease.Lease{acquireAny(t, a), acquireAny(t, a), acquireAny(t, a)}
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Op == "Get" {
				return errLost
			}
			return next(ctx)
		})
		_, err := b.TryAcquireAny(t.Context(), slots, listSlots())
		require.ErrorIs(t, err, errLost)
		require.NotErrorIs(t, err, lease.ErrHeld, "whether it is held is not known")
		got := waitForAny(t.Context(), b)
		time.Sleep(time.Minute)
		require.Empty(t, got)
		require.LessOrEqual(t, link.Take()["Get"], 30, "the pauses grow (I13), and a session is asked after once a round")
		require.NoError(t, held[1].Release(t.Context()))
		require.NoError(t, (<-got).err)
	})
}

func TestR21EndsWithItsContextAndWithCloseAtItsWrite(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(cancel func(), c *lease.Client){
		"context": func(cancel func(), _ *lease.Client) { cancel() },
		"close":   func(_ func(), c *lease.Client) { _ = c.Close(context.Background()) },
	} {
		for _, op := range []string{"AtomicPut", "ListPage"} {
			for _, after := range []bool{false, true} {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					a, _ := w.client("a")
					b, link := w.client("b")
					require.NoError(t, w.acquire(b, "warm").Release(t.Context()))
					if op == "ListPage" {
						acquireAny(t, a)
						acquireAny(t, a)
						a, _ = w.client("a again")
						acquireAny(t, a)
					}
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					link.stall(op, time.Second, after)
					got := waitForAny(ctx, b)
					time.Sleep(500 * time.Millisecond)
					go end(cancel, b)
					g := <-got
					if g.err == nil { // it was granted in time
						require.NoError(t, g.Release(t.Context()))
					}
					time.Sleep(time.Minute)
					for _, key := range w.rows("lease/slot/") {
						h, err := a.Inspect(t.Context(), strings.TrimPrefix(key, "lease/"))
						require.NoError(t, err)
						require.NotEqual(t, "b", h.Owner, "%s, %s, after %v: %s is left", name, op, after, key)
					}
				})
			}
		}
	}
}

func TestR21GoesOnWithAnotherSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, link := w.client("b")
		own := acquireAny(t, b)
		held := []*lease.Lease{acquireAny(t, a), acquireAny(t, a)}
		got := waitForAny(t.Context(), b)
		time.Sleep(time.Second)
		link.SetIntercept(func(_ context.Context, call kv.Call, _ func(context.Context) error) error {
			return &kv.UncertainError{Key: call.Key, Err: errLost}
		})
		requireLost(t, own)
		time.Sleep(time.Minute)
		link.SetIntercept(nil)
		g := <-got
		require.NoError(t, g.err)
		require.Equal(t, own.Key(), g.Key(), "its own former key, whose session is dead")
		require.True(t, g.Held())
		require.True(t, held[0].Held() && held[1].Held())
	})
}

func TestR21ASetWithoutKeysEndsTheCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, _ := w.client("b")
		w.acquire(a, slots[0])
		none := lease.WithListing("slot/", func([]*lease.Holder) []string { return nil })
		_, err := b.AcquireAny(t.Context(), slots[:1], none)
		require.ErrorIs(t, err, lease.ErrInvalid)
	})
}

func TestR21AKeyThatIsThereTwiceCountsOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, _ := w.client("b")
		w.acquire(a, slots[0])
		_, err := b.TryAcquireAny(t.Context(), []string{slots[0], slots[0]})
		var held *lease.HeldError
		require.ErrorAs(t, err, &held)
		require.Len(t, held.Holders, 1)
	})
}

func TestR21Events(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var told recorder
		a, _ := w.client("a")
		b, _ := w.client("b", lease.WithObserver(told.Observe))
		held := []*lease.Lease{acquireAny(t, a), acquireAny(t, a), acquireAny(t, a)}
		_, err := b.TryAcquireAny(t.Context(), slots, listSlots())
		require.ErrorContains(t, err, `all of 3 keys are held: "slot/0" is held by a`)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.Error(t, (<-waitForAny(ctx, b)).err)
		got := waitForAny(t.Context(), b)
		time.Sleep(time.Second)
		require.NoError(t, held[0].Release(t.Context()))
		require.NoError(t, (<-got).err)
		seen := map[uint64][]string{}
		for _, what := range []lease.EventType{
			lease.EventWaiting, lease.EventRefused, lease.EventGaveUp, lease.EventAcquired,
		} {
			for _, e := range told.Of(what) {
				seen[e.Call] = append(seen[e.Call], string(e.Type)+" "+e.Owner)
				require.NotEmpty(t, e.Key)
			}
		}
		require.Equal(t, map[uint64][]string{
			1: {"refused a"}, 2: {"waiting a", "gave up "}, 3: {"waiting a", "acquired b"},
		}, seen)
	})
}
