package lease_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
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

// link is one client's way to the store: it counts calls, and fails them as it is told.
type link struct {
	kv.Store

	mu    sync.Mutex
	calls map[string]int
	// cut makes every call hang until its context ends.
	cut bool
	// intercept, if set, is called around each call.
	intercept kv.Hook
}

var errLost = errors.New("answer lost")

func newLink(store kv.Store) *link {
	l := &link{calls: map[string]int{}}
	l.Store = kv.Instrument(store, l.hook)
	return l
}

// MaxWriteDelay implements kv.WriteDelayer. A link hides the store's own watch: its clients poll.
func (l *link) MaxWriteDelay() time.Duration { return kv.MaxWriteDelay(l.Store) }

func (l *link) hook(ctx context.Context, call kv.Call, next func(context.Context) error) error {
	l.mu.Lock()
	l.calls[call.Op]++
	cut, intercept := l.cut, l.intercept
	l.mu.Unlock()
	switch {
	case cut:
		<-ctx.Done()
		if call.Op == "Get" {
			return ctx.Err()
		}
		return &kv.UncertainError{Key: call.Key, Err: ctx.Err()}
	case intercept != nil:
		return intercept(ctx, call, next)
	}
	return next(ctx)
}

func (l *link) setCut(cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = cut
}

func (l *link) setIntercept(hook kv.Hook) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.intercept = hook
}

// loseAnswer lets the next call of op on a key with the prefix reach the store
// and loses its answer.
func (l *link) loseAnswer(op, prefix string) {
	done := false
	l.setIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
		if done || call.Op != op || len(call.Key) < len(prefix) || call.Key[:len(prefix)] != prefix {
			return next(ctx)
		}
		done = true
		if err := next(ctx); err != nil {
			return err
		}
		return &kv.UncertainError{Key: call.Key, Err: errLost}
	})
}

// take returns the calls made since it was called last.
func (l *link) take() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	calls := l.calls
	l.calls = map[string]int{}
	return calls
}

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
		l.setCut(false)
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
	l.setIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
		err := next(ctx)
		if call.Op == op {
			time.Sleep(d)
		}
		return err
	})
}
