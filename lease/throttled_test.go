package lease_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/dynamomem"
	"github.com/dynalock/dynalock/kv/dynamokv"
	"github.com/dynalock/dynalock/lease"
)

// Five processes, each with forty goroutines that lock and unlock, want ten times
// as much of a partition as it has.
func TestHeartbeatsGetThroughAPartitionThatLocksSaturate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := dynamomem.New()
		server.CreateTable("table", "id", "name")
		server.Limit(dynamomem.Throughput{Writes: 50, Reads: 150, Burst: time.Second}, clock.System)
		ctx, stop := context.WithCancel(t.Context())
		var all sync.WaitGroup
		defer all.Wait()
		defer stop()
		var kept []*lease.Lease
		var mu sync.Mutex
		var slowest time.Duration
		cycles := 0
		observe := func(e lease.Event) {
			mu.Lock()
			defer mu.Unlock()
			slowest = max(slowest, e.Took)
		}
		for range 5 {
			wire := server.Client()
			wire.Inject(func(_ context.Context, _ dynamomem.Call, apply dynamomem.Apply) (any, error) {
				time.Sleep(5 * time.Millisecond)
				return apply()
			})
			store, err := dynamokv.New(wire, "table")
			require.NoError(t, err)
			c, err := lease.New(store, lease.WithObserver(observe), lease.WithLogger(slog.New(slog.DiscardHandler)))
			require.NoError(t, err)
			t.Cleanup(func() { _ = c.Close(ctx) }) // the kept lease is not released
			l, err := c.Acquire(ctx, fmt.Sprintf("kept by %p", c))
			require.NoError(t, err)
			kept = append(kept, l)
			for i := range 40 {
				all.Go(func() {
					for ctx.Err() == nil {
						l, err := c.TryAcquire(ctx, fmt.Sprintf("%p/%d", c, i))
						if err == nil && l.Release(ctx) == nil {
							mu.Lock()
							cycles++
							mu.Unlock()
						}
					}
				})
			}
		}
		time.Sleep(2 * time.Minute)
		for _, l := range kept {
			require.NoError(t, l.Err())
		}
		mu.Lock()
		require.Less(t, slowest, 2*time.Second, "of all heartbeats")
		require.InDelta(t, 3000, cycles, 450, "that the partition has units for")
		mu.Unlock()
	})
}
