package lease_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/leasetest"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
)

// ttl is what the clients of these tests use, margin what they have to stop,
// patience what an operator waits for one that does not answer.
const (
	ttl      = 10 * time.Second
	margin   = ttl / 10
	patience = ttl + ttl/16
)

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

// skewed makes a client on a clock of its own.
func (w *world) skewed(name string, rate float64) (*lease.Client, *link, *clock.Skewed) {
	s := clock.NewSkewed(clock.System, rate, 0)
	c, l := w.client(name, lease.WithClock(s))
	return c, l, s
}

// patient is a context that gives a call which does not wait more than its 3 s.
func patient(t *testing.T) context.Context { return patientFor(t, 24*time.Hour) }

func (w *world) acquire(c *lease.Client, key string) *lease.Lease {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 24*time.Hour)
	defer cancel()
	l, err := c.TryAcquire(ctx, key)
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

// waitFor acquires in the background and reports when.
func waitFor(ctx context.Context, c *lease.Client, key string) <-chan grant {
	got := make(chan grant, 1)
	go func() {
		l, err := c.Acquire(ctx, key)
		got <- grant{l, err, time.Now()}
	}()
	return got
}

type grant struct {
	*lease.Lease
	err error
	at  time.Time
}

// requireLost waits for the lease to end, which it must within three TTLs.
func requireLost(t *testing.T, l *lease.Lease) {
	t.Helper()
	select {
	case <-l.Context().Done():
	case <-time.After(3 * ttl):
		require.Fail(t, "still held")
	}
}

func reason(t *testing.T, err error) lease.Reason {
	t.Helper()
	var lost *lease.LostError
	require.ErrorAs(t, err, &lost)
	return lost.Reason
}

// delay lets every call of op wait for d after the store has carried it out.
func (l *link) delay(op string, d time.Duration) {
	l.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
		err := next(ctx)
		if call.Op == op {
			time.Sleep(d)
		}
		return err
	})
}
