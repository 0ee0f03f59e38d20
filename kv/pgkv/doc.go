// Package pgkv is a kv.Store in a table of PostgreSQL: for anything that runs
// in more than one place and has a PostgreSQL already.
//
// It speaks SQL through database/sql and imports no driver. The program does,
// and opens the database:
//
//	import _ "github.com/jackc/pgx/v5/stdlib"
//
//	db, err := sql.Open("pgx", "postgres://app@db.internal/app"+
//		"?statement_timeout=10s&target_session_attrs=read-write")
//	err = pgkv.EnsureTable(ctx, db) // once, by a role that may create tables
//	store, err := pgkv.New(db)
//
// # What it needs of the server
//
// A Store asks the server at its first use, and once a minute, with the
// program's own role. It refuses to work, and says what to change, unless all
// of this holds, as its promises rest on it:
//
//   - the server is a primary, not a replica
//   - statement_timeout is set, to a minute at most
//   - fsync is on, synchronous_commit is not off, and the table is not UNLOGGED:
//     otherwise writes that were acknowledged are lost in a crash, tokens with
//     them
//   - transactions are READ COMMITTED by default
//   - the database's encoding is UTF8
//
// A promoted replica that had not received all writes has lost those: see
// docs/operations.md.
//
// Each method runs single statements, each in a transaction of its own, and
// keeps no state in a session. So it works behind pgbouncer in transaction mode
// with a driver that needs no prepared statements there (pgx:
// default_query_exec_mode=exec).
//
// A [ListeningStore] hears of released leases at once, for one connection more.
//
// # How the promises are kept
//
// A conditional write is one statement, which PostgreSQL decides under the lock
// of the row. A conflict takes a second statement for the pair that stood in
// the way. A write on a previous pair sets its version to the previous one plus
// one. A create takes the time in microseconds, by the server's clock as
// the Store knows it, and applies only over a row that is dead and has a lower
// version. So the same write sent twice is applied once.
//
// Each write has a random id, which stays in the row, and a deadline a minute
// after the operation began, by the server's clock. The server applies the write
// before it only. An attempt whose answer was lost is sent again; the row's
// id and version then tell what became of the first one.
//
// Pairs expire by the server's clock, whatever those of the clients say. A
// deleted pair leaves a tombstone for an hour. Writers remove old ones as they
// go.
package pgkv
