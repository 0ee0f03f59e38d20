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
