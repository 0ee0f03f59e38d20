package pgkv

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"

	"github.com/dynalock/dynalock/internal/retry"
	"github.com/dynalock/dynalock/kv"
)

// verdict is what the failure of an attempt says about its statement.
type verdict int

const (
	notApplied verdict = iota // another attempt may be
	throttled                 // the same, for load
	refused                   // not applied, and another attempt cannot be
	unknown                   // may have been applied, or may yet be
)

// failure is an attempt's error.
type failure struct {
	verdict verdict
	err     error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// sqlState returns the code of an answer of PostgreSQL's, "" for other errors.
// database/sql has no word for it; pgx and lib/pq have this method.
func sqlState(err error) string {
	if coded, ok := errors.AsType[interface {
		error
		SQLState() string
	}](err); ok {
		return coded.SQLState()
	}
	return ""
}

// judgeConnecting judges an error of getting a connection: nothing was sent.
func judgeConnecting(err error) *failure {
	code := sqlState(err)
	switch {
	case strings.HasPrefix(code, "53"): // too many connections
		return &failure{throttled, err}
	case strings.HasPrefix(code, "57"): // starting, or shutting down
		return &failure{notApplied, err}
	case code != "", errors.Is(err, sql.ErrConnDone), strings.Contains(err.Error(), "sql: database is closed"):
		return &failure{refused, err} // by the server: password, database, parameter
	}
	return &failure{notApplied, err}
}

// judge judges the error of a statement that was handed to conn.
//
// An error with a code is an answer, but a COMMIT that fails while it is being
// written to disk has the code of any full disk, and the server then panics.
// What proves that nothing was applied is a connection that goes on.
func judge(ctx context.Context, conn *sql.Conn, err error) *failure {
	code := sqlState(err)
	switch {
	case errors.Is(err, driver.ErrBadConn): // by its contract: not sent
		return &failure{notApplied, err}
	case code == "" || !goesOn(ctx, conn):
		return &failure{unknown, err}
	}
	return &failure{judgeCode(code), err}
}

func goesOn(ctx context.Context, conn *sql.Conn) bool {
	var one int
	return conn.QueryRowContext(ctx, "SELECT 1").Scan(&one) == nil && one == 1
}

// judgeCode judges the code of an error that left the connection open.
func judgeCode(code string) verdict {
	switch code {
	case "40001", "40P01": // serialization failure, deadlock
		return notApplied
	case "55P03", "57014": // lock_timeout, statement_timeout
		return throttled
	}
	if strings.HasPrefix(code, "53") { // out of disk, memory, connections
		return throttled
	}
	return refused
}

// friendly says of an error that is of no use to retry what to do about it.
func (s *Store) friendly(key string, err error) error {
	if errors.Is(err, ErrTableNotFound) || retry.IsClassified(err) {
		return fmt.Errorf("pgkv: table %s, key %q: %w", s.table, key, err)
	}
	class, remedy := kv.ErrRefused, ""
	code := sqlState(err)
	switch {
	case code == "42P01":
		return &tableNotFoundError{table: s.table, err: err}
	case code == "42501":
		remedy = "the role needs SELECT, INSERT, UPDATE and DELETE on the table, and USAGE on its schema: "
	case code == "25006":
		err = fmt.Errorf("%w: it is a replica or default_transaction_read_only is on: "+
			"connect to the primary (target_session_attrs=read-write): %w", ErrUnfit, err)
	case code == "26000", code == "42P05":
		remedy = "prepared statements do not go through this pooler (with pgx: default_query_exec_mode=exec): "
	case strings.HasPrefix(code, "28"):
		remedy = "the server does not let this role in, check its name, its password and pg_hba.conf: "
	case code == "3D000":
		remedy = "there is no such database: "
	case strings.HasPrefix(code, "22"):
		class = kv.ErrUnsupported // a value that the server cannot store
	}
	return fmt.Errorf("pgkv: table %s, key %q: %w: %s%w", s.table, key, class, remedy, err)
}
