package lease_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// requireForgotten checks that a client remembers nothing of what has ended.
func requireForgotten(t *testing.T, c *lease.Client) {
	t.Helper()
	synctest.Wait()
	for what, n := range lease.Remembered(c) {
		require.Zero(t, n, what)
	}
}

// A client lives as long as its process, and so would what it does not forget.
func TestClientForgetsWhatHasEnded(t *testing.T) {
	t.Parallel()
	for name, run := range map[string]func(t *testing.T, w *world, a *lease.Client, link *link){
		"leases": func(t *testing.T, w *world, a *lease.Client, _ *link) {
			l, err := a.Acquire(t.Context(), "key", lease.WithMaxHold(time.Minute), lease.KeepValue())
			require.NoError(t, err)
			require.NoError(t, l.Update(t.Context(), []byte("v")))
			require.NoError(t, l.Release(t.Context()))
			w.turn(a, "other")
		},
		"leases that are held too long": func(t *testing.T, _ *world, a *lease.Client, _ *link) {
			_, err := a.Acquire(t.Context(), "key", lease.WithMaxHold(time.Minute))
			require.NoError(t, err)
			time.Sleep(2 * time.Minute)
		},
		"leases that were broken": func(t *testing.T, w *world, a *lease.Client, _ *link) {
			w.acquire(a, "key")
			require.NoError(t, a.Break(t.Context(), inspect(t, a, "key")))
			time.Sleep(ttl)
		},
		"handovers": func(t *testing.T, w *world, a *lease.Client, _ *link) {
			l := w.acquire(a, "key")
			got := waitFor(t.Context(), a, "key")
			synctest.Wait()
			require.NoError(t, l.Release(t.Context()))
			require.NoError(t, (<-got).Release(t.Context()))
		},
		"calls that failed": func(t *testing.T, w *world, a *lease.Client, _ *link) {
			b, _ := w.client("b")
			w.acquire(b, "key")
			for range 10 {
				_, err := a.TryAcquire(t.Context(), "key")
				require.ErrorIs(t, err, lease.ErrHeld)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				_, err = a.Acquire(ctx, "key")
				require.ErrorIs(t, err, context.DeadlineExceeded)
				cancel()
			}
		},
		"sessions": func(t *testing.T, w *world, a *lease.Client, link *link) {
			for range 3 {
				l := w.acquire(a, "key")
				link.SetCut(true)
				requireLost(t, l)
				link.SetCut(false)
				require.ErrorIs(t, l.Release(t.Context()), lease.ErrLost)
				time.Sleep(2 * ttl)
			}
		},
		"heartbeats without an answer": func(t *testing.T, w *world, a *lease.Client, link *link) {
			w.turn(a, "key")
			for range 3 {
				link.LoseAnswer("AtomicPut", "session/")
				time.Sleep(ttl)
			}
		},
		"writes without an answer": func(t *testing.T, w *world, a *lease.Client, link *link) {
			w.turn(a, "warm")
			for range 3 {
				link.LoseAnswer("AtomicPut", "lease/key")
				_, err := a.TryAcquire(t.Context(), "key")
				require.ErrorIs(t, err, kv.ErrUncertain)
				time.Sleep(time.Minute)
				require.Empty(t, w.rows("lease/"), "each is looked after")
			}
		},
		"groups": func(t *testing.T, w *world, a *lease.Client, _ *link) {
			for i := range 200 {
				leave, err := a.Join(t.Context(), fmt.Sprint("group", i))
				require.NoError(t, err)
				leave()
				leave()
			}
			time.Sleep(ttl)
			for m, err := range a.Members(t.Context()) {
				require.NoError(t, err)
				require.Empty(t, m.Joined)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				a, link := w.client("a")
				run(t, w, a, link)
				requireForgotten(t, a)
			})
		})
	}
}

func TestR11MemoryOfOtherSessionsIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a", lease.WithTTL(time.Hour))
		const bound = 10_000
		for i := range bound + 100 {
			row := fmt.Sprintf(`{"f":2,"session":"dead%d","acq":"x"}`, i)
			require.NoError(t, w.store.Put(t.Context(), "lease/key", kv.WithString(row)))
			w.turn(a, "key")
		}
		require.Equal(t, bound, lease.Observed(a))
	})
}

func TestWithMetadataCopiesItsMap(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		metadata := map[string]string{"zone": "a"}
		a, _ := w.client("a", lease.WithMetadata(metadata))
		metadata["zone"], metadata["more"] = "b", "c"
		w.turn(a, "key")
		for m, err := range a.Members(t.Context()) {
			require.NoError(t, err)
			require.Equal(t, map[string]string{"zone": "a"}, m.Metadata)
			m.Metadata["zone"] = "d"
			clear(m.Joined)
		}
		time.Sleep(ttl) // heartbeats write it again
		for m, err := range a.Members(t.Context()) {
			require.NoError(t, err)
			require.Equal(t, map[string]string{"zone": "a"}, m.Metadata)
		}
	})
}

func TestReleaseWithCopiesItsValueForTheNextHolderHere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		l, err := a.TryAcquire(t.Context(), "key", lease.KeepValue())
		require.NoError(t, err)
		got := waitFor(t.Context(), a, "key")
		synctest.Wait()
		value := []byte("left")
		require.NoError(t, l.ReleaseWith(t.Context(), value))
		copy(value, "????")
		next := <-got
		require.NoError(t, next.err)
		require.Equal(t, "left", string(next.Value()))
		require.NoError(t, next.Release(t.Context()))
		require.Equal(t, "left", string(inspect(t, a, "key").Value))
	})
}

func TestReleaseWithCopiesItsValueForTheBackground(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		l, err := a.TryAcquire(t.Context(), "key", lease.KeepValue())
		require.NoError(t, err)
		link.SetIntercept(func(_ context.Context, call kv.Call, _ func(context.Context) error) error {
			return &kv.UncertainError{Key: call.Key, Err: errLost}
		})
		value := []byte("left")
		require.ErrorIs(t, l.ReleaseWith(t.Context(), value), kv.ErrUncertain)
		copy(value, "????")
		link.SetIntercept(nil)
		time.Sleep(time.Second)
		require.Equal(t, "left", string(inspect(t, a, "key").Value))
	})
}

func TestHeldErrorOfALocalHolderHasACopyOfItsValue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		l, err := a.TryAcquire(t.Context(), "key", lease.WithValue([]byte("value")), lease.KeepValue())
		require.NoError(t, err)
		_, err = a.TryAcquire(t.Context(), "key")
		var held *lease.HeldError
		require.ErrorAs(t, err, &held)
		require.Equal(t, "value", string(held.Holder.Value))
		copy(held.Holder.Value, "?????")
		require.Equal(t, "value", string(l.Value()))
		require.NoError(t, l.Release(t.Context()))
		require.Equal(t, "value", string(inspect(t, a, "key").Value))
	})
}
