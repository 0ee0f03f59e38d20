//go:build unix

package chaos_test

import (
	"database/sql"
	"errors"
	"strings"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/postgreslocal"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/pgkv"
)

// envPostgres says that the endpoint is a PostgreSQL server's.
const envPostgres = "DYNALOCK_CHAOS_POSTGRES"

func postgresDSN(address string) string {
	return "postgres://" + postgreslocal.Superuser + "@" + address + "/" + postgreslocal.Database +
		"?sslmode=disable&statement_timeout=10s"
}

func openPostgres(endpoint string) (kv.Store, func() error, error) {
	db, err := sql.Open("pgx", postgresDSN(strings.TrimPrefix(endpoint, "http://")))
	if err != nil {
		return nil, nil, err
	}
	store, err := pgkv.New(db)
	return store, func() error { return errors.Join(store.Close(), db.Close()) }, err
}

func TestChaosOnPostgres(t *testing.T) {
	t.Parallel()
	d := duration(t)
	server := postgreslocal.Own(t)
	db, err := sql.Open("pgx", postgresDSN(server.Address()))
	require.NoError(t, err)
	require.NoError(t, pgkv.EnsureTable(t.Context(), db))
	require.NoError(t, db.Close())
	f := &fleet{t: t, env: []string{envPostgres + "=1"}}
	for _, w := range []weather{requestsLate, answersVanish, requestsVanish, answersLost, cut} {
		f.kinds = append(f.kinds, killed, string(w), stopped)
	}
	for i := range f.slots {
		f.slots[i] = &slot{proxy: startProxy(t, server.Address())}
	}
	run(f, d)
}
