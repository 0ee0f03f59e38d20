package retry_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/retry"
	"github.com/dynalock/dynalock/kv"
)

var errStore = errors.New("the store fails")

func TestUntilKnownRepeatsWithPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, calls := time.Now(), 0
		err := retry.UntilKnown(t.Context(), clock.System, func() error {
			if calls++; calls < 20 {
				return errStore
			}
			return nil
		})
		require.NoError(t, err)
		require.Equal(t, 20, calls)
		require.InDelta(t, 5*time.Minute, time.Since(began), float64(3*time.Minute), "100 ms growing to 30 s")
	})
}

func TestUntilKnownStopsAtWhatRepeatingDoesNotMend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		err := retry.UntilKnown(t.Context(), clock.System, func() error { return retry.Stop(errStore) })
		require.Equal(t, errStore, err)
		require.Zero(t, time.Since(began))
	})
}

func TestUntilKnownGoesAgainAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, calls := time.Now(), 0
		err := retry.UntilKnown(t.Context(), clock.System, func() error {
			if calls++; calls < 3 {
				return fmt.Errorf("changed: %w", retry.ErrAgain)
			}
			return nil
		})
		require.NoError(t, err)
		require.Zero(t, time.Since(began))
	})
}

func TestUntilKnownEndsWithItsContextAndSaysWhatFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, fails := range []error{errStore, retry.ErrAgain} {
			ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, context.DeadlineExceeded)
			err := retry.UntilKnown(ctx, clock.System, func() error {
				if ctx.Err() == nil && errors.Is(fails, retry.ErrAgain) {
					<-ctx.Done()
				}
				return fails
			})
			cancel()
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorIs(t, err, fails)
		}
	})
}

func TestPermanentErrorsAreTheStoresAndTheCallersOwn(t *testing.T) {
	t.Parallel()
	own := errors.New("own")
	for err, permanent := range map[error]bool{
		kv.ErrTooLarge: true, kv.ErrClosed: true, kv.ErrFormat: true, kv.ErrUnsupported: true, kv.ErrInvalidKey: true,
		kv.ErrThrottled: false, kv.ErrUncertain: false, errStore: false, own: true,
	} {
		require.Equal(t, permanent, retry.IsPermanent(fmt.Errorf("wrapped: %w", err), own), "%v", err)
	}
	require.False(t, retry.IsPermanent(own))
	require.False(t, retry.IsPermanent(nil))
}
