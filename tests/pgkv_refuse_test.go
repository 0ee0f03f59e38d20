package tests_test

import (
	"context"
	crand "crypto/rand"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/postgreslocal"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/pgkv"
)

// uniqueName returns a name of a table or role that no other test has.
func uniqueName(what string) string { return what + "_" + strings.ToLower(crand.Text()) }

// refusal returns the error of the first use of a store at dsn, which is that of every method.
func refusal(t *testing.T, dsn string, options ...pgkv.Option) error {
	t.Helper()
	store := openPg(t, dsn, "refused", options...)
	pair := kv.NewPair("k", 1, nil, pairExpiry, nil)
	_, err := store.Get(t.Context(), "k")
	require.Error(t, err)
	for name, write := range wireWrites {
		again := write(t.Context(), store, pair)
		require.EqualError(t, again, err.Error(), name)
		require.NotErrorIs(t, again, kv.ErrUncertain, name)
	}
	_, again := store.List(t.Context(), "k")
	require.EqualError(t, again, err.Error())
	return err
}

func TestPostgresThatIsNotFitIsRefusedAtFirstUse(t *testing.T) {
	t.Parallel()
	server := postgreslocal.Shared(t)
	sharedPostgres(t)
	dsn := func(parameters ...string) string { return server.DSN(postgreslocal.Superuser, "", parameters...) }
	for _, c := range []struct {
		name       string
		parameters []string
		remedies   []string
	}{
		{"no statement_timeout", nil, []string{"statement_timeout is not set", "SET statement_timeout = '10s'"}},
		{"a statement_timeout too long", []string{"statement_timeout=61s"},
			[]string{"statement_timeout is 1m1s, want at most 1m0s", "SET statement_timeout = '10s'"}},
		{"synchronous_commit off", []string{pgTimeout, "synchronous_commit=off"}, []string{"SET synchronous_commit = on"}},
		{"repeatable read", []string{pgTimeout, "default_transaction_isolation=repeatable read"},
			[]string{"SET default_transaction_isolation = 'read committed'"}},
		{"several at once", []string{"synchronous_commit=off"},
			[]string{"statement_timeout is not set", "synchronous_commit is off"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			err := refusal(t, dsn(c.parameters...))
			require.ErrorIs(t, err, pgkv.ErrUnfit)
			for _, remedy := range c.remedies {
				require.ErrorContains(t, err, remedy)
			}
		})
	}
	t.Run("bounds that are fit", func(t *testing.T) {
		t.Parallel()
		for _, parameter := range []string{"statement_timeout=1min", "statement_timeout=60000", "statement_timeout=1500ms"} {
			_, err := openPg(t, dsn(parameter, "synchronous_commit=local"), crand.Text()).AtomicPut(t.Context(), "k")
			require.NoError(t, err, parameter)
		}
	})
	t.Run("no table", func(t *testing.T) {
		t.Parallel()
		err := refusal(t, dsn(pgTimeout), pgkv.WithTable("missing"))
		require.ErrorIs(t, err, pgkv.ErrTableNotFound)
		require.ErrorContains(t, err, "EnsureTable")
	})
	t.Run("an unlogged table", func(t *testing.T) {
		t.Parallel()
		db, table := openPostgres(t, dsn(pgTimeout)), uniqueName("unlogged")
		require.NoError(t, pgkv.EnsureTable(t.Context(), db, pgkv.WithTable(table)))
		_, err := db.ExecContext(t.Context(), "ALTER TABLE "+table+" SET UNLOGGED")
		require.NoError(t, err)
		err = refusal(t, dsn(pgTimeout), pgkv.WithTable(table))
		require.ErrorIs(t, err, pgkv.ErrUnfit)
		require.ErrorContains(t, err, "SET LOGGED")
	})
	t.Run("another format", func(t *testing.T) {
		t.Parallel()
		db, table := openPostgres(t, dsn(pgTimeout)), uniqueName("future")
		require.NoError(t, pgkv.EnsureTable(t.Context(), db, pgkv.WithTable("public."+table)))
		_, err := db.ExecContext(t.Context(), "COMMENT ON TABLE "+table+" IS 'dynalock table, format 2'")
		require.NoError(t, err)
		require.ErrorIs(t, refusal(t, dsn(pgTimeout), pgkv.WithTable(table)), kv.ErrFormat)
		require.ErrorIs(t, pgkv.EnsureTable(t.Context(), db, pgkv.WithTable(table)), kv.ErrFormat)
	})
	t.Run("what is mended is taken", func(t *testing.T) {
		t.Parallel()
		db := openPostgres(t, dsn(pgTimeout))
		role := uniqueName("mended")
		_, err := db.ExecContext(t.Context(), fmt.Sprintf("CREATE ROLE %q SUPERUSER LOGIN", role))
		require.NoError(t, err)
		roleDB := openPostgres(t, server.DSN(role, ""))
		roleDB.SetMaxIdleConns(0) // so that what is set for the role holds at once
		store, err := pgkv.New(roleDB, pgkv.WithNamespace(role))
		require.NoError(t, err)
		require.ErrorIs(t, store.Put(t.Context(), "k"), pgkv.ErrUnfit)
		_, err = db.ExecContext(t.Context(), fmt.Sprintf("ALTER ROLE %q SET statement_timeout = '10s'", role))
		require.NoError(t, err)
		require.NoError(t, store.Put(t.Context(), "k"))
	})
}

