package lock_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

// A job that was stopped politely is no worse off than one that was killed.
func TestOnceThatIsInterruptedIsAbandonedAndNotFailed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		first := newClient(t, store)
		ctx, stop := context.WithCancel(t.Context())
		time.AfterFunc(time.Minute, stop) // SIGTERM
		ran, err := lock.NewOnce(first, "job").Do(ctx, "slot", func(ctx context.Context, _ *lease.Lease) error {
			<-ctx.Done()
			return errors.New("half done")
		})
		require.True(t, ran)
		require.ErrorContains(t, err, "half done")
		plain := lock.NewOnce(newClient(t, store), "job")
		found := requireState(t, plain, lock.StateAbandoned)
		require.Equal(t, "interrupted: half done", found.Error)
		require.False(t, found.Ended.IsZero())
		_, err = plain.Do(t.Context(), "slot", mustNotRun(t))
		require.ErrorIs(t, err, lock.ErrAbandoned, "who has not asked to take over is told")
		ran, err = lock.NewOnce(newClient(t, store), "job", lock.TakeOver()).Do(t.Context(), "slot", nop)
		require.NoError(t, err)
		require.True(t, ran)
		require.Equal(t, 2, requireState(t, plain, lock.StateDone).Attempt)
	})
}

func TestOnceThatCloseInterruptsIsAbandoned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		first := newClient(t, store)
		time.AfterFunc(time.Minute, func() { _ = first.Close(context.Background()) })
		_, err := lock.NewOnce(first, "job").Do(t.Context(), "slot", func(ctx context.Context, _ *lease.Lease) error {
			<-ctx.Done()
			return ctx.Err()
		})
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, "interrupted: context canceled",
			requireState(t, lock.NewOnce(newClient(t, store), "job"), lock.StateAbandoned).Error)
	})
}

func TestOnceThatEndsInOrderAfterItsContextIsDone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		o := lock.NewOnce(newClient(t, store), "job")
		ctx, stop := context.WithCancel(t.Context())
		_, err := o.Do(ctx, "slot", func(context.Context, *lease.Lease) error {
			stop()
			return nil // it was at its end anyway
		})
		require.NoError(t, err)
		requireState(t, o, lock.StateDone)
	})
}

func TestOnceThatFailsByItselfIsFailed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		o := lock.NewOnce(newClient(t, store), "job", lock.TakeOver())
		_, err := o.Do(t.Context(), "slot", func(context.Context, *lease.Lease) error { return errors.New("no") })
		require.ErrorContains(t, err, "no")
		requireState(t, o, lock.StateFailed)
		_, err = o.Do(t.Context(), "slot", mustNotRun(t))
		require.ErrorIs(t, err, lock.ErrFailed)
	})
}
