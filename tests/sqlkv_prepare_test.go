package tests_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/sqlkv"
)

// preparer counts the statements that are prepared through it, and those that
// are not closed.
type preparer struct {
	faultyDB
	prepared, open atomic.Int64
}

func (p *preparer) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := p.faultyDB.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return preparingConn{conn.(faultyConn), p}, nil
}

type preparingConn struct {
	faultyConn
	counts *preparer
}

func (c preparingConn) Prepare(query string) (driver.Stmt, error) {
	statement, err := c.faultyConn.Prepare(query)
	if err != nil {
		return nil, err
	}
	c.counts.prepared.Add(1)
	c.counts.open.Add(1)
	return preparedStmt{statement, c.counts}, nil
}

type preparedStmt struct {
	driver.Stmt
	counts *preparer
}

func (s preparedStmt) Close() error {
	s.counts.open.Add(-1)
	return s.Stmt.Close()
}

// To parse a read takes SQLite as long as to run it.
func TestSQLiteParsesAReadOncePerConnection(t *testing.T) {
	t.Parallel()
	plain, err := sql.Open("sqlite", "")
	require.NoError(t, err)
	p := &preparer{faultyDB: faultyDB{inner: plain.Driver(), file: filepath.Join(t.TempDir(), "kv.db")}}
	require.NoError(t, plain.Close())
	db := sql.OpenDB(p)
	store, err := sqlkv.Open(t.Context(), db)
	require.NoError(t, err)
	var pair *kv.KVPair
	for range 100 {
		pair, err = store.AtomicPut(t.Context(), "k", kv.WithString("v"), kv.WithPrevious(pair))
		require.NoError(t, err)
		found, err := store.Get(t.Context(), "k")
		require.NoError(t, err)
		require.Equal(t, pair.Version, found.Version)
		exists, err := store.Exists(t.Context(), "k")
		require.NoError(t, err)
		require.True(t, exists)
	}
	require.EqualValues(t, 2, p.prepared.Load(), "Get and Exists take turns at two connections")
	require.NoError(t, store.Close())
	require.Zero(t, p.open.Load(), "the pool's connections are given back without them")
	require.NoError(t, db.Close())
}
