package tests_test

import (
	"context"
	crand "crypto/rand"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/pgkv"
	"github.com/dynalock/dynalock/lease"
)

// A holder that was deposed cannot commit what it writes, and one that is not can.
func TestADeposedHoldersCommitFails(t *testing.T) {
	t.Parallel()
	dsn, namespace := sharedPostgres(t), crand.Text()
	db := openPostgres(t, dsn)
	for _, statement := range []string{`CREATE TABLE "` + namespace + `" (id int PRIMARY KEY, owner text)`,
		`INSERT INTO "` + namespace + `" VALUES (1, '')`} {
		_, err := db.ExecContext(t.Context(), statement)
		require.NoError(t, err)
	}
	open := func(name string) (*lease.Client, *pgkv.Store) {
		store := openPg(t, dsn, namespace)
		client, err := lease.New(store, lease.WithOwner(name), lease.WithTTL(3*time.Second))
		require.NoError(t, err)
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
			defer cancel()
			require.NoError(t, client.Close(ctx))
		})
		return client, store
	}
	write := func(store *pgkv.Store, condition kv.Condition, owner string, inside func()) error {
		tx, err := db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		defer func() { _ = tx.Rollback() }()
		if err := store.Check(t.Context(), tx, condition); err != nil {
			return err
		}
		inside()
		if _, err := tx.ExecContext(t.Context(), `UPDATE "`+namespace+`" SET owner = $1`, owner); err != nil {
			return err
		}
		return tx.Commit()
	}
	owner := func() (name string) {
		require.NoError(t, db.QueryRowContext(t.Context(), `SELECT owner FROM "`+namespace+`"`).Scan(&name))
		return name
	}

	first, firstStore := open("first")
	held, err := first.Acquire(t.Context(), "job")
	require.NoError(t, err)
	old := held.Condition()
	second, secondStore := open("second")
	require.NoError(t, write(firstStore, old, "first", func() {
		// The row is locked: nobody takes the lease before the commit, and
		// whoever only tries is told at once that it is held.
		_, err := second.TryAcquire(t.Context(), "job")
		require.ErrorIs(t, err, lease.ErrHeld)
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		require.ErrorIs(t, secondStore.Delete(ctx, "lease/job"), context.DeadlineExceeded)
	}))
	require.Equal(t, "first", owner())
	_ = held.Release(t.Context()) // unless that delete was waiting for the lock, and has done it

	taken, err := second.Acquire(t.Context(), "job")
	require.NoError(t, err)
	err = write(firstStore, old, "deposed", func() {})
	require.ErrorIs(t, err, kv.ErrKeyModified)
	require.ErrorContains(t, err, "does not hold")
	require.Equal(t, "first", owner())
	require.NoError(t, write(secondStore, taken.Condition(), "second", func() {}))
	require.Equal(t, "second", owner())
	require.NoError(t, taken.Release(t.Context()))
}

func TestCheckIsOfAFieldOfALivePair(t *testing.T) {
	t.Parallel()
	dsn, namespace := sharedPostgres(t), crand.Text()
	store, db := openPg(t, dsn, namespace), openPostgres(t, dsn)
	fields := kv.Fields{"s\x00\x1a": "a\x00b\x1a0", "n": 7, "f": 0.5, "b": []byte{0, 255}}
	require.NoError(t, store.Put(t.Context(), "k", kv.WithFields(fields)))
	check := func(c kv.Condition) error {
		tx, err := db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		defer func() { require.NoError(t, tx.Rollback()) }()
		return store.Check(t.Context(), tx, c)
	}
	for field, value := range fields {
		require.NoError(t, check(kv.Condition{Key: "k", Field: field, Value: value}), field)
		require.ErrorIs(t, check(kv.Condition{Key: "k", Field: field, Value: "other"}), kv.ErrKeyModified, field)
		require.ErrorIs(t, check(kv.Condition{Key: "other", Field: field, Value: value}), kv.ErrKeyModified, field)
	}
	require.ErrorIs(t, check(kv.Condition{Key: "k", Field: "n", Value: "7"}), kv.ErrKeyModified, "a number is no string")
	require.ErrorIs(t, check(kv.Condition{Key: "", Field: "n", Value: 7}), kv.ErrInvalidKey)
	require.ErrorIs(t, check(kv.Condition{Key: "k", Field: "n", Value: true}), kv.ErrInvalidOption)
	require.NoError(t, store.Delete(t.Context(), "k"))
	require.ErrorIs(t, check(kv.Condition{Key: "k", Field: "n", Value: 7}), kv.ErrKeyModified)
	require.NoError(t, store.Put(t.Context(), "k", kv.WithFields(fields), kv.WithTTL(time.Millisecond)))
	require.Eventually(t, func() bool { return check(kv.Condition{Key: "k", Field: "n", Value: 7}) != nil },
		10*time.Second, time.Millisecond)
}
