package lock_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

// Whichever request a call is at when the client is closed, the call ends at once
// and says why.
func TestACallThatCloseInterruptsSaysSo(t *testing.T) {
	t.Parallel()
	for name, get := range map[string]func(ctx context.Context, c *lease.Client) error{
		"Semaphore.Acquire": func(ctx context.Context, c *lease.Client) error {
			_, err := lock.NewSemaphore(c, "s", 2).Acquire(ctx)
			return err
		},
		"Semaphore.TryAcquire": func(ctx context.Context, c *lease.Client) error {
			_, err := lock.NewSemaphore(c, "s", 2).TryAcquire(ctx)
			return err
		},
		"Multi.Lock": func(ctx context.Context, c *lease.Client) error {
			_, err := lock.NewMulti(c, []string{"a", "b", "c"}).Lock(ctx)
			return err
		},
		"Multi.TryLock": func(ctx context.Context, c *lease.Client) error {
			_, err := lock.NewMulti(c, []string{"a", "b", "c"}).TryLock(ctx)
			return err
		},
		"RLock": func(ctx context.Context, c *lease.Client) error {
			_, err := lock.NewRWMutex(c, "m").RLock(ctx)
			return err
		},
		"Lock": func(ctx context.Context, c *lease.Client) error {
			_, err := lock.NewRWMutex(c, "m").Lock(ctx)
			return err
		},
		"TryRLock": func(ctx context.Context, c *lease.Client) error {
			_, err := lock.NewRWMutex(c, "m").TryRLock(ctx)
			return err
		},
		"TryLock": func(ctx context.Context, c *lease.Client) error {
			_, err := lock.NewRWMutex(c, "m").TryLock(ctx)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, warm := range []bool{false, true} {
				for at := 1; ; at++ {
					reached := false
					synctest.Test(t, func(t *testing.T) {
						var c *lease.Client
						calls := -1 // not counted yet
						hook := func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
							if calls < 0 || strings.HasPrefix(call.Key, "session/") {
								return next(ctx)
							}
							if calls++; calls != at {
								return next(ctx)
							}
							reached = true
							go closeSoon(c)
							select {
							case <-ctx.Done():
								return ctx.Err() // it was not sent
							case <-time.After(time.Minute):
								return kv.ErrUnavailable
							}
						}
						c = newClient(t, kv.Instrument(memkv.New(), hook))
						if warm {
							require.NoError(t, lock.NewMutex(c, "warm").Do(t.Context(), nop))
						}
						calls = 0
						began := time.Now()
						err := get(t.Context(), c)
						if !reached {
							return
						}
						require.ErrorIs(t, err, lease.ErrClosed, "request %d", at)
						require.Zero(t, time.Since(began), "request %d", at)
					})
					if !reached {
						break
					}
				}
			}
		})
	}
}

// The number of permits is read first, which takes no longer than the rest.
func TestSemaphoreTryEndsInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, kv.Instrument(memkv.New(),
			func(ctx context.Context, call kv.Call, _ func(context.Context) error) error {
				<-ctx.Done()
				return &kv.UncertainError{Key: call.Key, Err: ctx.Err()}
			}))
		began := time.Now()
		ctx, cancel := context.WithCancel(t.Context()) // no deadline
		defer cancel()
		time.AfterFunc(time.Minute, cancel)
		_, err := lock.NewSemaphore(c, "s", 2).TryAcquire(ctx)
		require.ErrorIs(t, err, kv.ErrUncertain)
		require.Equal(t, 3*time.Second, time.Since(began))
	})
}
