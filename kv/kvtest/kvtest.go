// Package kvtest is the conformance suite of kv.Store. A driver's test is a call of Run:
//
//	func TestConformance(t *testing.T) {
//		kvtest.Run(t, kvtest.Harness{Open: func(t *testing.T) kv.Store { return memkv.New() }})
//	}
//
// Each test has a prefix of its own for its keys, so that all may share one
// table, and nothing depends on how fast the store is.
package kvtest

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
)

// Harness is how the suite gets at a driver. Only Open is needed; Run says what
// it leaves out for want of the others.
type Harness struct {
	// Open returns a store that holds no pairs with the prefixes of the test
	// that calls it: a fresh one, or one on a table that other tests share. It
	// is closed, if it needs to be, by t.Cleanup. It is called once for each
	// test, by several tests at once.
	Open func(t *testing.T) kv.Store
	// Second returns another handle on the data of store, which Open returned:
	// another connection or client. It is closed by t.Cleanup. nil: the
	// scenarios run on one handle.
	Second func(t *testing.T, store kv.Store) kv.Store
	// KeyOverhead is how many bytes the store adds to each key, as kv.Prefixed
	// does. They count towards the limits.
	KeyOverhead int
	// Patience is how long the suite waits for what must come, such as an event
	// of a watch. 0: 30 s, for slow machines. A scenario that takes ten times
	// as long fails.
	Patience time.Duration
	// CheckHistory fails t unless history is linearizable: Record says what it
	// is made of. A checker belongs to the driver's tests, so that this package
	// needs none. nil: no history is checked.
	CheckHistory func(t *testing.T, history []Operation)
	// Process starts another process that opens the data of store, which Open
	// returned, calls Peer with prefix on it, and fails if Peer does. It
	// returns at once; wait returns how the process ended. nil: all scenarios
	// are of one process.
	Process func(t *testing.T, store kv.Store, prefix string) (wait func() error)
}

// scenario is one test.
type scenario struct {
	name string
	run  func(t *testing.T, e *env)
}

// scenarioBound is how many times Harness.Patience a scenario may take. Every
// loop of the suite that a store might keep going ends with its context, at the
// latest; only a store that does not return from a call, whatever becomes of
// its context, can hold up the suite.
const scenarioBound = 10

// env is what a scenario works with.
type env struct {
	ctx context.Context // ends after scenarioBound
	// store is the one under test; other is a second handle on its data, or the same one.
	store, other kv.Store
	prefix       string
	overhead     int
	harness      Harness
	waitLimit    time.Duration
}

// Run runs the suite. It logs which parts of it the harness leaves out, and
// which optional capabilities the driver lacks.
func Run(t *testing.T, h Harness) {
	if missing := missing(t, h); len(missing) > 0 {
		t.Logf("kvtest: not tested: %s", strings.Join(missing, "; "))
	}
	for _, group := range []struct {
		name      string
		scenarios []scenario
	}{
		{"Basic", basicScenarios}, {"Fields", fieldScenarios}, {"Atomic", atomicScenarios}, {"TTL", ttlScenarios},
		{"List", listScenarios}, {"Functions", functionScenarios}, {"Misuse", misuseScenarios}, {"Watch", watchScenarios},
		{"Concurrency", concurrencyScenarios}, {"History", historyScenarios}, {"Process", processScenarios},
	} {
		t.Run(group.name, func(t *testing.T) {
			t.Parallel()
			for _, s := range group.scenarios {
				t.Run(s.name, func(t *testing.T) {
					t.Parallel()
					s.run(t, newEnv(t, h))
				})
			}
		})
	}
}

// missing lists what the suite cannot test with h.
func missing(t *testing.T, h Harness) []string {
	store := h.Open(t)
	_, closes := kv.As[io.Closer](store)
	_, watches := kv.As[kv.Watcher](store)
	_, delays := kv.As[kv.WriteDelayer](store)
	_, err := store.ListPage(t.Context(), "", kv.WithLocalIndex("no-such-index", "f"), kv.WithLimit(1))
	var list []string
	for _, part := range []struct {
		missing bool
		what    string
	}{
		{h.Second == nil, "a second handle (no Harness.Second)"},
		{h.CheckHistory == nil, "linearizability (no Harness.CheckHistory)"},
		{h.Process == nil, "a second process (no Harness.Process)"},
		{!closes, "closing (the driver has no Close)"},
		{!watches, "a watch of its own (the driver is no kv.Watcher: its listings are compared)"},
		{!delays, "a write delay of its own (the driver is no kv.WriteDelayer: kv.DefaultMaxWriteDelay)"},
		{errors.Is(err, kv.ErrIndexNotSupported), "indexes (kv.ErrIndexNotSupported)"},
		{!errors.Is(err, kv.ErrIndexNotSupported), "what the driver's indexes find (that is for its own tests)"},
	} {
		if part.missing {
			list = append(list, part.what)
		}
	}
	return list
}

