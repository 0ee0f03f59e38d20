package tests_test

import (
	crand "crypto/rand"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/postgreslocal"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/kvtest"
	"github.com/dynalock/dynalock/kv/pgkv"
)

// Behind pgbouncer in transaction mode the store keeps all its promises, with
// the role's statement_timeout.
func TestPostgresBehindPgbouncer(t *testing.T) {
	t.Parallel()
	server := postgreslocal.Own(t)
	admin := openPostgres(t, server.DSN(postgreslocal.Superuser, ""))
	require.NoError(t, pgkv.EnsureTable(t.Context(), admin))
	for _, statement := range []string{
		"CREATE ROLE pooled LOGIN", "ALTER ROLE pooled SET statement_timeout = '10s'",
		"GRANT SELECT, INSERT, UPDATE, DELETE ON dynalock TO pooled",
	} {
		_, err := admin.ExecContext(t.Context(), statement)
		require.NoError(t, err)
	}
	address := server.Pgbouncer(t, "pooled")
	dsn := server.DSN("pooled", address, "default_query_exec_mode=exec")
	namespace, patient := crand.Text(), pgkv.WithClock(patientClock{clock.System})
	stores := []kv.Store{openPg(t, dsn, namespace, patient), openPg(t, dsn, namespace, patient)}
	for seed := range uint64(2) {
		history, err := kvtest.Record(t.Context(), kvtest.Recording{Seed: seed, Clients: 8, Prefix: fmt.Sprint(seed, "/")},
			stores...)
		require.NoError(t, err)
		requireLinearizable(t, history)
	}
	kvtest.Run(t, kvtest.Harness{Open: func(t *testing.T) kv.Store { return openPg(t, dsn, crand.Text(), patient) }})

	// The driver's default needs statements that stay prepared on the
	// connection, for which this pooler has no place.
	prepared := openPg(t, server.DSN("pooled", address), namespace)
	for range 200 {
		if _, err := prepared.Get(t.Context(), "absent"); !errors.Is(err, kv.ErrKeyNotFound) {
			require.ErrorContains(t, err, "default_query_exec_mode=exec")
			return
		}
	}
}
