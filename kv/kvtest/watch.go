package kvtest

import (
	"context"
	"io"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
)

var watchScenarios = []scenario{
	{"PairsThenSyncedThenChanges", testWatch},
	{"OfNothing", testWatchOfNothing},
	{"ExpiryIsADelete", testWatchExpiry},
	{"OnlyItsPrefix", testWatchPrefix},
	{"TheLatestStateComes", testWatchLatest},
	{"OfAPrefixedStore", testWatchPrefixed},
	{"PairsAreTheCallers", testWatchedPairsAreTheCallers},
	{"EndsWithItsContext", testWatchEndsWithItsContext},
	{"EachIterationStartsAnew", testWatchAnew},
	{"EndsWhenTheStoreIsClosed", testWatchClosed},
	{"InvalidArguments", testWatchInvalid},
	{"LeavesNoGoroutine", testWatchLeavesNoGoroutine},
}

// watcher is a watch of which a test takes one event after the other. What
// happens in between happens while nobody reads.
type watcher struct {
	ctx    context.Context // ends after the harness's patience: no watch may tell things for ever
	next   func() (kv.Event, error, bool)
	prefix string
}

func (e *env) watch(t *testing.T, store kv.Store, prefix string) *watcher {
	t.Helper()
	ctx, cancel := clock.System.WithTimeout(e.ctx, e.waitLimit)
	next, stop := iter.Pull2(kv.Watch(ctx, store, prefix, kv.WithWatchInterval(20*time.Millisecond)))
	t.Cleanup(func() {
		stop()
		cancel()
	})
	return &watcher{ctx: ctx, next: next, prefix: e.prefix}
}

// event returns the next event, which must not be an error.
func (w *watcher) event(t *testing.T) kv.Event {
	t.Helper()
	require.NoError(t, w.ctx.Err())
	event, err, ok := w.next()
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, event.Type == kv.EventPut, event.Pair != nil)
	if event.Pair != nil {
		require.Equal(t, event.Key, event.Pair.Key)
		require.NotZero(t, event.Pair.Version)
	}
	return event
}

// want requires that the next events are these: "put key value", "delete key" or "synced".
func (w *watcher) want(t *testing.T, events ...string) {
	t.Helper()
	for _, want := range events {
		event := w.event(t)
		got := event.Type.String()
		if event.Type != kv.EventSynced {
			got += " " + strings.TrimPrefix(event.Key, w.prefix)
		}
		if event.Pair != nil {
			got += " " + event.Pair.String()
		}
		require.Equal(t, want, got)
	}
}

func testWatch(t *testing.T, e *env) {
	e.put(t, "b", kv.WithString("1"))
	e.put(t, "a", kv.WithString("1"), kv.WithFields(kv.Fields{"n": 1}))
	w := e.watch(t, e.other, e.prefix)
	first := w.event(t)
	samePair(t, e.get(t, "a"), first.Pair)
	w.want(t, "put b 1", "synced")

	e.put(t, "c", kv.WithString("1"))
	w.want(t, "put c 1")
	pair, err := e.store.AtomicPut(e.ctx, e.key("a"), kv.WithPrevious(first.Pair), kv.WithString("2"))
	require.NoError(t, err)
	w.want(t, "put a 2")
	require.NoError(t, e.store.AtomicDelete(e.ctx, e.key("a"), pair))
	w.want(t, "delete a")
	require.NoError(t, e.store.Delete(e.ctx, e.key("b")))
	w.want(t, "delete b")
	e.create(t, "a", kv.WithString("3"))
	w.want(t, "put a 3")
	e.put(t, "a", kv.WithString("3"))
	w.want(t, "put a 3") // the version counts, not the value
}

func testWatchOfNothing(t *testing.T, e *env) {
	w := e.watch(t, e.other, e.prefix)
	w.want(t, "synced")
	e.put(t, "k", kv.WithString("v"))
	w.want(t, "put k v")
}

func testWatchExpiry(t *testing.T, e *env) {
	e.put(t, "stays", kv.WithString("v"), kv.WithTTL(long))
	w := e.watch(t, e.other, e.prefix)
	w.want(t, "put stays v", "synced")
	// A pair that is told may expire between two looks of a slow watch; so only
	// its end is sure to come.
	for ttl := 200 * time.Millisecond; ; ttl *= 2 {
		require.Less(t, ttl, e.waitLimit, "the watch is too slow to tell")
		name := ttl.String()
		e.put(t, name, kv.WithTTL(ttl))
		e.put(t, "mark", kv.WithString(name))
		observed := false
		for event := w.event(t); event.Key != e.key("mark"); event = w.event(t) {
			require.Equal(t, e.key(name), event.Key)
			observed = event.Type == kv.EventPut
		}
		if observed {
			w.want(t, "delete "+name)
			return
		}
	}
}