func newEnv(t *testing.T, h Harness) *env {
	e := &env{store: h.Open(t), prefix: rand.Text()[:10] + "/", overhead: h.KeyOverhead, harness: h}
	e.waitLimit = cmp.Or(h.Patience, 30*time.Second)
	ctx, cancel := clock.System.WithTimeout(t.Context(), scenarioBound*e.waitLimit)
	t.Cleanup(cancel)
	e.ctx = ctx
	e.other = e.store
	if h.Second != nil {
		e.other = h.Second(t, e.store)
	}
	return e
}

// key returns a key of the test's own.
func (e *env) key(name string) string { return e.prefix + name }

// put writes a pair that must succeed.
func (e *env) put(t *testing.T, name string, options ...kv.WriteOption) {
	t.Helper()
	require.NoError(t, e.store.Put(e.ctx, e.key(name), options...))
}

// create creates a pair that must not exist.
func (e *env) create(t *testing.T, name string, options ...kv.WriteOption) *kv.KVPair {
	t.Helper()
	pair, err := e.store.AtomicPut(e.ctx, e.key(name), options...)
	require.NoError(t, err)
	require.NotNil(t, pair)
	return pair
}

// get reads a pair that must exist, through the other handle.
func (e *env) get(t *testing.T, name string) *kv.KVPair {
	t.Helper()
	pair, err := e.other.Get(e.ctx, e.key(name))
	require.NoError(t, err)
	require.Equal(t, e.key(name), pair.Key)
	require.NotZero(t, pair.Version)
	return pair
}

// absent requires that no read finds the pair.
func (e *env) absent(t *testing.T, name string) {
	t.Helper()
	for _, store := range []kv.Store{e.store, e.other} {
		pair, err := store.Get(e.ctx, e.key(name))
		require.ErrorIs(t, err, kv.ErrKeyNotFound)
		require.Nil(t, pair)
		var absent *kv.NotFoundError
		require.ErrorAs(t, err, &absent)
		require.Equal(t, e.key(name), absent.Key)
		exists, err := store.Exists(e.ctx, e.key(name))
		require.NoError(t, err)
		require.False(t, exists)
		pairs, err := store.List(e.ctx, e.prefix)
		require.NoError(t, err)
		require.NotContains(t, keysOf(pairs), e.key(name))
		page, err := store.ListPage(e.ctx, e.prefix)
		require.NoError(t, err)
		require.NotContains(t, keysOf(page.Pairs), e.key(name))
	}
}

// samePair requires that both are the same state of the same key.
func samePair(t *testing.T, want, got *kv.KVPair) {
	t.Helper()
	require.NotNil(t, got)
	require.Equal(t, want.Key, got.Key)
	require.Equal(t, want.Version, got.Version)
	require.Equal(t, want.Bytes(), got.Bytes())
	require.Equal(t, want.Fields, got.Fields)
	require.True(t, want.Expires.Equal(got.Expires), "expires %v, want %v", got.Expires, want.Expires)
}

// conflict requires that err is a lost race, and returns it.
func conflict(t *testing.T, err error, sentinel error) *kv.ConflictError {
	t.Helper()
	require.ErrorIs(t, err, sentinel)
	var lost *kv.ConflictError
	require.ErrorAs(t, err, &lost)
	require.Equal(t, errors.Is(sentinel, kv.ErrKeyExists), lost.Create)
	return lost
}

// until polls condition for as long as a loaded machine may need.
func (e *env) until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	start := clock.System.Now()
	for !condition() {
		require.Less(t, clock.System.Now().MonotonicSince(start), e.waitLimit, what)
		require.NoError(t, clock.Sleep(t.Context(), clock.System, 5*time.Millisecond))
	}
}

// expire waits until the pair is gone.
func (e *env) expire(t *testing.T, name string) {
	t.Helper()
	e.until(t, name+" does not expire", func() bool {
		exists, err := e.store.Exists(e.ctx, e.key(name))
		require.NoError(t, err)
		return !exists
	})
}

func keysOf(pairs []*kv.KVPair) []string {
	keys := make([]string, 0, len(pairs))
	for _, pair := range pairs {
		keys = append(keys, pair.Key)
	}
	return keys
}
