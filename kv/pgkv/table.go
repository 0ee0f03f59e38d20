package pgkv

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/dynalock/dynalock/kv"
)

// ErrTableNotFound says that the table does not exist, or that the role may not
// see it. Nothing was written.
var ErrTableNotFound = errors.New("pgkv: table does not exist")

// format is the comment of a table that this package can use.
const format = "dynalock table, format 1"

var identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,62}$`)

func quoteTable(name string) (string, error) {
	parts := strings.Split(name, ".")
	for i, part := range parts {
		if len(parts) > 2 || !identifier.MatchString(part) {
			return "", fmt.Errorf("WithTable(%.140q): want name or schema.name, of letters, digits and underscores: %w", name,
				kv.ErrInvalidOption)
		}
		parts[i] = `"` + part + `"`
	}
	return strings.Join(parts, "."), nil
}

// createTable is the table. key is bytes, as text cannot hold U+0000 and
// would be sorted by a collation. Three quarters of each page are left free, so
// that a heartbeat's new row fits beside the old ones and no index changes
// (HOT). For the same reason there is no second index.
const createTable = `CREATE TABLE IF NOT EXISTS %s (
	ns      text        NOT NULL,
	key     bytea       NOT NULL,
	version bigint      NOT NULL,
	value   bytea,
	fields  jsonb,
	expires timestamptz,
	deleted boolean     NOT NULL,
	sweep   timestamptz,
	writer  bytea       NOT NULL,
	written timestamptz NOT NULL,
	PRIMARY KEY (ns, key)
) WITH (fillfactor = 25)`

// EnsureTable creates the table if it is missing. It needs a role that may: the
// program's own role needs no more than SELECT, INSERT, UPDATE and DELETE on the
// table. A table that another version of this package made is a kv.ErrFormat.
func EnsureTable(ctx context.Context, db *sql.DB, options ...Option) error {
	if db == nil {
		return fmt.Errorf("pgkv: the database is nil: %w", kv.ErrInvalidOption)
	}
	c, err := newConfig(options)
	if err != nil {
		return err
	}
	for {
		err := ensureTable(ctx, db, c.table)
		// Two who create it at once: one meets the other's row in a catalogue,
		// or its table without a comment.
		if code := sqlState(err); code != "23505" && code != "42P07" && code != "XX000" || ctx.Err() != nil {
			return err
		}
	}
}

func ensureTable(ctx context.Context, db *sql.DB, table string) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("pgkv: creating table %s: %w", table, err)
	}
	defer func() { _ = tx.Rollback() }() // after a commit it does nothing
	var comment sql.NullString
	var exists bool
	const find = "SELECT to_regclass($1::text) IS NOT NULL, obj_description(to_regclass($1::text), 'pg_class')"
	if err := tx.QueryRowContext(ctx, find, table).Scan(&exists, &comment); err != nil {
		return fmt.Errorf("pgkv: looking for table %s: %w", table, err)
	}
	if exists {
		return checkFormat(table, comment.String)
	}
	for _, statement := range []string{fmt.Sprintf(createTable, table),
		fmt.Sprintf("COMMENT ON TABLE %s IS '%s'", table, format)} {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("pgkv: creating table %s: %w", table, err)
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("pgkv: creating table %s: %w", table, err)
	}
	return nil
}

func checkFormat(table, comment string) error {
	if comment != format {
		return fmt.Errorf("pgkv: table %s has the comment %q, want %q: it is no table of this version of pgkv: %w", table,
			comment, format, kv.ErrFormat)
	}
	return nil
}