func testWatchPrefix(t *testing.T, e *env) {
	w := e.watch(t, e.other, e.key("in/"))
	w.want(t, "synced")
	for _, name := range []string{"in", "in.", "in0", "out/k"} {
		e.put(t, name)
		require.NoError(t, e.store.Delete(e.ctx, e.key(name)))
		e.put(t, name)
	}
	e.put(t, "in/k", kv.WithString("v"))
	w.want(t, "put in/k v")
}

func testWatchPrefixed(t *testing.T, e *env) {
	require.NoError(t, e.store.Put(e.ctx, e.key("other")))
	part := kv.Prefixed(e.store, e.prefix)
	require.NoError(t, part.Put(e.ctx, "p/a", kv.WithString("1")))
	hooked := kv.Instrument(part, func(ctx context.Context, _ kv.Call, next func(context.Context) error) error {
		return next(ctx)
	})
	w := e.watch(t, hooked, "p/")
	w.want(t, "put p/a 1", "synced")
	e.put(t, "p/b", kv.WithString("1"))
	w.want(t, "put p/b 1")
	require.NoError(t, e.store.Delete(e.ctx, e.key("p/a")))
	w.want(t, "delete p/a")
}

func testWatchedPairsAreTheCallers(t *testing.T, e *env) {
	e.put(t, "k", kv.WithString("value"), kv.WithFields(kv.Fields{"b": []byte("field")}))
	want := e.get(t, "k")
	w := e.watch(t, e.other, e.prefix)
	event := w.event(t)
	event.Pair.Bytes()[0] = 'X'
	event.Pair.Fields["b"].([]byte)[0] = 'X'
	event.Pair.Fields["more"] = "x"
	samePair(t, want, e.get(t, "k"))
	samePair(t, want, e.watch(t, e.other, e.prefix).event(t).Pair)
}

func testWatchEndsWithItsContext(t *testing.T, e *env) {
	ctx, cancel := context.WithCancel(e.ctx)
	defer cancel()
	defer clock.System.AfterFunc(e.waitLimit, cancel).Stop()
	var last error
	events := 0
	for _, err := range kv.Watch(ctx, e.other, e.prefix) {
		require.NoError(t, last, "nothing comes behind the context's error")
		if last = err; err == nil {
			events++
		}
		require.LessOrEqual(t, events, 1, "the watch goes on behind its context's end")
		cancel()
	}
	require.ErrorIs(t, last, context.Canceled)
	require.Equal(t, 1, events)

	for event, err := range kv.Watch(ctx, e.other, e.prefix) {
		require.ErrorIs(t, err, context.Canceled)
		require.Zero(t, event)
	}
}

func testWatchAnew(t *testing.T, e *env) {
	e.put(t, "k")
	ctx, cancel := clock.System.WithTimeout(e.ctx, e.waitLimit)
	defer cancel()
	watch := kv.Watch(ctx, e.other, e.prefix)
	for range 3 {
		var types []kv.EventType
		for event, err := range watch {
			require.NoError(t, err)
			if types = append(types, event.Type); event.Type == kv.EventSynced || len(types) == 3 {
				break
			}
		}
		require.Equal(t, []kv.EventType{kv.EventPut, kv.EventSynced}, types)
	}
}

func testWatchClosed(t *testing.T, e *env) {
	closer, ok := kv.As[io.Closer](e.store)
	if !ok {
		t.Skip("kvtest: the driver has no Close")
	}
	w := e.watch(t, e.store, e.prefix)
	w.want(t, "synced")
	require.NoError(t, closer.Close())
	_, err, ok := w.next()
	require.True(t, ok)
	only(t, err, kv.ErrClosed)
	_, _, ok = w.next()
	require.False(t, ok)
}

func testWatchInvalid(t *testing.T, e *env) {
	for name, watch := range map[string]iter.Seq2[kv.Event, error]{
		"interval 0":         kv.Watch(e.ctx, e.store, e.prefix, kv.WithWatchInterval(0)),
		"interval too short": kv.Watch(e.ctx, e.store, e.prefix, kv.WithWatchInterval(10*time.Millisecond-1)),
		"interval too long":  kv.Watch(e.ctx, e.store, e.prefix, kv.WithWatchInterval(time.Hour+1)),
		"prefix":             kv.Watch(e.ctx, e.store, "bad\xff"),
	} {
		n := 0
		for event, err := range watch {
			n++
			require.Zero(t, event, name)
			want := kv.ErrInvalidOption
			if name == "prefix" {
				want = kv.ErrInvalidKey
			}
			only(t, err, want)
		}
		require.Equal(t, 1, n, name)
	}
}
