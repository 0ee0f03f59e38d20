package lock_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

func TestOnceRunsASlotOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		a, b := lock.NewOnce(newClient(t, store), "job"), lock.NewOnce(newClient(t, store), "job")
		requireState(t, a, lock.StateNone)
		var token uint64
		ran, err := a.Do(t.Context(), "slot", func(_ context.Context, l *lease.Lease) error {
			token = l.Token()
			running := requireState(t, b, lock.StateRunning)
			require.Equal(t, token, running.Token)
			require.Zero(t, running.Ended)
			time.Sleep(time.Minute)
			return nil
		})
		require.NoError(t, err)
		require.True(t, ran)
		for _, o := range []*lock.Once{a, b} {
			ran, err = o.Do(t.Context(), "slot", mustNotRun(t))
			require.NoError(t, err)
			require.False(t, ran)
		}
		done := requireState(t, b, lock.StateDone)
		require.Equal(t, token, done.Token)
		require.Equal(t, time.Minute, done.Ended.Sub(done.Started))
		require.Equal(t, 1, done.Attempt)
		require.NotEmpty(t, done.Owner)
		ran, err = b.Do(t.Context(), "other slot", nop)
		require.NoError(t, err)
		require.True(t, ran)
	})
}

func TestOnceRefusesASlotThatRunsElsewhere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		a, b := lock.NewOnce(newClient(t, store), "job"), lock.NewOnce(newClient(t, store), "job")
		_, err := a.Do(t.Context(), "slot", func(ctx context.Context, _ *lease.Lease) error {
			for _, o := range []*lock.Once{a, b} {
				ran, err := o.Do(ctx, "slot", mustNotRun(t))
				require.ErrorIs(t, err, lease.ErrHeld)
				require.False(t, ran)
				require.ErrorIs(t, o.Forget(ctx, "slot"), lease.ErrHeld)
			}
			return nil
		})
		require.NoError(t, err)
	})
}

func TestOnceWaitsOnRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		a, b := lock.NewOnce(newClient(t, store), "job", lock.Wait()), lock.NewOnce(newClient(t, store), "job", lock.Wait())
		type answer struct {
			ran   bool
			err   error
			after time.Duration
		}
		answers := make(chan answer, 2)
		began := time.Now()
		_, err := a.Do(t.Context(), "slot", func(context.Context, *lease.Lease) error {
			for _, o := range []*lock.Once{a, b} { // of the same process and of another
				go func() {
					ran, err := o.Do(t.Context(), "slot", mustNotRun(t))
					answers <- answer{ran, err, time.Since(began)}
				}()
			}
			time.Sleep(time.Minute)
			return nil
		})
		require.NoError(t, err)
		for range 2 {
			got := <-answers
			require.NoError(t, got.err)
			require.False(t, got.ran)
			require.GreaterOrEqual(t, got.after, time.Minute)
			require.Less(t, got.after, time.Minute+2*time.Second)
		}
		requireState(t, b, lock.StateDone)
	})
}

func TestOnceRecordsAFailureAndRetriesItOnRequestOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newClient(t, memkv.New())
		o := lock.NewOnce(client, "job")
		failure := errors.New(strings.Repeat("é", 2000))
		ran, err := o.Do(t.Context(), "slot", func(context.Context, *lease.Lease) error { return failure })
		require.ErrorIs(t, err, failure)
		require.True(t, ran)
		require.Len(t, requireState(t, o, lock.StateFailed).Error, 1024)

		ran, err = o.Do(t.Context(), "slot", mustNotRun(t))
		require.False(t, ran)
		require.ErrorIs(t, err, lock.ErrFailed)
		require.NotErrorIs(t, err, lock.ErrAbandoned)
		var finished *lock.FinishedError
		require.ErrorAs(t, err, &finished)
		require.Equal(t, "slot", finished.Slot)
		require.ErrorContains(t, err, "é")

		ran, err = lock.NewOnce(client, "job", lock.RetryFailed()).Do(t.Context(), "slot", nop)
		require.NoError(t, err)
		require.True(t, ran)
		done := requireState(t, o, lock.StateDone)
		require.Equal(t, 2, done.Attempt)
		require.Empty(t, done.Error)
	})
}

func TestOnceRecordsAPanicAndPassesItOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := lock.NewOnce(newClient(t, memkv.New()), "job")
		require.PanicsWithValue(t, errLost, func() {
			_, _ = o.Do(t.Context(), "slot", func(context.Context, *lease.Lease) error { panic(errLost) })
		})
		require.Equal(t, "panic: answer lost", requireState(t, o, lock.StateFailed).Error)
	})
}

func TestOnceRecordsTheEndOfItsGoroutine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := lock.NewOnce(newClient(t, memkv.New()), "job")
		go func() {
			_, _ = o.Do(t.Context(), "slot", func(context.Context, *lease.Lease) error {
				runtime.Goexit()
				return nil
			})
			t.Error("Do returned")
		}()
		synctest.Wait()
		require.Contains(t, requireState(t, o, lock.StateFailed).Error, "goroutine")
	})
}

func TestOnceSaysThatItsLeaseWasLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		o := lock.NewOnce(newClient(t, store), "job")
		ran, err := o.Do(t.Context(), "slot", func(ctx context.Context, _ *lease.Lease) error {
			sessions, err := store.List(ctx, "session/")
			require.NoError(t, err)
			require.NoError(t, store.Delete(ctx, sessions[0].Key))
			<-ctx.Done()
			var lost *lease.LostError
			require.ErrorAs(t, context.Cause(ctx), &lost)
			return nil
		})
		require.True(t, ran)
		require.ErrorIs(t, err, lease.ErrLost)
		requireState(t, o, lock.StateAbandoned)
	})
}

func TestOnceRecordsTheOutcomeWhileCloseWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		client := newClient(t, store)
		ran, err := lock.NewOnce(client, "job").Do(t.Context(), "slot", func(ctx context.Context, _ *lease.Lease) error {
			go closeSoon(client)
			<-ctx.Done()
			return nil
		})
		require.True(t, ran)
		require.NoError(t, err)
		synctest.Wait()
		requireState(t, lock.NewOnce(newClient(t, store), "job"), lock.StateDone)
	})
}

func TestOnceRefusesToRecordForAFunctionThatReleased(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := lock.NewOnce(newClient(t, memkv.New()), "job")
		ran, err := o.Do(t.Context(), "slot", func(ctx context.Context, l *lease.Lease) error { return l.Release(ctx) })
		require.True(t, ran)
		require.ErrorIs(t, err, lease.ErrNotHeld)
		requireState(t, o, lock.StateAbandoned)
	})
}
