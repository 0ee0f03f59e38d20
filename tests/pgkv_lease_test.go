package tests_test

import (
	"context"
	crand "crypto/rand"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/pgkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

// statementCounter counts statements on the wire, by their first word.
type statementCounter struct {
	mu    sync.Mutex
	calls map[string]int
}

// TraceQueryStart implements pgx.QueryTracer.
func (c *statementCounter) TraceQueryStart(ctx context.Context, _ *pgx.Conn,
	data pgx.TraceQueryStartData) context.Context {
	if strings.Contains(data.SQL, "current_setting") {
		return ctx // the look at the server, once a minute
	}
	word, _, _ := strings.Cut(data.SQL, " ")
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls[word]++
	return ctx
}

// TraceQueryEnd implements pgx.QueryTracer.
func (c *statementCounter) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (c *statementCounter) take() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	calls := c.calls
	c.calls = map[string]int{}
	return calls
}

// countedPg makes a client in a namespace and a counter of its statements.
func countedPg(t *testing.T, namespace string) (*lease.Client, *statementCounter) {
	t.Helper()
	count := &statementCounter{calls: map[string]int{}}
	settings, err := pgx.ParseConfig(sharedPostgres(t))
	require.NoError(t, err)
	settings.Tracer = count
	db := stdlib.OpenDB(*settings)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	store, err := pgkv.New(db, pgkv.WithNamespace(namespace), pgkv.WithClock(patientClock{clock.System}))
	require.NoError(t, err)
	client, err := lease.New(store, lease.WithTTL(time.Hour)) // no heartbeat comes between
	require.NoError(t, err)
	return client, count
}

func TestPostgresStatementsOfALease(t *testing.T) {
	t.Parallel()
	namespace := crand.Text()
	c, count := countedPg(t, namespace)
	acquire := func(key string) *lease.Lease {
		l, err := c.TryAcquire(t.Context(), key)
		require.NoError(t, err)
		return l
	}
	first := acquire("first")
	require.Equal(t, map[string]int{"INSERT": 2}, count.take(), "first acquire: the session and the lease")
	second := acquire("second")
	require.Equal(t, map[string]int{"INSERT": 1}, count.take(), "a key never used")
	require.NoError(t, first.Release(t.Context()))
	require.Equal(t, map[string]int{"UPDATE": 1}, count.take(), "release")
	again := acquire("first")
	require.Equal(t, map[string]int{"INSERT": 1}, count.take(), "a key that was released")
	require.Greater(t, again.Token(), first.Token())

	other, otherCount := countedPg(t, namespace)
	mine, err := other.TryAcquire(t.Context(), "mine")
	require.NoError(t, err)
	otherCount.take()
	_, err = other.TryAcquire(t.Context(), "second")
	require.ErrorIs(t, err, lease.ErrHeld)
	require.Equal(t, map[string]int{"INSERT": 1, "SELECT": 2}, otherCount.take(),
		"a held key: the conflict's row, and the session")

	closed := make(chan error, 1)
	go func() { closed <- c.Close(context.Background()) }()
	<-second.Context().Done()
	require.NoError(t, second.Release(t.Context()))
	require.NoError(t, again.Release(t.Context()))
	require.NoError(t, <-closed)
	require.Equal(t, map[string]int{"UPDATE": 1}, count.take(), "close, with two leases held")
	require.NoError(t, mine.Release(t.Context()))
	require.NoError(t, other.Close(t.Context()))
}

// pgClients makes clients that share nothing but the namespace, as processes
// would.
func pgClients(t *testing.T, n int, options ...lease.Option) []*lease.Client {
	t.Helper()
	dsn, namespace := sharedPostgres(t), crand.Text()
	clients := make([]*lease.Client, n)
	for i := range clients {
		c, err := lease.New(openPg(t, dsn, namespace), options...)
		require.NoError(t, err)
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			require.NoError(t, c.Close(ctx))
		})
		clients[i] = c
	}
	return clients
}

