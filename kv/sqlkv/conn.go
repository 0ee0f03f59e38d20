package sqlkv

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
)

const (
	// busyTimeout is how long SQLite itself waits for a lock. Meanwhile it does not see
	// a context end. So it is short, and retryBusy calls it again and again.
	busyTimeout = 50 * time.Millisecond
	// busyLimit is how long an operation waits for a lock altogether.
	busyLimit = 10 * time.Second
	// lateLimit is the age from which a write is not committed any more (S6).
	lateLimit = time.Minute
	// schemaVersion is that of the tables below.
	schemaVersion = 1
)

// schema makes the tables. A key is a BLOB so that SQLite orders by bytes. expires is in
// milliseconds of the Unix epoch. fields is JSON, see encodeFields.
var schema = []string{
	`CREATE TABLE IF NOT EXISTS kv_meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID`,
	`CREATE TABLE IF NOT EXISTS kv (key BLOB PRIMARY KEY, version INTEGER NOT NULL, expires INTEGER, fields TEXT,
	value BLOB NOT NULL) WITHOUT ROWID`,
	`CREATE INDEX IF NOT EXISTS kv_expires ON kv (expires) WHERE expires IS NOT NULL`,
	`INSERT OR IGNORE INTO kv_meta (name, value) VALUES ('version', 0)`,
}

// conn is a connection of the pool. A reader prepares the statements that read a
// row once, since to parse one takes as long as to run it. The writer prepares
// none: if its connection broke, SQLite would keep its transaction for their sake.
type conn struct {
	*sql.Conn
	prepared map[string]*sql.Stmt
}

// prepare returns the statement of a query, which is one of few.
func (c *conn) prepare(ctx context.Context, query string) (*sql.Stmt, error) {
	if statement := c.prepared[query]; statement != nil {
		return statement, nil
	}
	statement, err := c.PrepareContext(ctx, query)
	if err == nil {
		c.prepared[query] = statement
	}
	return statement, err
}

// forget closes the statements, unless the driver's connection is closed already:
// then they have ended with it.
func (c *conn) forget() error {
	if err := c.Raw(func(any) error { return nil }); err != nil {
		return err
	}
	var errs []error
	for _, statement := range c.prepared {
		errs = append(errs, statement.Close())
	}
	clear(c.prepared)
	return errors.Join(errs...)
}

// Close gives the connection back to the pool, without its statements.
func (c *conn) Close() error { return errors.Join(c.forget(), c.Conn.Close()) }

// connect takes a connection out of the pool and sets it up.
func (s *Store) connect(ctx context.Context) (*conn, error) {
	pooled, err := s.db.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("sqlkv: connecting: %w", err)
	}
	conn := &conn{Conn: pooled, prepared: map[string]*sql.Stmt{}}
	for _, p := range []struct{ name, set, want, problem string }{
		{"busy_timeout", fmt.Sprint(busyTimeout.Milliseconds()), fmt.Sprint(busyTimeout.Milliseconds()), "is this SQLite?"},
		{"journal_mode", "WAL", "wal", "several connections need a database in a file on a local disk"},
		{"synchronous", "FULL", "2", "acknowledged writes would not survive a power loss"},
	} {
		err := s.retryBusy(ctx, s.clock.Now(), func() error { return setPragma(ctx, conn, p.name, p.set, p.want, p.problem) })
		if err != nil {
			discard(conn)
			return nil, err
		}
	}
	return conn, nil
}

// setPragma sets and reads back.
func setPragma(ctx context.Context, conn *conn, name, value, want, problem string) error {
	ctx = context.WithoutCancel(ctx)
	if _, err := conn.ExecContext(ctx, "PRAGMA "+name+"="+value); err != nil {
		return fmt.Errorf("sqlkv: setting %s to %s: %w", name, value, err)
	}
	var got string
	if err := conn.QueryRowContext(ctx, "PRAGMA "+name).Scan(&got); err != nil {
		return fmt.Errorf("sqlkv: reading %s: %w", name, err)
	}
	if got != want {
		return fmt.Errorf("sqlkv: %s is %q, want %q: %s", name, got, want, problem)
	}
	return nil
}

// migrate makes the tables or checks that they are of a version that this package knows.
func (s *Store) migrate(ctx context.Context) error {
	return s.transact(ctx, "", func(t *transaction) error {
		for _, statement := range schema {
			if _, err := t.conn.ExecContext(t.ctx, statement); err != nil {
				return fmt.Errorf("sqlkv: creating tables: %w", err)
			}
		}
		_, err := t.conn.ExecContext(t.ctx, `INSERT OR IGNORE INTO kv_meta (name, value) VALUES ('schema', ?)`, schemaVersion)
		if err != nil {
			return fmt.Errorf("sqlkv: creating tables: %w", err)
		}
		var version int
		if err := t.conn.QueryRowContext(t.ctx,
			`SELECT value FROM kv_meta WHERE name = 'schema'`).Scan(&version); err != nil {
			return fmt.Errorf("sqlkv: reading the schema's version: %w", err)
		}
		if version != schemaVersion {
			return fmt.Errorf("sqlkv: the database's schema has version %d, this program knows %d: %w",
				version, schemaVersion, kv.ErrFormat)
		}
		return nil
	})
}

// retryBusy calls fn until it returns something else than SQLite's BUSY, or the time is up
// since start, or ctx ends. fn must have done nothing when it is BUSY.
func (s *Store) retryBusy(ctx context.Context, start clock.Reading, fn func() error) error {
	for {
		err := fn()
		if !isBusy(err) {
			return err
		}
		if s.clock.Now().Since(start) > busyLimit {
			return fmt.Errorf("sqlkv: other transactions hold the database for more than %v: %w (%w)",
				busyLimit, kv.ErrThrottled, err)
		}
		// Some statements are BUSY at once, whatever busy_timeout is. The pause is real
		// time: a clock of a test may stand still.
		if err := clock.Sleep(ctx, clock.System, time.Millisecond); err != nil {
			return err
		}
	}
}

// isBusy recognizes SQLITE_BUSY. database/sql has no word for it. Some drivers have a
// code, all have SQLite's text.
func isBusy(err error) bool {
	if err == nil {
		return false
	}
	const busyCode = 5
	if c := code(err); c >= 0 {
		return c == busyCode
	}
	return strings.Contains(err.Error(), "database is locked")
}
