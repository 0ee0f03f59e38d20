package tests_test

import (
	"context"
	crand "crypto/rand"
	"encoding/hex"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/kvtest"
	"github.com/dynalock/dynalock/kv/pgkv"
	"github.com/dynalock/dynalock/lease"
)

// ear is the listening connection of stores, and what they have heard.
type ear struct {
	dsn       string
	listening chan struct{} // a word each time LISTEN was executed
	calls     atomic.Int64

	mu       sync.Mutex
	payloads []string
	pid      uint32 // of the server's process
}

func newEar(dsn string) *ear { return &ear{dsn: dsn, listening: make(chan struct{}, 100)} }

// listen is a pgkv.Listen.
func (e *ear) listen(ctx context.Context, channel string, heard func(string)) error {
	e.calls.Add(1)
	conn, err := pgx.Connect(ctx, e.dsn)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
		return err
	}
	e.note("", conn.PgConn().PID())
	heard("")
	e.listening <- struct{}{}
	for {
		n, err := conn.WaitForNotification(ctx)
		if err != nil {
			return err
		}
		e.note(n.Payload, n.PID)
		heard(n.Payload)
	}
}

func (e *ear) note(payload string, pid uint32) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if payload == "" {
		e.pid = pid
		return
	}
	e.payloads = append(e.payloads, payload)
}

// keys returns the keys that were notified.
func (e *ear) keys(t *testing.T) (keys []string) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, payload := range e.payloads {
		key, err := hex.DecodeString(payload)
		require.NoError(t, err)
		keys = append(keys, string(key))
	}
	return keys
}

// openListening opens a store that listens by e, and closes it at the test's end.
func openListening(t *testing.T, e *ear, namespace string) *pgkv.ListeningStore {
	t.Helper()
	store, err := pgkv.NewListening(openPostgres(t, e.dsn), e.listen, pgkv.WithNamespace(namespace),
		pgkv.WithClock(patientClock{clock.System}))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	return store
}

func TestPostgresConformanceListening(t *testing.T) {
	t.Parallel()
	e := newEar(sharedPostgres(t))
	e.listening = make(chan struct{}, 100_000)
	var namespaces sync.Map // *pgkv.ListeningStore: its namespace
	open := func(t *testing.T, namespace string) kv.Store {
		store := openListening(t, e, namespace)
		namespaces.Store(store, namespace)
		return store
	}
	kvtest.Run(t, kvtest.Harness{
		Open: func(t *testing.T) kv.Store { return open(t, crand.Text()) },
		Second: func(t *testing.T, store kv.Store) kv.Store {
			namespace, ok := namespaces.Load(store)
			require.True(t, ok)
			return open(t, namespace.(string))
		},
	})
}