// A counter that is read, and written a moment later, loses nothing under a
// mutex. The tokens that it is written with only grow.
func TestPostgresMutexExcludes(t *testing.T) {
	t.Parallel()
	const each = 10
	clients := pgClients(t, 4, lease.WithTTL(time.Minute))
	var n int
	var token uint64
	group, ctx := errgroup.WithContext(t.Context())
	for _, c := range clients {
		m := lock.NewMutex(c, "counter")
		group.Go(func() error {
			for range each {
				err := m.Do(ctx, func(_ context.Context, l *lease.Lease) error {
					seen := n
					time.Sleep(time.Millisecond)
					n = seen + 1 // the race detector sees whether the mutex orders them
					if l.Token() <= token {
						return fmt.Errorf("token %d after %d", l.Token(), token)
					}
					token = l.Token()
					return nil
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	require.NoError(t, group.Wait())
	require.Equal(t, len(clients)*each, n)
}

// Of eight processes that come at once, one runs the job. The others wait for
// its outcome.
func TestPostgresOnceRunsASlotOnce(t *testing.T) {
	t.Parallel()
	var runs, ran atomic.Int32
	group, ctx := errgroup.WithContext(t.Context())
	for _, c := range pgClients(t, 8, lease.WithTTL(time.Minute)) {
		group.Go(func() error {
			did, err := lock.NewOnce(c, "job", lock.Wait()).Do(ctx, "slot", func(context.Context, *lease.Lease) error {
				runs.Add(1)
				time.Sleep(10 * time.Millisecond)
				return nil
			})
			if did {
				ran.Add(1)
			}
			return err
		})
	}
	require.NoError(t, group.Wait())
	require.EqualValues(t, 1, runs.Load())
	require.EqualValues(t, 1, ran.Load())
}

// A crashed client's key passes on, with a greater token and word of it.
func TestPostgresLeaseOfACrashedClientIsTakenOver(t *testing.T) {
	t.Parallel()
	dsn, namespace := sharedPostgres(t), crand.Text()
	db := openPostgres(t, dsn)
	store, err := pgkv.New(db, pgkv.WithNamespace(namespace))
	require.NoError(t, err)
	crashed, err := lease.New(store, lease.WithTTL(lease.MinTTL))
	require.NoError(t, err)
	held, err := crashed.TryAcquire(t.Context(), "k")
	require.NoError(t, err)
	require.NoError(t, store.Close()) // no heartbeat gets through any more

	c, err := lease.New(openPg(t, dsn, namespace))
	require.NoError(t, err)
	taken, err := c.Acquire(t.Context(), "k")
	require.NoError(t, err)
	require.True(t, taken.TakenOver())
	require.Greater(t, taken.Token(), held.Token())
	require.False(t, held.Held())
	require.ErrorIs(t, context.Cause(held.Context()), lease.ErrLost)
	require.NoError(t, taken.Release(t.Context()))
	require.NoError(t, c.Close(t.Context()))
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	require.ErrorIs(t, held.Release(ctx), lease.ErrLost)
	_ = crashed.Close(ctx) // its store is closed
}

// wireReads are the reads of a store. An attempt of a read may take five seconds,
// since nobody knows how much it brings, unless the caller says otherwise.
var wireReads = map[string]func(ctx context.Context, store kv.Store) error{
	"get": func(ctx context.Context, s kv.Store) error {
		pair, err := s.Get(ctx, "k", kv.WithAttemptTimeout(time.Second))
		if err == nil && pair.String() != "new" {
			err = fmt.Errorf("read %q", pair.String())
		}
		return err
	},
	"list": func(ctx context.Context, s kv.Store) error {
		pairs, err := s.List(ctx, "k", kv.WithAttemptTimeout(time.Second))
		if err == nil && (len(pairs) != 1 || pairs[0].String() != "new") {
			err = fmt.Errorf("listed %v", pairs)
		}
		return err
	},
	"refused create": func(ctx context.Context, s kv.Store) error { // which reads what stood in its way
		_, err := s.AtomicPut(ctx, "k")
		return err
	},
}

// A read whose first attempts are lost, or their answers, is made again. One
// that never gets an answer is an error that says nothing of the pair.
func TestPostgresReadsAreMadeAgain(t *testing.T) {
	t.Parallel()
	for name, read := range wireReads {
		for _, fault := range []wireFault{cutBefore, cutAfter, holeBefore, holeAfter} {
			t.Run(name+", "+string(fault), func(t *testing.T) {
				t.Parallel()
				w := openWired(t)
				require.NoError(t, w.store.Put(t.Context(), "k", kv.WithString("new")))
				var want error
				if name == "refused create" {
					want = kv.ErrKeyExists
				}
				for _, faults := range [][]wireFault{{fault}, {fault, fault}} {
					w.proxy.injectReads(on(faults...))
					require.ErrorIs(t, read(t.Context(), w.store), want)
					require.Greater(t, w.proxy.meant(), len(faults))
				}
				w.proxy.injectReads(always(fault))
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				err := read(ctx, w.store)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.NotErrorIs(t, err, kv.ErrKeyNotFound)
				require.NotErrorIs(t, err, kv.ErrKeyExists)
			})
		}
	}
}
