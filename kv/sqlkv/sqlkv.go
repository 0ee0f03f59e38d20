// Package sqlkv is a kv.Store in an SQLite file: durable, for several processes on one
// machine.
//
// It speaks SQL through database/sql and imports no driver. The program does, and opens
// the database.
//
//	import _ "modernc.org/sqlite"
//
//	db, err := sql.Open("sqlite", "/var/lib/app/locks.db")
//	store, err := sqlkv.Open(ctx, db)
//
// A write is one transaction that begins with BEGIN IMMEDIATE, so nobody else changes what
// it reads before it commits. The file is in WAL mode with synchronous=FULL. What a
// method acknowledged survives kill -9 and power loss, as far as the disk keeps its
// promises. Versions come from one counter in the file.
//
// When a COMMIT fails, the store looks again on a new connection. The error then says
// that nothing was written, or is a *kv.UncertainError. That look may fail too, on a disk
// that is full or broken. If every process dies before anyone's next write then, SQLite's
// recovery may still apply the write.
//
// Every process must be on the same machine. WAL needs shared memory, which NFS, SMB and
// some container mounts do not have.
//
// A file that is deleted or replaced while it is in use is refused from then on, as
// kv.ErrRefused: by a write before it commits, by a read within a second. Do not
// keep it in a folder that is cleaned. Its mode is the program's business. Create
// the file with 0600 before you open it, unless others may read what it holds.
//
// The data is in the tables kv and kv_meta. The database may hold others. Other access
// slows the store down. It breaks the store if it writes to these tables or holds a write
// transaction open for long.
package sqlkv

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
)

// readConns is how many reads run at once. They wait for the CPU, rarely for the disk.
const readConns = 2

// Store is a kv.Store in an SQLite database. Open makes one. Its user closes it before
// closing the database.
type Store struct {
	db    *sql.DB
	clock clock.Clock
	file  *file

	// writer and readers hold the idle connections. Whoever takes one out owns it until
	// it is put back. A nil stands for a connection that broke: whoever takes it out
	// opens another.
	writer  chan *conn
	readers chan *conn

	closed    chan struct{}
	closeOnce sync.Once
	closeErr  error
}

var (
	_ kv.Store        = (*Store)(nil)
	_ kv.WriteDelayer = (*Store)(nil)
	_ kv.Watcher      = (*Store)(nil)
)

// Option is an option of Open.
type Option func(*Store)

// WithClock sets the clock by which pairs expire, for tests. nil is clock.System. All
// stores on a file should go by the same.
func WithClock(c clock.Clock) Option {
	return func(s *Store) {
		if c != nil {
			s.clock = c
		}
	}
}

// Open returns the store in db, an SQLite database in a file. It creates the tables if
// there are none. ctx bounds Open only. Until Close the store keeps three connections of
// db's pool to itself, and the pool must allow as many. db stays the caller's, to be
// closed after the store. A file that a newer version of this package wrote is refused.
func Open(ctx context.Context, db *sql.DB, options ...Option) (*Store, error) {
	s := &Store{
		db: db, clock: clock.System,
		writer: make(chan *conn, 1), readers: make(chan *conn, readConns),
		closed: make(chan struct{}),
	}
	for _, option := range options {
		option(s)
	}
	if conns := db.Stats().MaxOpenConnections; conns > 0 && conns < 1+readConns {
		return nil, fmt.Errorf("sqlkv: the database's pool is limited to %d connections, want at least %d",
			conns, 1+readConns)
	}
	s.writer <- nil
	for range readConns {
		s.readers <- nil
	}
	for _, slots := range []chan *conn{s.writer, s.readers} {
		for range cap(slots) {
			conn, err := s.take(ctx, slots) // the channel is a queue: this replaces each nil by a connection
			if err != nil {
				return nil, errors.Join(err, s.Close())
			}
			if s.file == nil {
				s.file, err = openFile(ctx, conn)
			}
			slots <- conn
			if err != nil {
				return nil, errors.Join(err, s.Close())
			}
		}
	}
	if err := s.migrate(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// MaxWriteDelay returns 0: a write has happened when its method returns, or never will.
// The package comment names the exception.
func (s *Store) MaxWriteDelay() time.Duration { return 0 }

// Close waits for the operations that are under way, and gives the connections back. Later
// calls return kv.ErrClosed. Close itself returns what it returned first. The database is
// not closed.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		close(s.closed)
		for _, slots := range []chan *conn{s.writer, s.readers} {
			s.closeErr = errors.Join(s.closeErr, drain(slots))
		}
	})
	return s.closeErr
}

// drain closes the connections of slots as operations put them back.
func drain(slots chan *conn) error {
	var errs []error
	for range cap(slots) {
		if conn := <-slots; conn != nil {
			errs = append(errs, ignoreDone(conn.Close()))
		}
	}
	return errors.Join(errs...)
}

// ignoreDone forgives a connection that was closed with its database.
func ignoreDone(err error) error {
	if errors.Is(err, sql.ErrConnDone) {
		return nil
	}
	return err
}

// take waits for a connection of slots. On success the caller must give it back.
func (s *Store) take(ctx context.Context, slots chan *conn) (*conn, error) {
	var conn *conn
	select {
	case conn = <-slots:
	case <-s.closed:
		return nil, kv.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case <-s.closed: // select chooses at random when both are ready
		slots <- conn
		return nil, kv.ErrClosed
	default:
	}
	if conn == nil {
		var err error
		if conn, err = s.connect(ctx); err != nil {
			slots <- nil
			return nil, err
		}
	}
	return conn, nil
}

// give puts conn back, or a nil in its place if err says that it is of no more use.
func (s *Store) give(slots chan *conn, conn *conn, err error) {
	if errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) {
		discard(conn)
		conn = nil
	}
	slots <- conn
}

// discard closes the driver's connection, so that the pool does not hand it out again with
// a transaction open.
func discard(conn *conn) {
	_ = conn.forget()
	_ = conn.Raw(func(any) error { return driver.ErrBadConn })
	_ = conn.Close()
}
