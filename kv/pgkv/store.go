package pgkv

import (
	"crypto/rand"
	"database/sql"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
)

const (
	defaultTable     = "dynalock"
	defaultNamespace = "default"
	maxNamespace     = 255

	// sendBound is S6: nothing is sent later than this after the operation
	// began, and by the server's clock nothing starts to be applied.
	sendBound = time.Minute
	// maxStatement is the longest statement_timeout that a Store works with.
	maxStatement = time.Minute
	// maxWriteDelay is how long after its sending a write can be applied: its
	// deadline, and a statement that began before it.
	maxWriteDelay = sendBound + maxStatement
	// retention is how long tombstones and expired rows stay, for late writes
	// to find. It exceeds maxWriteDelay and what a server's clock may step by.
	retention = time.Hour
)

// Store is a kv.Store in a table of PostgreSQL. New makes one. It takes
// connections from the database's pool for each statement.
type Store struct {
	db *sql.DB
	config
	server serverClock
	sweeps sweeper

	mu      sync.RWMutex // held for reading by operations
	closed  atomic.Bool
	closing chan struct{}
}

var (
	_ kv.Store        = (*Store)(nil)
	_ kv.WriteDelayer = (*Store)(nil)
)

// config is what the options of New and EnsureTable set.
type config struct {
	table      string // quoted
	namespace  string
	channel    string // of a ListeningStore
	clock      clock.Clock
	statements statements
}

// Option is an option of New and EnsureTable.
type Option func(*config) error

// WithTable sets the table's name, "dynalock" by default: an identifier of
// letters, digits and underscores, or two with a dot between, the first of
// which is the schema. Without one PostgreSQL's search_path decides.
func WithTable(name string) Option {
	return func(c *config) error {
		quoted, err := quoteTable(name)
		c.table = quoted
		return err
	}
}

// WithNamespace sets which part of the table the Store lives in: 1 to 255 bytes
// of UTF-8, "default" by default. Stores of different namespaces share nothing
// but the table.
func WithNamespace(name string) Option {
	return func(c *config) error {
		if err := kv.CheckKey(name); err != nil || len(name) > maxNamespace || strings.Contains(name, "\x00") {
			return fmt.Errorf("WithNamespace(%.40q): want 1 to %d bytes of UTF-8 without U+0000: %w", name, maxNamespace,
				kv.ErrInvalidOption)
		}
		c.namespace = name
		return nil
	}
}

// WithClock sets this machine's clock, for tests inside this module.
func WithClock(clk clock.Clock) Option {
	return func(c *config) error {
		if clk == nil {
			return fmt.Errorf("WithClock(nil): %w", kv.ErrInvalidOption)
		}
		c.clock = clk
		return nil
	}
}

// New returns the Store of one namespace of the table in db. It sends nothing:
// a table that is missing shows at the first use, as ErrTableNotFound, and a
// server that is not fit as ErrUnfit. db stays the caller's.
//
// The Store needs a connection at a time for each operation under way. A pool
// that other work uses up keeps heartbeats waiting: give the Store its own.
func New(db *sql.DB, options ...Option) (*Store, error) {
	if db == nil {
		return nil, fmt.Errorf("pgkv: the database is nil: %w", kv.ErrInvalidOption)
	}
	c, err := newConfig(options)
	if err != nil {
		return nil, err
	}
	return &Store{db: db, config: c, closing: make(chan struct{})}, nil
}

func newConfig(options []Option) (config, error) {
	c := config{namespace: defaultNamespace, clock: clock.System}
	for _, option := range append([]Option{WithTable(defaultTable)}, options...) {
		if err := option(&c); err != nil {
			return config{}, fmt.Errorf("pgkv: %w", err)
		}
	}
	c.statements = newStatements(c.table)
	return c, nil
}

// MaxWriteDelay implements kv.WriteDelayer. A statement begins before its
// deadline, a minute after the operation began, and takes no longer than the
// statement_timeout, a minute too: together 2 minutes.
func (s *Store) MaxWriteDelay() time.Duration { return maxWriteDelay }

// Close waits for the operations that are under way. Later calls return
// kv.ErrClosed, but for Close itself. The database is not closed.
func (s *Store) Close() error {
	if s.closed.CompareAndSwap(false, true) {
		close(s.closing)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return nil
}

// enter lets an operation begin, unless the Store is closed. Its end is leave.
func (s *Store) enter() error {
	if s.closed.Load() {
		return kv.ErrClosed
	}
	s.mu.RLock()
	if s.closed.Load() {
		s.mu.RUnlock()
		return kv.ErrClosed
	}
	return nil
}

func (s *Store) leave() { s.mu.RUnlock() }

// newWriter returns a write id: 128 random bits.
func newWriter() []byte {
	id := make([]byte, 16)
	_, _ = rand.Read(id) // it never fails
	return id
}
