package lease_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

func TestTryAcquireHeldErrorAlwaysNamesAHolder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Op == "AtomicPut" && call.Key == "lease/key" {
				return &kv.ConflictError{Key: call.Key, Create: true} // others were faster, and have gone again
			}
			return next(ctx)
		})
		_, err := a.TryAcquire(t.Context(), "key")
		var held *lease.HeldError
		require.ErrorAs(t, err, &held)
	})
}

func TestTryAcquireNamesAHolderOrGrants(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a", lease.WithHeartbeat(4*time.Second))
		require.NoError(t, w.acquire(a, "other").Release(t.Context()))
		link.delay("AtomicPut", 900*time.Millisecond) // slow, but within every bound
		_, err := a.TryAcquire(t.Context(), "key", lease.WithMinRemaining(4600*time.Millisecond))
		var held *lease.HeldError
		if errors.Is(err, lease.ErrHeld) {
			require.ErrorAs(t, err, &held, "%v", err)
		}
	})
}