func TestPostgresWithoutFsyncIsRefused(t *testing.T) {
	t.Parallel()
	server := postgreslocal.Own(t, "fsync=off")
	dsn := server.DSN(postgreslocal.Superuser, "", pgTimeout)
	require.NoError(t, pgkv.EnsureTable(t.Context(), openPostgres(t, dsn)))
	err := refusal(t, dsn)
	require.ErrorIs(t, err, pgkv.ErrUnfit)
	require.ErrorContains(t, err, "set fsync = on")
}

func TestAPostgresReplicaIsRefused(t *testing.T) {
	t.Parallel()
	primary := postgreslocal.Own(t)
	dsn := primary.DSN(postgreslocal.Superuser, "", pgTimeout)
	require.NoError(t, pgkv.EnsureTable(t.Context(), openPostgres(t, dsn)))
	require.NoError(t, openPg(t, dsn, "refused").Put(t.Context(), "k"))
	replica := primary.Replica(t)
	err := refusal(t, replica.DSN(postgreslocal.Superuser, "", pgTimeout))
	require.ErrorIs(t, err, pgkv.ErrUnfit)
	require.ErrorContains(t, err, "target_session_attrs=read-write")
}

// The program's role needs no more than the pages say.
func TestPostgresLeastPrivilege(t *testing.T) {
	t.Parallel()
	server := postgreslocal.Own(t)
	admin := openPostgres(t, server.DSN(postgreslocal.Superuser, "", pgTimeout))
	require.NoError(t, pgkv.EnsureTable(t.Context(), admin))
	run := func(statement string) {
		t.Helper()
		_, err := admin.ExecContext(t.Context(), statement)
		require.NoError(t, err)
	}
	run("CREATE ROLE least LOGIN")
	dsn := server.DSN("least", "", pgTimeout)
	previous := kv.NewPair("k", 1, nil, pairExpiry, nil)
	for name, write := range wireWrites {
		require.ErrorContains(t, write(t.Context(), openPg(t, dsn, "least"), previous),
			"needs SELECT, INSERT, UPDATE and DELETE", name)
	}
	for _, statement := range sqlOfThePages(t, "least") {
		run(statement)
	}
	dsn = server.DSN("least", "") // its time limit is the role's now
	store := openPg(t, dsn, "least")
	for range 100 { // it sweeps, too
		pair, err := store.AtomicPut(t.Context(), "k")
		require.NoError(t, err)
		pair, err = store.AtomicPut(t.Context(), "k", kv.WithPrevious(pair))
		require.NoError(t, err)
		require.NoError(t, store.AtomicDelete(t.Context(), "k", pair))
	}
	require.NoError(t, store.Put(t.Context(), "k", kv.WithFields(kv.Fields{"f": "v"})))
	db := openPostgres(t, dsn)
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	require.NoError(t, store.Check(t.Context(), tx, kv.Condition{Key: "k", Field: "f", Value: "v"}))
	require.NoError(t, tx.Commit())
	require.NoError(t, store.Delete(context.Background(), "k"))
}
