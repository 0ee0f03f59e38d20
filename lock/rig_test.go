package lock_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

// ttl is what the clients of these tests use.
const ttl = 5 * time.Second

var errLost = errors.New("answer lost")

func newClient(t *testing.T, store kv.Store, options ...lease.Option) *lease.Client {
	t.Helper()
	c, err := lease.New(store, append([]lease.Option{lease.WithTTL(ttl)}, options...)...)
	require.NoError(t, err)
	t.Cleanup(func() { closeSoon(c) })
	return c
}

// closeSoon closes a client that may hold leases on purpose.
func closeSoon(c *lease.Client) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.Close(ctx)
}

// link is one client's way to the store. It counts calls on lease rows, and
// fails calls as it is told.
type link struct {
	kv.Store

	mu    sync.Mutex
	calls map[string]int
	// fault decides about the n-th call (from 1) of its operation on lease
	// rows. nil: nothing goes wrong.
	fault func(call kv.Call, n int) fault
	seen  map[string]int
	cut   bool
}

type fault int

const (
	nothing fault = iota
	lostAnswer
	lostRequest
)

func newLink(store kv.Store) *link {
	l := &link{calls: map[string]int{}, seen: map[string]int{}}
	l.Store = kv.Instrument(store, l.hook)
	return l
}

func (l *link) Unwrap() kv.Store { return l.Store }

func (l *link) hook(ctx context.Context, call kv.Call, next func(context.Context) error) error {
	switch l.note(call) {
	case lostRequest:
		return &kv.UncertainError{Key: call.Key, Err: errLost}
	case lostAnswer:
		if err := next(ctx); err != nil {
			return err
		}
		return &kv.UncertainError{Key: call.Key, Err: errLost}
	}
	return next(ctx)
}

func (l *link) note(call kv.Call) fault {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		return lostRequest
	}
	if strings.HasPrefix(call.Key, "session/") {
		l.calls["session "+call.Op]++
		return nothing
	}
	l.calls[call.Op]++
	l.seen[call.Op]++
	if l.fault == nil {
		return nothing
	}
	return l.fault(call, l.seen[call.Op])
}

// setFault makes fault decide from now on.
func (l *link) setFault(fault func(call kv.Call, n int) fault) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fault, l.seen = fault, map[string]int{}
}

// setCut cuts the client off from the store, for good: with its requests lost
// it is as good as dead.
func (l *link) setCut(cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = cut
}

// take returns the calls made since it was called last.
func (l *link) take() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	calls := l.calls
	l.calls = map[string]int{}
	return calls
}

// nop is a job that has nothing to do.
func nop(context.Context, *lease.Lease) error { return nil }

// mustNotRun is a job that must not be run.
func mustNotRun(t *testing.T) func(context.Context, *lease.Lease) error {
	return func(context.Context, *lease.Lease) error {
		t.Error("run again")
		return nil
	}
}

func requireState(t *testing.T, o *lock.Once, want lock.State) lock.Outcome {
	t.Helper()
	outcome, err := o.Outcome(t.Context(), "slot")
	require.NoError(t, err)
	require.Equal(t, want, outcome.State)
	return outcome
}
