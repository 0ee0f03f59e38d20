package lease_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// The sixteenth is there for holders with another margin than this version's,
// which covers the rates of the clocks by itself.
func TestR10ContenderWaitsForTheHoldersTTLAndASixteenthOfIt(t *testing.T) {
	t.Parallel()
	for _, holders := range []time.Duration{lease.MinTTL, ttl, 6 * ttl} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			a, link := w.client("a", lease.WithTTL(holders))
			b, contender := w.client("b")
			w.acquire(a, "key")
			link.SetCut(true)
			_, err := b.TryAcquire(t.Context(), "key")
			require.ErrorIs(t, err, lease.ErrHeld)
			time.Sleep(holders + holders/16 - time.Millisecond)
			_, err = b.TryAcquire(t.Context(), "key")
			require.ErrorIs(t, err, lease.ErrHeld)
			require.Zero(t, contender.Take()["AtomicDelete"])
			time.Sleep(time.Millisecond)
			require.True(t, w.acquire(b, "key").TakenOver())
		})
	}
}

func TestR10SessionThatBeatsIsNeverKilled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, contender := w.client("b")
		l := w.acquire(a, "key")
		for range 100 {
			_, err := b.TryAcquire(t.Context(), "key")
			require.ErrorIs(t, err, lease.ErrHeld)
			time.Sleep(ttl / 7)
		}
		require.Zero(t, contender.Take()["AtomicDelete"])
		require.True(t, l.Held())
	})
}

func TestR9OfTwoWhoTakeOverTheSlowerOneWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		b, slower := w.client("b")
		c, _ := w.client("c")
		old := w.acquire(a, "key")
		link.SetCut(true)
		_, err := b.TryAcquire(t.Context(), "key")
		require.ErrorIs(t, err, lease.ErrHeld)
		time.Sleep(ttl + ttl/16)
		var faster *lease.Lease
		slower.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			err := next(ctx)
			if call.Op == "AtomicDelete" && faster == nil { // b has killed a's session and has not yet written the key's row
				faster = w.acquire(c, "key")
			}
			return err
		})
		_, err = b.TryAcquire(t.Context(), "key")
		var held *lease.HeldError
		require.ErrorAs(t, err, &held)
		require.Equal(t, faster.Token(), held.Holder.Token)
		require.True(t, faster.Held())
		require.Greater(t, faster.Token(), old.Token())
		require.NoError(t, faster.Release(t.Context()))
		require.Empty(t, w.rows("lease/"))
	})
}

func TestR10KillOfUnknownOutcomeIsNoProof(t *testing.T) {
	t.Parallel()
	for _, landed := range []bool{false, true} {
		t.Run(map[bool]string{false: "lost", true: "landed"}[landed], func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				a, link := w.client("a")
				b, contender := w.client("b")
				old := w.acquire(a, "key")
				link.SetCut(true)
				_, err := b.TryAcquire(t.Context(), "key")
				require.ErrorIs(t, err, lease.ErrHeld)
				time.Sleep(patience)
				var kills atomic.Int64
				contender.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
					if call.Op != "AtomicDelete" || kills.Add(1) > 1 {
						return next(ctx)
					}
					if landed {
						require.NoError(t, next(ctx))
					}
					return &kv.UncertainError{Key: call.Key, Err: errLost}
				})
				_, err = b.TryAcquire(t.Context(), "key")
				require.ErrorIs(t, err, kv.ErrUncertain)
				require.Equal(t, old.Token(), inspect(t, b, "key").Token,
					"nothing is taken over before the session is known to be dead")
				l, err := b.TryAcquire(t.Context(), "key")
				require.NoError(t, err)
				require.True(t, l.TakenOver())
				require.EqualValues(t, map[bool]int{false: 2, true: 1}[landed], kills.Load())
			})
		})
	}
}
