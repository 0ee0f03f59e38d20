package main

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/postgreslocal"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/pgkv"
	"github.com/dynalock/dynalock/lease"
)

func TestOnlyTheHolderBooks(t *testing.T) {
	t.Parallel()
	dsn := postgreslocal.Own(t).DSN(postgreslocal.Superuser, "", "statement_timeout=10s")
	require.NoError(t, run(t.Context(), dsn, 3))

	db, err := sql.Open("pgx", dsn)
	require.NoError(t, err)
	defer db.Close()
	books := func() (from, to, bookings int) {
		err := db.QueryRowContext(t.Context(), `SELECT (SELECT balance FROM accounts WHERE name = 'from'),
			(SELECT balance FROM accounts WHERE name = 'to'),
			(SELECT count(*) FROM bookings)`).Scan(&from, &to, &bookings)
		require.NoError(t, err)
		return from, to, bookings
	}
	from, to, bookings := books()
	require.Equal(t, []int{985, 15, 3}, []int{from, to, bookings})

	store, err := pgkv.New(db)
	require.NoError(t, err)
	client, err := lease.New(store)
	require.NoError(t, err)
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		require.NoError(t, client.Close(ctx))
	}()
	held, err := client.Acquire(t.Context(), "bookkeeper")
	require.NoError(t, err)
	condition := held.Condition()
	require.NoError(t, book(t.Context(), db, store, condition, 5))
	require.NoError(t, held.Release(t.Context()))
	require.ErrorIs(t, book(t.Context(), db, store, condition, 5), kv.ErrKeyModified, "it woke up too late")
	from, to, bookings = books()
	require.Equal(t, []int{980, 20, 4}, []int{from, to, bookings})
}
