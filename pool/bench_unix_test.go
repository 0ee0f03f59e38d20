//go:build unix

package pool_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/pool"
)

// cpu is how long this process has had a processor.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// benchPool makes a pool of n partitions on memkv, by a client of its own each.
func benchPool(b *testing.B, n int) func(handle pool.Handler, options ...pool.Option) *pool.Pool {
	store := memkv.New()
	make1 := func(handle pool.Handler, options ...pool.Option) *pool.Pool {
		c, err := lease.New(store)
		require.NoError(b, err)
		b.Cleanup(func() { require.NoError(b, c.Close(context.Background())) })
		p, err := pool.New(c, "p", handle, options...)
		require.NoError(b, err)
		return p
	}
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("%05d", i)
	}
	require.NoError(b, make1(nil).Add(b.Context(), names...))
	return make1
}

// A second member joins, and gets half of the partitions. Each is a move.
func BenchmarkMoves(b *testing.B) {
	for _, n := range []int{100, 1000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var used time.Duration
			for range b.N {
				used += movesHalf(b, n)
			}
			b.ReportMetric(float64(used.Microseconds())/float64(b.N*(n/2)), "cpu-µs/move")
		})
	}
}

func movesHalf(b *testing.B, n int) time.Duration {
	join := benchPool(b, n)
	ctx, stop := context.WithCancel(b.Context())
	defer stop()
	ended := make(chan error, 2)
	member := func() *atomic.Int64 {
		works := new(atomic.Int64)
		p := join(func(_ context.Context, w *pool.Work) error {
			works.Add(1)
			<-w.Draining()
			works.Add(-1)
			return nil
		}, pool.WithPlanInterval(time.Second), pool.WithMinResidency(0), pool.WithMaxMoves(100))
		go func() { ended <- p.Run(ctx) }()
		return works
	}
	await := func(works *atomic.Int64, want int) {
		for works.Load() < int64(want) {
			time.Sleep(time.Millisecond)
		}
	}
	await(member(), n)
	before := cpu(b)
	await(member(), n/2)
	used := cpu(b) - before
	stop()
	require.NoError(b, <-ended)
	require.NoError(b, <-ended)
	return used
}

// One member that may have 16 partitions at a time finishes 2,000, one at a time:
// the worker of examples/competing-consumers, without its work.
func BenchmarkBatch(b *testing.B) {
	const n = 2000
	for range b.N {
		b.StopTimer()
		join := benchPool(b, n)
		var turn atomic.Int64
		p := join(func(context.Context, *pool.Work) error {
			turn.Add(1)
			return pool.ErrDone
		}, pool.WithMaxPartitions(16), pool.WithPlanInterval(250*time.Millisecond))
		b.StartTimer()
		require.NoError(b, p.Run(b.Context()))
		b.StopTimer()
		require.EqualValues(b, n, turn.Load())
		b.StartTimer()
	}
	b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "entries/s")
}
