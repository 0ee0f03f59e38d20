package pgkv

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
)

// ErrUnfit says that the server, or how the program's role is set up on it,
// does not keep the promises of this package. The error's text says what to
// change. Nothing was written.
var ErrUnfit = errors.New("pgkv: the server is not fit")

const (
	// inspectEvery is how often a Store looks at the server's settings.
	inspectEvery = time.Minute
	// hearing is by how much what we take the server's time for may be ahead of
	// what its last answer says.
	hearing = 50 * time.Millisecond
)

// serverClock knows the server's time. Each answer of the server tells it.
type serverClock struct {
	mu         sync.Mutex
	serverTime time.Time     // what the server said
	heard      clock.Reading // when, at the latest
	inspected  clock.Reading // when the settings were last found right
}

// hear takes what the server's clock said in an answer that is received now.
// An answer that took long says less than an earlier one that did not.
func (c *serverClock) hear(serverTime time.Time, now clock.Reading) {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.serverTime.Add(now.MonotonicSince(c.heard)).Sub(serverTime)
	if !c.serverTime.IsZero() && known > 0 && known < hearing {
		return
	}
	c.serverTime, c.heard = serverTime, now
}

// forget makes the next attempt ask for the server's time.
func (c *serverClock) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.serverTime, c.heard, c.inspected = time.Time{}, clock.Reading{}, clock.Reading{}
}

// at returns the server's time at r. It is no later than the server's own, but
// for the drift of two clocks since the last answer, a minute ago at most: the
// monotonic clock alone counts, which may stand still but not leap.
func (c *serverClock) at(r clock.Reading) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.serverTime.Add(r.MonotonicSince(c.heard))
}

// stale reports whether the server must be asked before it is used.
func (c *serverClock) stale(now clock.Reading) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.inspected.IsZero() || now.MonotonicSince(c.inspected) >= inspectEvery
}

func (c *serverClock) approve(now clock.Reading) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inspected = now
}

// settings are what a Store depends on.
const settings = `SELECT clock_timestamp(), pg_is_in_recovery(), current_setting('fsync'),
	current_setting('synchronous_commit'),
	(extract(epoch FROM current_setting('statement_timeout')::interval) * 1000)::bigint,
	current_setting('default_transaction_isolation'), current_setting('server_encoding'),
	to_regclass($1::text) IS NOT NULL, obj_description(to_regclass($1::text), 'pg_class'),
	(SELECT c.relpersistence::text FROM pg_class c WHERE c.oid = to_regclass($1::text))`

// inspect looks at the server's settings, if that is due.
func (op *operation) inspect(ctx context.Context, conn *sql.Conn) error {
	s := op.store
	if !s.server.stale(s.clock.Now()) {
		return nil
	}
	var (
		now                                time.Time
		replica, exists                    bool
		fsync, commit, isolation, encoding string
		timeout                            int64
		comment, persistence               sql.NullString
	)
	found, err := op.query(ctx, conn, false, settings, []any{s.table},
		&now, &replica, &fsync, &commit, &timeout, &isolation, &encoding, &exists, &comment, &persistence)
	if err != nil {
		return err
	}
	if !found {
		return &failure{notApplied, errors.New("pgkv: the server's settings: no answer")}
	}
	s.server.hear(now, s.clock.Now())
	err = fitness{replica, fsync, commit, time.Duration(timeout) * time.Millisecond, isolation, encoding}.check()
	switch {
	case err != nil:
	case !exists:
		err = &tableNotFoundError{table: s.table}
	case persistence.String != "p":
		err = fmt.Errorf("%w: table %s is not permanent (UNLOGGED or temporary), so a crash empties it: "+
			"ALTER TABLE %s SET LOGGED", ErrUnfit, s.table, s.table)
	default:
		err = checkFormat(s.table, comment.String)
	}
	if err != nil {
		return &failure{refused, err}
	}
	s.server.approve(s.clock.Now())
	return nil
}

// fitness is what a server says of itself.
type fitness struct {
	replica             bool
	fsync, commit       string
	timeout             time.Duration
	isolation, encoding string
}

// check returns an ErrUnfit that names what is wrong, and the remedy.
func (f fitness) check() error {
	var problems []string
	for _, p := range []struct {
		wrong  bool
		remedy string
	}{
		{f.replica,
			"it is a replica, which may lag behind and takes no writes: " +
				"connect to the primary (target_session_attrs=read-write)"},
		{f.fsync != "on", "fsync is " + f.fsync +
			", so a crash loses acknowledged writes: set fsync = on in postgresql.conf"},
		{f.commit == "off",
			"synchronous_commit is off, so a crash loses acknowledged writes: " +
				"ALTER ROLE … SET synchronous_commit = on, or in the connection string"},
		{f.timeout <= 0,
			"statement_timeout is not set, so a write may land at any time: " +
				"ALTER ROLE … SET statement_timeout = '10s', or in the connection string"},
		{f.timeout > maxStatement,
			fmt.Sprintf("statement_timeout is %v, want at most %v: ALTER ROLE … SET statement_timeout = '10s', "+
				"or in the connection string", f.timeout, maxStatement)},
		{f.isolation != "read committed",
			"default_transaction_isolation is " + f.isolation +
				": ALTER ROLE … SET default_transaction_isolation = 'read committed'"},
		{f.encoding != "UTF8", "the database's encoding is " + f.encoding + ": create one with ENCODING 'UTF8'"},
	} {
		if p.wrong {
			problems = append(problems, p.remedy)
		}
	}
	if len(problems) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrUnfit, strings.Join(problems, "; "))
}

// tableNotFoundError matches ErrTableNotFound and kv.ErrRefused.
type tableNotFoundError struct {
	table string
	err   error // what the server said, nil if we asked
}

func (e *tableNotFoundError) Error() string {
	return fmt.Sprintf("pgkv: table %s does not exist, or is not in the search_path: create it with EnsureTable", e.table)
}

func (e *tableNotFoundError) Unwrap() []error {
	if e.err == nil {
		return []error{ErrTableNotFound, kv.ErrRefused}
	}
	return []error{ErrTableNotFound, kv.ErrRefused, e.err}
}
