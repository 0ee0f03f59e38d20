package lock_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

// A store that says nothing from the n-th call on lease rows does not keep a call
// beyond its time, whatever that has written and has to give back.
func TestACallThatGivesUpDoesNotWaitForAStoreThatIsSilent(t *testing.T) {
	t.Parallel()
	const tries, patience = 3 * time.Second, 20 * time.Second
	for name, test := range map[string]struct {
		get func(ctx context.Context, c *lease.Client) error
		// within is when it ends, and more what giving back may take then.
		within, more time.Duration
	}{
		"TryRLock": {func(ctx context.Context, c *lease.Client) error {
			_, err := lock.NewRWMutex(c, "m").TryRLock(ctx)
			return err
		}, tries, time.Millisecond},
		"TryLock": {func(ctx context.Context, c *lease.Client) error {
			_, err := lock.NewRWMutex(c, "m").TryLock(ctx)
			return err
		}, tries, time.Millisecond},
		"RLock": {func(ctx context.Context, c *lease.Client) error {
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			_, err := lock.NewRWMutex(c, "m").RLock(ctx)
			return err
		}, patience, time.Second},
		"Lock": {func(ctx context.Context, c *lease.Client) error {
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			_, err := lock.NewRWMutex(c, "m").Lock(ctx)
			return err
		}, patience, time.Second},
		"Multi.Lock": {func(ctx context.Context, c *lease.Client) error {
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			_, err := lock.NewMulti(c, []string{"a", "b", "c"}).Lock(ctx)
			return err
		}, patience, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for n := int64(1); n <= 4; n++ {
				synctest.Test(t, func(t *testing.T) {
					store := memkv.New()
					var calls atomic.Int64
					var heard atomic.Bool
					c := newClient(t, kv.Instrument(store, func(
						ctx context.Context, call kv.Call, next func(context.Context) error,
					) error {
						if strings.HasPrefix(call.Key, "session/") || heard.Load() || calls.Add(1) < n {
							return next(ctx)
						}
						<-ctx.Done()
						return &kv.UncertainError{Key: call.Key, Err: ctx.Err()}
					}), lease.WithTTL(time.Minute))
					heard.Store(true)
					require.NoError(t, lock.NewMutex(c, "warm").Do(t.Context(), nop))
					require.NoError(t, lock.NewRWMutex(c, "m").RDo(t.Context(), readNothing))
					heard.Store(false)
					began := time.Now()
					if test.get(t.Context(), c) == nil {
						return // there are no more calls
					}
					require.GreaterOrEqual(t, time.Since(began), test.within)
					require.LessOrEqual(t, time.Since(began), test.within+test.more)
					heard.Store(true)
					time.Sleep(time.Minute)
					other := newClient(t, store)
					_, err := lock.NewRWMutex(other, "m").TryLock(t.Context())
					require.NoError(t, err, "it was given back")
					_, err = lock.NewMulti(other, []string{"a", "b", "c"}).TryLock(t.Context())
					require.NoError(t, err, "it was given back")
				})
			}
		})
	}
}
