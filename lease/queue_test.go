package lease_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// grace is that of the entries of these tests' clients: twice their longest poll.
const grace = 2 * time.Second

// leaseRow is what the row of "key" says, nil if there is none.
func (w *world) leaseRow() *rows.Lease {
	pair, err := w.store.Get(context.Background(), "lease/key")
	if errors.Is(err, kv.ErrKeyNotFound) {
		return nil
	}
	require.NoError(w.t, err)
	record, err := rows.DecodeLease(pair)
	require.NoError(w.t, err)
	return record
}

// queue are the names of those who wait, in order.
func (w *world) queue() []string {
	names := []string{}
	if record := w.leaseRow(); record != nil {
		for _, e := range record.Queue {
			names = append(names, e.Owner)
		}
	}
	return names
}

// queueUp lets clients with these names wait for the key, one after the other, until
// each has a place in the queue.
func (w *world) queueUp(names ...string) (got []<-chan grant, clients []*lease.Client, links []*link) {
	for i, name := range names {
		c, l := w.client(name, lease.WithTurnAfter(0))
		clients, links = append(clients, c), append(links, l)
		got = append(got, waitFor(w.t.Context(), c, "key"))
		time.Sleep(60 * time.Millisecond) // between two polls
		require.Equal(w.t, names[:i+1], w.queue()[len(w.queue())-i-1:])
	}
	return got, clients, links
}

// silent lets no call get through, until it is told to.
func (l *link) silent() (speak func()) {
	var over atomic.Bool
	l.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
		if over.Load() {
			return next(ctx)
		}
		_ = clock.Sleep(ctx, clock.System, time.Second)
		if call.Op == "Get" {
			return kv.ErrUnavailable
		}
		return &kv.UncertainError{Key: call.Key, Err: errLost}
	})
	return func() { over.Store(true) }
}

// take receives a grant, and how long that took.
func take(t *testing.T, got <-chan grant) (*lease.Lease, time.Duration) {
	t.Helper()
	began := time.Now()
	select {
	case g := <-got:
		require.NoError(t, g.err)
		return g.Lease, g.at.Sub(began)
	case <-time.After(time.Hour):
		require.Fail(t, "not granted")
		return nil, 0
	}
}

// hog acquires the key, holds it and releases it again and again, until the end of
// the test.
func (w *world) hog(c *lease.Client, hold time.Duration) (turns *atomic.Int64) {
	turns = &atomic.Int64{}
	ctx, stop := context.WithCancel(w.t.Context())
	done := make(chan struct{})
	w.t.Cleanup(func() { stop(); <-done })
	go func() {
		defer close(done)
		for {
			l, err := c.Acquire(ctx, "key")
			if err != nil {
				return
			}
			turns.Add(1)
			time.Sleep(hold)
			_ = l.Release(context.WithoutCancel(ctx))
		}
	}()
	return turns
}

func TestI15KeyIsGrantedInTheOrderOfTheQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("hog")
		turns := w.hog(a, 30*time.Second)
		time.Sleep(time.Second)
		names := []string{"b", "c", "d", "e", "f"}
		got, _, _ := w.queueUp(names...)
		before := turns.Load()
		for i, g := range got {
			l, waited := take(t, g)
			require.Less(t, waited, 32*time.Second)
			require.Equal(t, names[i+1:], slices.DeleteFunc(w.queue(), func(name string) bool { return name == "hog" }))
			time.Sleep(500 * time.Millisecond)
			require.NoError(t, l.Release(t.Context()))
		}
		require.Equal(t, before, turns.Load(), "the hog waits for its turn too")
		time.Sleep(3 * time.Second)
		require.Equal(t, before+1, turns.Load())
	})
}

// Six clients want one key all the time.
func TestR20TurnsAreShared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var turns []*atomic.Int64
		for i := range 6 {
			c, _ := w.client(fmt.Sprint(i), lease.WithTurnAfter(0))
			turns = append(turns, w.hog(c, 200*time.Millisecond))
		}
		time.Sleep(5 * time.Minute)
		least, greatest := turns[0].Load(), int64(0)
		for _, n := range turns {
			least, greatest = min(least, n.Load()), max(greatest, n.Load())
		}
		require.Greater(t, least, int64(10))
		require.LessOrEqual(t, float64(greatest), 1.5*float64(least), "%d to %d turns", least, greatest)
	})
}

func TestR20WaitsOfLessThanASecondCostWhatTheyDid(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, link := w.client("b")
		require.NoError(t, w.acquire(b, "other").Release(t.Context()))
		l := w.acquire(a, "key")
		var record writes
		link.SetIntercept(record.hook)
		got := waitFor(t.Context(), b, "key")
		time.Sleep(900 * time.Millisecond)
		require.NoError(t, l.Release(t.Context()))
		take(t, got)
		require.Equal(t, []string{"AtomicPut", "AtomicPut"}, record.Take(), "a create that finds it held, and one when it is free")
		require.Empty(t, w.queue())
	})
}

func TestR20WhoIsNotFirstReadsOncePerLongestPoll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		w.acquire(a, "key")
		_, _, links := w.queueUp("b", "c")
		reads := func(link *link) int {
			n := atomic.Int64{}
			link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
				if call.Op == "Get" && call.Key == "lease/key" {
					n.Add(1)
				}
				return next(ctx)
			})
			time.Sleep(2 * time.Second)
			return int(n.Load())
		}
		require.Greater(t, reads(links[0]), 6)
		require.LessOrEqual(t, reads(links[1]), 3)
		require.Equal(t, []string{"b", "c"}, w.queue())
	})
}

func (w *world) storedQueue() []rows.Entry {
	pair, err := w.store.Get(context.Background(), "lease/key")
	require.NoError(w.t, err)
	var record struct {
		Queue []rows.Entry `json:"queue"`
	}
	require.NoError(w.t, json.Unmarshal(pair.Bytes(), &record))
	return record.Queue
}
