// Command postgres-fence books money between accounts under a lease that is in
// the same PostgreSQL database: the transaction checks the lease, so that a
// process that has lost it cannot book, however late it wakes up.
//
//	go run ./examples/postgres-fence -db postgres://USER@HOST/DATABASE
//
// in several terminals: one of them books at a time
//
// It makes three tables: dynalock, accounts and bookings.
package main

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the database driver "pgx"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/pgkv"
	"github.com/dynalock/dynalock/lease"
)

func main() {
	dsn := flag.String("db", "", "postgres://USER@HOST/DATABASE?statement_timeout=10s")
	times := flag.Int("times", 10, "how many bookings to make")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *dsn, *times); err != nil {
		fmt.Fprintln(os.Stderr, "postgres-fence:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dsn string, times int) (err error) {
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := prepare(ctx, db); err != nil {
		return err
	}
	store, err := pgkv.New(db)
	if err != nil {
		return err
	}
	client, err := lease.New(store)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		err = errors.Join(err, client.Close(ctx))
	}()
	held, err := client.Acquire(ctx, "bookkeeper")
	if err != nil {
		return err
	}
	for range times {
		if err := book(ctx, db, store, held.Condition(), 5); err != nil {
			return errors.Join(err, held.Release(context.WithoutCancel(ctx)))
		}
	}
	fmt.Println("booked", times, "times, with token", held.Token())
	return held.Release(ctx)
}

// prepare makes the tables.
func prepare(ctx context.Context, db *sql.DB) error {
	if err := pgkv.EnsureTable(ctx, db); err != nil {
		return err
	}
	for _, statement := range []string{
		`CREATE TABLE IF NOT EXISTS accounts (name text PRIMARY KEY, balance bigint NOT NULL)`,
		`CREATE TABLE IF NOT EXISTS bookings (id bigserial PRIMARY KEY, amount bigint NOT NULL,
			made timestamptz NOT NULL DEFAULT now())`,
		`INSERT INTO accounts VALUES ('from', 1000), ('to', 0) ON CONFLICT DO NOTHING`,
	} {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// book moves amount from one account to the other, and writes it down, if the
// lease of condition is still held when it commits: the check locks the lease's
// row until then.
func book(ctx context.Context, db *sql.DB, store *pgkv.Store, condition kv.Condition, amount int) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // after a commit it does nothing
	if err := store.Check(ctx, tx, condition); err != nil {
		return err
	}
	for _, statement := range []string{
		`UPDATE accounts SET balance = balance - $1 WHERE name = 'from'`,
		`UPDATE accounts SET balance = balance + $1 WHERE name = 'to'`,
		`INSERT INTO bookings (amount) VALUES ($1)`,
	} {
		if _, err := tx.ExecContext(ctx, statement, amount); err != nil {
			return err
		}
	}
	return tx.Commit()
}
