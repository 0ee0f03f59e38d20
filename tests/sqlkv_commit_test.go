package tests_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/sqlkv"
)

var errCommit = errors.New("disk I/O error")

// faultyDB is a connector whose commits fail as told. One goroutine uses it.
type faultyDB struct {
	inner driver.Driver
	file  string
	// commit is what becomes of the next COMMIT, nil: it goes well. It is asked
	// once, and again only if it sets itself anew.
	commit func(commit func() error) error
	// connect is called before each new connection.
	connect func() error
}

func (d *faultyDB) Driver() driver.Driver { return d.inner }

func (d *faultyDB) Connect(context.Context) (driver.Conn, error) {
	if d.connect != nil {
		if err := d.connect(); err != nil {
			return nil, err
		}
	}
	conn, err := d.inner.Open(d.file)
	return faultyConn{conn, d}, err
}

type faultyConn struct {
	driver.Conn
	db *faultyDB
}

func (c faultyConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	return c.Conn.(driver.QueryerContext).QueryContext(ctx, query, args)
}

func (c faultyConn) ExecContext(ctx context.Context, query string,
	args []driver.NamedValue) (result driver.Result, err error) {
	exec := func() error {
		result, err = c.Conn.(driver.ExecerContext).ExecContext(ctx, query, args)
		return err
	}
	if fault := c.db.commit; query == "COMMIT" && fault != nil {
		c.db.commit = nil
		return nil, fault(exec)
	}
	err = exec()
	return result, err
}

func failAfter(commit func() error) error { return errors.Join(commit(), errCommit) }
func failBefore(func() error) error       { return errCommit }
func breakOff(func() error) error         { return driver.ErrBadConn }

// openFaulty opens a store through d on a new file.
func openFaulty(t *testing.T) (*faultyDB, *sqlkv.Store) {
	t.Helper()
	plain, err := sql.Open("sqlite", "")
	require.NoError(t, err)
	d := &faultyDB{inner: plain.Driver(), file: filepath.Join(t.TempDir(), "kv.db")}
	require.NoError(t, plain.Close())
	db := sql.OpenDB(d)
	store, err := sqlkv.Open(t.Context(), db)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, store.Close())
		require.NoError(t, db.Close())
	})
	return d, store
}

// writes are the store's four, each of which makes the value of "k" "new" or deletes it.
var writes = map[string]func(ctx context.Context, store kv.Store, previous *kv.KVPair) error{
	"put": func(ctx context.Context, s kv.Store, _ *kv.KVPair) error {
		return s.Put(ctx, "k", kv.WithString("new"))
	},
	"delete": func(ctx context.Context, s kv.Store, _ *kv.KVPair) error { return s.Delete(ctx, "k") },
	"atomic put": func(ctx context.Context, s kv.Store, previous *kv.KVPair) error {
		_, err := s.AtomicPut(ctx, "k", kv.WithString("new"), kv.WithPrevious(previous))
		return err
	},
	"atomic delete": func(ctx context.Context, s kv.Store, previous *kv.KVPair) error {
		return s.AtomicDelete(ctx, "k", previous)
	},
}

// value returns the value of "k", "" if there is none.
func value(t *testing.T, store kv.Store) string {
	t.Helper()
	pair, err := store.Get(t.Context(), "k")
	if errors.Is(err, kv.ErrKeyNotFound) {
		return ""
	}
	require.NoError(t, err)
	return pair.String()
}

func TestACommitThatFailsAfterItWasAppliedIsUncertain(t *testing.T) {
	t.Parallel()
	for name, write := range writes {
		d, store := openFaulty(t)
		previous, err := store.AtomicPut(t.Context(), "k", kv.WithString("old"))
		require.NoError(t, err)
		for _, fault := range []func(func() error) error{failAfter, func(commit func() error) error { return errors.Join(commit(), driver.ErrBadConn) }} {
			d.commit = fault
			err = write(t.Context(), store, previous)
			var uncertain *kv.UncertainError
			require.ErrorAs(t, err, &uncertain, name)
			require.Equal(t, "k", uncertain.Key)
			require.Equal(t, strings.HasPrefix(name, "atomic"), uncertain.Version > 0, "%s: no version tells a blind write",
				name)
			current, err := store.Get(t.Context(), "k")
			if err == nil { // the error shows what the write left, and that it was this one
				require.Equal(t, "new", value(t, store), name)
				require.Equal(t, current, uncertain.Current, name)
				if name == "atomic put" {
					require.Equal(t, current.Version, uncertain.Version)
				}
			} else {
				require.Nil(t, uncertain.Current, name)
				require.Contains(t, name, "delete")
			}
			require.NoError(t, store.Put(t.Context(), "k"))
			previous, err = store.Get(t.Context(), "k")
			require.NoError(t, err)
		}
	}
}

func TestACommitThatFailsUnappliedIsNotApplied(t *testing.T) {
	t.Parallel()
	for name, write := range writes {
		d, store := openFaulty(t)
		previous, err := store.AtomicPut(t.Context(), "k", kv.WithString("old"))
		require.NoError(t, err)
		for _, fault := range []func(func() error) error{failBefore, breakOff} {
			d.commit = fault
			err = write(t.Context(), store, previous)
			require.Error(t, err, name)
			if name == "delete" { // it counts no version, so nothing tells
				require.ErrorIs(t, err, kv.ErrUncertain, name)
			} else {
				require.NotErrorIs(t, err, kv.ErrUncertain, name)
			}
			require.Equal(t, "old", value(t, store), name)
		}
		require.NoError(t, write(t.Context(), store, previous), "%s: the same again is no conflict", name)
	}
}

func TestAFailedCommitIsUncertainWhileTheDatabaseIsAway(t *testing.T) {
	t.Parallel()
	for name, write := range writes {
		d, store := openFaulty(t)
		previous, err := store.AtomicPut(t.Context(), "k", kv.WithString("old"))
		require.NoError(t, err)

		d.commit, d.connect = breakOff, func() error { return errCommit }
		err = write(t.Context(), store, previous)
		require.ErrorIs(t, err, kv.ErrUncertain, name)
		require.ErrorIs(t, err, errCommit, name)
		require.ErrorIs(t, store.Put(t.Context(), "k"), errCommit, name)

		d.connect = nil
		d.commit = func(func() error) error {
			d.commit = failBefore // the look fails, too
			return errCommit
		}
		require.ErrorIs(t, write(t.Context(), store, previous), kv.ErrUncertain, name)
		require.Equal(t, "old", value(t, store), name)
		require.NoError(t, write(t.Context(), store, previous), name)
	}
}

// What another process wrote after the failed commit must not be taken for its
// result, nor for a proof that it has none.
func TestAFailedCommitIsUncertainAfterAnothersWrite(t *testing.T) {
	t.Parallel()
	d, store := openFaulty(t)
	previous, err := store.AtomicPut(t.Context(), "k", kv.WithString("old"))
	require.NoError(t, err)
	other := openFile(t, d.file)
	d.commit, d.connect = failBefore, func() error {
		d.connect = nil
		return other.Put(t.Context(), "k", kv.WithString("new")) // gets the version that the failed one would have had
	}
	pair, err := store.AtomicPut(t.Context(), "k", kv.WithString("new"), kv.WithPrevious(previous))
	require.Nil(t, pair)
	var uncertain *kv.UncertainError
	require.ErrorAs(t, err, &uncertain)
	current, err := other.Get(t.Context(), "k")
	require.NoError(t, err)
	require.Equal(t, uncertain.Version, current.Version)
	require.Equal(t, current, uncertain.Current)
}
