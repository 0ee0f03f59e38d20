package lock_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

// As a scheduler's locker uses it: three schedulers whose clocks are 50 ms apart
// run a job of 10 ms at every tick.
func TestWithMinHoldRunsAShortJobOncePerTick(t *testing.T) {
	t.Parallel()
	const ticks, apart = 10, 50 * time.Millisecond
	for minHold, want := range map[time.Duration]int32{time.Second: ticks, time.Millisecond: 3 * ticks} {
		synctest.Test(t, func(t *testing.T) {
			store := memkv.New()
			var runs atomic.Int32
			var wait sync.WaitGroup
			for i := range 3 {
				m := lock.NewMutex(newClient(t, store), "job", lease.WithMinHold(minHold))
				wait.Go(func() {
					time.Sleep(time.Duration(i) * apart)
					for range ticks {
						if err := m.TryDo(t.Context(), func(context.Context, *lease.Lease) error {
							runs.Add(1)
							time.Sleep(10 * time.Millisecond)
							return nil
						}); err != nil && !errors.Is(err, lease.ErrHeld) {
							t.Error(err)
						}
						time.Sleep(time.Minute - 10*time.Millisecond)
					}
				})
			}
			wait.Wait()
			require.Equal(t, want, runs.Load(), "min-hold %v", minHold)
		})
	}
}
