package tests_test

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/sqlkv"
)

// leaping is a clock that leaps forward whenever it is read, as if the process
// had been suspended between any two steps.
type leaping struct {
	clock.Clock
	leap, passed atomic.Int64
}

func (l *leaping) Now() clock.Reading {
	passed := time.Duration(l.passed.Add(l.leap.Load()))
	now := clock.System.Now()
	return clock.Reading{Mono: now.Mono + passed, Boot: now.Boot + passed, Wall: now.Wall.Add(passed)}
}

func openOn(t *testing.T, c clock.Clock) *sqlkv.Store {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(t.TempDir(), "kv.db"))
	require.NoError(t, err)
	store, err := sqlkv.Open(t.Context(), db, sqlkv.WithClock(c))
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, store.Close())
		require.NoError(t, db.Close())
	})
	return store
}

func TestALateWriteIsNotCommitted(t *testing.T) {
	t.Parallel()
	c := &leaping{Clock: clock.System}
	store := openOn(t, c)
	c.leap.Store(int64(31 * time.Second))
	require.ErrorIs(t, store.Put(t.Context(), "k"), kv.ErrThrottled)
	c.leap.Store(0)
	exists, err := store.Exists(t.Context(), "k")
	require.NoError(t, err)
	require.False(t, exists)
	require.NoError(t, store.Put(t.Context(), "k"), "the connection is not left in a transaction")
}

func TestExpiredRowsAreSwept(t *testing.T) {
	t.Parallel()
	c := &leaping{Clock: clock.System}
	db, err := sql.Open("sqlite", filepath.Join(t.TempDir(), "kv.db"))
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	store, err := sqlkv.Open(t.Context(), db, sqlkv.WithClock(c))
	require.NoError(t, err)
	defer func() { require.NoError(t, store.Close()) }()
	for i := range 20 {
		require.NoError(t, store.Put(t.Context(), fmt.Sprint("short/", i), kv.WithTTL(time.Second)))
		require.NoError(t, store.Put(t.Context(), fmt.Sprint("long/", i), kv.WithTTL(time.Hour)))
	}
	c.passed.Add(int64(5 * time.Minute))
	for i := range 64 {
		require.NoError(t, store.Put(t.Context(), fmt.Sprint("plain/", i)))
	}
	var rows int
	require.NoError(t, db.QueryRowContext(t.Context(), "SELECT count(*) FROM kv").Scan(&rows))
	require.Equal(t, 20+64, rows)
}

// Readers see the version of an expired row for a minute, so that is how long it
// stays.
func TestExpiredRowsStayForAMinute(t *testing.T) {
	t.Parallel()
	c := &leaping{Clock: clock.System}
	store := openOn(t, c)
	require.NoError(t, store.Put(t.Context(), "k", kv.WithTTL(time.Second)))
	pair, err := store.Get(t.Context(), "k")
	require.NoError(t, err)
	sweep := func() {
		for i := range 64 {
			require.NoError(t, store.Put(t.Context(), fmt.Sprint("plain/", i)))
		}
	}
	absent := func() *kv.NotFoundError {
		_, err := store.Get(t.Context(), "k")
		var absent *kv.NotFoundError
		require.ErrorAs(t, err, &absent)
		return absent
	}
	c.passed.Add(int64(2 * time.Second))
	sweep()
	require.Equal(t, pair.Version, absent().Version)
	c.passed.Add(int64(2 * time.Minute))
	sweep()
	require.Zero(t, absent().Version)
}

// ending is a clock that calls end when it is read for the n-th time from now.
type ending struct {
	clock.Clock
	left atomic.Int64
	end  func()
}

func (e *ending) Now() clock.Reading {
	if e.left.Add(-1) == 0 {
		e.end()
	}
	return e.Clock.Now()
}

// A context that ends while its write is under way leaves nothing written.
func TestAWriteWhoseContextEndsBeforeItsCommitIsNotCommitted(t *testing.T) {
	t.Parallel()
	c := &ending{Clock: clock.System}
	store := openOn(t, c)
	require.NoError(t, store.Put(t.Context(), "warm"))
	ctx, end := context.WithCancel(t.Context())
	c.end = end
	c.left.Store(2) // the beginning of the operation, and that of the transaction
	require.ErrorIs(t, store.Put(ctx, "k"), context.Canceled)
	exists, err := store.Exists(t.Context(), "k")
	require.NoError(t, err)
	require.False(t, exists)
}

func TestAPageOfLargeValuesEndsEarly(t *testing.T) {
	t.Parallel()
	store := openOn(t, clock.System)
	for i := range 8 {
		require.NoError(t, store.Put(t.Context(), fmt.Sprint(i), kv.WithBytes(make([]byte, 300<<10))))
	}
	page, err := store.ListPage(t.Context(), "")
	require.NoError(t, err)
	require.Len(t, page.Pairs, 4)
	page, err = store.ListPage(t.Context(), "", kv.WithStartKey(page.Next))
	require.NoError(t, err)
	require.Len(t, page.Pairs, 4)
	require.Empty(t, page.Next)
}

func TestCloseWaitsForWritesAndRefusesLaterOnes(t *testing.T) {
	t.Parallel()
	store := openOn(t, clock.System)
	var wg sync.WaitGroup
	errs := make(chan error, 8)
	for worker := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				if err := store.Put(t.Context(), fmt.Sprint(worker, "/", i)); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	for range 8 { // a few writes, not a time
		require.NoError(t, store.Put(t.Context(), "k"))
	}
	require.NoError(t, store.Close())
	wg.Wait()
	close(errs)
	for err := range errs {
		require.ErrorIs(t, err, kv.ErrClosed)
	}
}