// watched begins a watch of prefix, and returns its events once it listens and
// is synced.
func watched(t *testing.T, e *ear, store kv.Store, prefix string) <-chan kv.Event {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	events, ended := make(chan kv.Event, 100), make(chan struct{})
	go func() {
		defer close(ended)
		for event, err := range kv.Watch(ctx, store, prefix, kv.WithWatchInterval(time.Hour)) {
			if err == nil {
				events <- event
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-ended })
	<-e.listening
	for event := range events {
		if event.Type == kv.EventSynced {
			return events
		}
	}
	return nil
}

// next returns the next event. The watches' interval is an hour: what comes
// before was heard.
func next(t *testing.T, events <-chan kv.Event) kv.Event {
	t.Helper()
	select {
	case event := <-events:
		return event
	case <-time.After(time.Minute):
		require.Fail(t, "nothing was heard")
		return kv.Event{}
	}
}

func TestPostgresWatchHearsOfDeletesAndOfNothingElse(t *testing.T) {
	t.Parallel()
	e, namespace := newEar(sharedPostgres(t)), crand.Text()
	store := openListening(t, e, namespace)
	deaf := openPg(t, e.dsn, namespace)
	events := watched(t, e, store, "a/")
	pair, err := store.AtomicPut(t.Context(), "a/\x00é", kv.WithString("1"))
	require.NoError(t, err)
	stale := pair
	for range 20 { // heartbeats
		pair, err = store.AtomicPut(t.Context(), pair.Key, kv.WithPrevious(pair))
		require.NoError(t, err)
	}
	other, err := store.AtomicPut(t.Context(), "b")
	require.NoError(t, err)
	require.NoError(t, store.AtomicDelete(t.Context(), other.Key, other))
	require.ErrorIs(t, store.AtomicDelete(t.Context(), pair.Key, stale), kv.ErrKeyModified)
	third, err := deaf.AtomicPut(t.Context(), "a/3")
	require.NoError(t, err)
	require.NoError(t, store.AtomicDelete(t.Context(), third.Key, third))
	// the delete beside it shows the pair
	for event := next(t, events); event.Key != pair.Key || event.Pair.Version != pair.Version; event = next(t, events) {
		require.Contains(t, []string{pair.Key, third.Key}, event.Key)
	}
	require.NoError(t, store.AtomicDelete(t.Context(), pair.Key, pair))
	require.Equal(t, kv.Event{Type: kv.EventDelete, Key: pair.Key}, next(t, events))
	require.Equal(t, []string{"b", "a/3", pair.Key}, e.keys(t))

	fourth, err := deaf.AtomicPut(t.Context(), "a/4")
	require.NoError(t, err)
	require.NoError(t, deaf.AtomicDelete(t.Context(), fourth.Key, fourth))
	last, err := store.AtomicPut(t.Context(), "last")
	require.NoError(t, err)
	require.NoError(t, store.AtomicDelete(t.Context(), last.Key, last))
	require.Eventually(t, func() bool { return len(e.keys(t)) == 4 }, time.Minute, 5*time.Millisecond)
	require.Equal(t, "last", e.keys(t)[3], "a Store that New made does not notify")
}

// What is deleted while the listening connection is broken shows when it is
// open again. It is closed when nobody watches.
func TestPostgresWatchListensAgain(t *testing.T) {
	t.Parallel()
	e, namespace := newEar(sharedPostgres(t)), crand.Text()
	store := openListening(t, e, namespace)
	pair, err := store.AtomicPut(t.Context(), "a")
	require.NoError(t, err)
	t.Run("broken", func(t *testing.T) {
		events := watched(t, e, store, "a")
		e.mu.Lock()
		pid := e.pid
		e.mu.Unlock()
		_, err = openPostgres(t, e.dsn).ExecContext(t.Context(), "SELECT pg_terminate_backend($1)", pid)
		require.NoError(t, err)
		require.NoError(t, openPg(t, e.dsn, namespace).AtomicDelete(t.Context(), pair.Key, pair), "nobody is notified")
		<-e.listening
		require.Equal(t, kv.Event{Type: kv.EventDelete, Key: "a"}, next(t, events))
	})
	require.EqualValues(t, 2, e.calls.Load())
	e.mu.Lock()
	pid := e.pid
	e.mu.Unlock()
	db := openPostgres(t, e.dsn)
	require.Eventually(t, func() bool {
		var n int
		require.NoError(t, db.QueryRowContext(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE pid = $1",
			pid).Scan(&n))
		return n == 0
	}, time.Minute, 10*time.Millisecond, "the connection is still open")
}

// A waiting acquire polls once an hour here: it hears of the release.
func TestPostgresAcquireHearsOfARelease(t *testing.T) {
	t.Parallel()
	e, namespace := newEar(sharedPostgres(t)), crand.Text()
	clients := make([]*lease.Client, 2)
	for i := range clients {
		c, err := lease.New(openListening(t, e, namespace), lease.WithPoll(time.Hour, time.Hour), lease.WithTTL(time.Minute))
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, c.Close(context.Background())) })
		clients[i] = c
	}
	first, err := clients[0].TryAcquire(t.Context(), "k")
	require.NoError(t, err)
	second := make(chan *lease.Lease, 1)
	go func() {
		l, err := clients[1].Acquire(t.Context(), "k")
		if err == nil {
			second <- l
		}
		close(second)
	}()
	<-e.listening
	require.NoError(t, first.Release(t.Context()))
	l := <-second
	require.NotNil(t, l)
	require.Greater(t, l.Token(), first.Token())
	require.NoError(t, l.Release(t.Context()))
}

func TestPostgresListeningNeedsAWayToListen(t *testing.T) {
	t.Parallel()
	_, err := pgkv.NewListening(openPostgres(t, "postgres://nobody@127.0.0.1:1/none"), nil)
	require.ErrorIs(t, err, kv.ErrInvalidOption)
}
