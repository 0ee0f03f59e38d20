package pool_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/leasetest"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
)

// ttl is what the clients of these tests use unless they say otherwise.
const ttl = 10 * time.Second

// freshValue is the value of a partition that was just added, as JSON has it.
const freshValue = "eyJmIjoxfQo="

// link is one client's way to the store.
type link struct{ *leasetest.Link }

func newLink(store kv.Store) *link { return &link{leasetest.NewLink(store)} }

var errLost = leasetest.ErrAnswerLost

// recorder is an observer that remembers.
type recorder = leasetest.Recorder

// world is a store with clients on it. Use it inside a synctest bubble.
type world struct {
	t     *testing.T
	store *memkv.Store
}

// newWorld makes a world that ends a test which waits for ever: heartbeats keep
// virtual time going, so that nothing else would.
func newWorld(t *testing.T) *world {
	hung := time.AfterFunc(30*24*time.Hour, func() { panic(t.Name() + " waits for something that does not happen") })
	t.Cleanup(func() { hung.Stop() })
	return &world{t: t, store: memkv.New()}
}

// client makes a client with its own link, closed at the end of the test.
func (w *world) client(name string, options ...lease.Option) (*lease.Client, *link) {
	l := newLink(w.store)
	c, err := lease.New(l, append([]lease.Option{lease.WithTTL(ttl), lease.WithOwner(name)}, options...)...)
	require.NoError(w.t, err)
	w.t.Cleanup(func() {
		l.SetCut(false)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = c.Close(ctx) // the test may have closed it, or left leases on purpose
	})
	return c, l
}

func (w *world) acquire(c *lease.Client, key string) *lease.Lease {
	w.t.Helper()
	l, err := c.TryAcquire(w.t.Context(), key)
	require.NoError(w.t, err)
	return l
}

// rows returns the keys in the store.
func (w *world) rows(prefix string) []string {
	pairs, err := w.store.List(context.Background(), prefix)
	require.NoError(w.t, err)
	keys := []string{}
	for _, p := range pairs {
		keys = append(keys, p.Key)
	}
	return keys
}

func inspect(t *testing.T, c *lease.Client, key string) *lease.Holder {
	t.Helper()
	h, err := c.Inspect(t.Context(), key)
	require.NoError(t, err)
	return h
}

func reason(t *testing.T, err error) lease.Reason {
	t.Helper()
	var lost *lease.LostError
	require.ErrorAs(t, err, &lost)
	return lost.Reason
}

// timed counts the AfterFuncs that have neither fired nor been stopped.
type timed struct {
	clock.Clock
	pending atomic.Int64
}

func (c *timed) AfterFunc(d time.Duration, f func()) clock.Timer {
	c.pending.Add(1)
	return &countedTimer{c.Clock.AfterFunc(d, func() { c.pending.Add(-1); f() }), c}
}

type countedTimer struct {
	clock.Timer
	clock *timed
}

func (t *countedTimer) Stop() bool {
	stopped := t.Timer.Stop()
	if stopped {
		t.clock.pending.Add(-1)
	}
	return stopped
}

func (t *countedTimer) Reset(d time.Duration) bool {
	active := t.Timer.Reset(d)
	if !active {
		t.clock.pending.Add(1)
	}
	return active
}
