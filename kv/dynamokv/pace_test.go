package dynamokv_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/dynamomem"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/dynamokv"
)

// hot is a partition that takes 100 writes a second, and answers after 5 ms.
type hot struct {
	server            *dynamomem.Server
	served, throttled atomic.Int64
}

func newHot() *hot {
	h := &hot{server: newMem()}
	h.server.Limit(dynamomem.Throughput{Writes: 100, Reads: 300, Burst: time.Second}, clock.System)
	return h
}

func (h *hot) store(t *testing.T, options ...dynamokv.Option) *dynamokv.Store {
	t.Helper()
	s, client := memStore(t, h.server, options...)
	client.Inject(func(ctx context.Context, _ dynamomem.Call, apply dynamomem.Apply) (any, error) {
		time.Sleep(5 * time.Millisecond)
		out, err := apply()
		if dynamomem.IsThrottled(err) {
			h.throttled.Add(1)
		} else {
			h.served.Add(1)
		}
		return out, err
	})
	return s
}

// flood writes with n goroutines at a time, each anew as soon as it has an
// answer, until stop is called. It counts the writes that were applied.
func flood(t *testing.T, s kv.Store, n int) (applied *atomic.Int64, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	applied = new(atomic.Int64)
	for i := range n {
		all.Go(func() {
			for ctx.Err() == nil {
				if s.Put(ctx, fmt.Sprint("flood-", i)) == nil {
					applied.Add(1)
				}
			}
		})
	}
	stop = func() { cancel(); all.Wait() }
	t.Cleanup(stop)
	return applied, stop
}

// hurry begins a thousand writes a second, ten for each that is served, which give
// up after a tenth of a second.
func hurry(t *testing.T, s kv.Store) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			time.Sleep(time.Duration(i) * time.Millisecond)
			for ctx.Err() == nil {
				ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
				_ = s.Put(ctx, fmt.Sprint("hurry-", i))
				<-ctx.Done()
				cancel()
			}
		})
	}
	t.Cleanup(func() { cancel(); all.Wait() })
}

func TestAStoreSendsAsMuchAsItsPartitionServes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHot()
		flood(t, h.store(t), 200)
		time.Sleep(10 * time.Second)
		h.served.Store(0)
		h.throttled.Store(0)
		time.Sleep(20 * time.Second)
		require.InDelta(t, 2000, h.served.Load(), 200, "of 2,000 that the partition has units for")
		require.Less(t, h.throttled.Load(), int64(400))
	})
}

func TestStoresShareAPartitionThatThrottles(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHot()
		var counts []*atomic.Int64
		for range 5 {
			applied, _ := flood(t, h.store(t), 50)
			counts = append(counts, applied)
		}
		time.Sleep(20 * time.Second)
		for _, n := range counts {
			n.Store(0)
		}
		time.Sleep(40 * time.Second)
		for _, n := range counts {
			require.InDelta(t, 800, n.Load(), 400, "of a fifth")
		}
	})
}

func TestAnUrgentWriteWaitsForNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHot()
		s := h.store(t)
		pair, err := s.AtomicPut(t.Context(), "session")
		require.NoError(t, err)
		flood(t, s, 500)
		time.Sleep(5 * time.Second)
		for range 20 {
			began := time.Now()
			pair, err = s.AtomicPut(t.Context(), "session", kv.WithPrevious(pair), kv.Urgent())
			require.NoError(t, err)
			require.Less(t, time.Since(began), time.Second)
			time.Sleep(time.Second)
		}
	})
}

// Others that do not hold back leave an urgent write one attempt in fifty.
func TestAnUrgentWriteIsTriedOften(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := newMem()
		s, client := memStore(t, server)
		client.Inject(func(ctx context.Context, c dynamomem.Call, apply dynamomem.Apply) (any, error) {
			if c.Number%50 != 0 {
				return dynamomem.Refused(400, "ThrottlingException")(ctx, c, apply)
			}
			return apply()
		})
		began := time.Now()
		_, err := s.AtomicPut(t.Context(), "session", kv.Urgent())
		require.NoError(t, err)
		require.Less(t, time.Since(began), 5*time.Second)
	})
}

func TestAReleaseComesBeforeWhatIsOnlyBegun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHot()
		s := h.store(t)
		var pairs []*kv.KVPair
		for i := range 20 {
			pair, err := s.AtomicPut(t.Context(), fmt.Sprint("lease-", i))
			require.NoError(t, err)
			pairs = append(pairs, pair)
		}
		_, stop := flood(t, s, 100) // makes it slow
		time.Sleep(5 * time.Second)
		stop()
		hurry(t, s)
		for _, pair := range pairs {
			began := time.Now()
			require.NoError(t, s.AtomicDelete(t.Context(), pair.Key, pair))
			require.Less(t, time.Since(began), time.Second)
		}
	})
}

func TestWhoseTurnComesTooLateIsThrottled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHot()
		s := h.store(t)
		flood(t, s, 500)
		time.Sleep(5 * time.Second)
		refused := 0
		for i := range 50 {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
			if _, err := s.AtomicPut(ctx, fmt.Sprint("short-", i)); err != nil {
				requireOnly(t, err, kv.ErrThrottled)
				refused++
			}
			cancel()
		}
		require.Positive(t, refused)
	})
}

func TestAStoreIsFastAgainSoonAfterTheLoadHasFallen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHot()
		var stores []*dynamokv.Store
		var stops []func()
		for range 20 { // so that each has little
			s := h.store(t)
			_, stop := flood(t, s, 50)
			stores, stops = append(stores, s), append(stops, stop)
		}
		time.Sleep(20 * time.Second)
		for _, stop := range stops {
			stop()
		}
		began, n := time.Now(), 0
		for time.Since(began) < 20*time.Second {
			require.NoError(t, stores[0].Put(t.Context(), "key"))
			n++
		}
		require.Greater(t, n, 1500, "of 2,000")
	})
}

func TestReadsAndOtherShardsAreNotHeldUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHot()
		s := h.store(t, dynamokv.WithShards(4))
		other := "other"
		for i := 0; dynamokv.ShardOf(s, other) == dynamokv.ShardOf(s, "flood-0"); i++ {
			other = fmt.Sprint("other-", i)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for range 200 {
			all.Go(func() {
				for ctx.Err() == nil {
					_ = s.Put(ctx, "flood-0")
				}
			})
		}
		time.Sleep(5 * time.Second)
		began := time.Now()
		for range 10 {
			require.NoError(t, s.Put(t.Context(), other))
			_, err := s.Get(t.Context(), "flood-0")
			require.NoError(t, err)
		}
		require.Equal(t, 100*time.Millisecond, time.Since(began), "20 requests of 5 ms")
		cancel()
		all.Wait()
	})
}
