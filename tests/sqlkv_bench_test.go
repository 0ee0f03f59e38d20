package tests_test

import (
	"database/sql"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/sqlkv"
)

func benchStore(b *testing.B) *sqlkv.Store {
	b.Helper()
	db, err := sql.Open("sqlite", filepath.Join(b.TempDir(), "kv.db"))
	require.NoError(b, err)
	store, err := sqlkv.Open(b.Context(), db)
	require.NoError(b, err)
	b.Cleanup(func() {
		require.NoError(b, store.Close())
		require.NoError(b, db.Close())
	})
	return store
}

func BenchmarkSQLitePut(b *testing.B) {
	store, ctx := benchStore(b), b.Context()
	for i := 0; b.Loop(); i++ {
		if err := store.Put(ctx, strconv.Itoa(i%1000), kv.WithString("value")); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSQLiteGet(b *testing.B) {
	store, ctx := benchStore(b), b.Context()
	require.NoError(b, store.Put(ctx, "k", kv.WithString("value")))
	for b.Loop() {
		if _, err := store.Get(ctx, "k"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSQLiteAtomicPut(b *testing.B) {
	store, ctx := benchStore(b), b.Context()
	var pair *kv.KVPair
	for b.Loop() {
		var err error
		if pair, err = store.AtomicPut(ctx, "k", kv.WithString("value"), kv.WithPrevious(pair)); err != nil {
			b.Fatal(err)
		}
	}
}

// The read that Get sends, prepared once, without the store.
func BenchmarkSQLiteGetBySQL(b *testing.B) {
	db, err := sql.Open("sqlite", filepath.Join(b.TempDir(), "kv.db"))
	require.NoError(b, err)
	store, err := sqlkv.Open(b.Context(), db)
	require.NoError(b, err)
	require.NoError(b, store.Put(b.Context(), "k", kv.WithString("value")))
	require.NoError(b, store.Close())
	conn, err := db.Conn(b.Context())
	require.NoError(b, err)
	statement, err := conn.PrepareContext(b.Context(), "SELECT key, version, expires, fields, value FROM kv WHERE key = ?")
	require.NoError(b, err)
	b.Cleanup(func() {
		require.NoError(b, statement.Close())
		require.NoError(b, conn.Close())
		require.NoError(b, db.Close())
	})
	key := []byte("k")
	for b.Loop() {
		var found, value []byte
		var version int64
		var expires sql.NullInt64
		var fields sql.NullString
		err := statement.QueryRowContext(b.Context(), key).Scan(&found, &version, &expires, &fields, &value)
		if err != nil {
			b.Fatal(err)
		}
	}
}
