// Package memkv is a kv.Store in memory: for tests, examples, and programs that are one
// process.
//
// It keeps the whole contract of package kv. Nothing outlives the process, no operation
// waits for anything, and no write has an unknown outcome. Versions come from one counter
// of the store.
//
//	store := memkv.New()
//	pair, err := store.AtomicPut(ctx, "jobs/7", kv.WithString("queued"))
package memkv

import (
	"context"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
)

// Store is a kv.Store in memory. The zero value is an empty store, ready for use. It must
// not be copied. It needs no Close. Close makes every later call fail with kv.ErrClosed,
// and lets go of the data.
type Store struct {
	clock clock.Clock // nil: clock.System

	mu     sync.RWMutex
	closed bool
	// version is the last one given. One counter for all keys keeps versions growing
	// without tombstones (S3).
	version uint64
	// rows holds each key's last pair, live or expired. The pairs in it are never changed,
	// only replaced.
	rows map[string]*kv.KVPair
	// sweepAt is the version at which expired rows are thrown out next.
	sweepAt uint64
	// changed is closed and forgotten by the next change, nil if nobody waits for one.
	changed chan struct{}
}

var (
	_ kv.Store        = (*Store)(nil)
	_ kv.WriteDelayer = (*Store)(nil)
	_ kv.Watcher      = (*Store)(nil)
)

// Option is an option of New.
type Option func(*Store)

// WithClock sets the clock by which pairs expire, for tests; nil is clock.System.
func WithClock(c clock.Clock) Option { return func(s *Store) { s.clock = c } }

// New returns an empty store.
func New(options ...Option) *Store {
	s := &Store{}
	for _, option := range options {
		option(s)
	}
	return s
}

// MaxWriteDelay returns 0: a write has happened when its method returns, or never will.
func (s *Store) MaxWriteDelay() time.Duration { return 0 }

// Close lets go of the data. Later calls return kv.ErrClosed, but for Close
// itself, which returns nil.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed, s.rows = true, nil
	s.notify()
	return nil
}

// Put implements kv.Store.
func (s *Store) Put(ctx context.Context, key string, options ...kv.WriteOption) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	settings, err := kv.PutSettings(key, options)
	if err != nil {
		return err
	}
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return kv.ErrClosed
	}
	row := s.rows[key]
	live := livePair(row, now)
	if live != nil && len(live.Fields) > 0 {
		merged := maps.Clone(live.Fields)
		maps.Copy(merged, settings.Fields)
		settings.Fields = merged
	}
	s.write(key, settings, live, now)
	return nil
}

// AtomicPut implements kv.Store.
func (s *Store) AtomicPut(ctx context.Context, key string, options ...kv.WriteOption) (*kv.KVPair, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	settings, err := kv.AtomicPutSettings(key, options)
	if err != nil {
		return nil, err
	}
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, kv.ErrClosed
	}
	live, err := s.check(key, settings.Previous, now)
	if err != nil {
		return nil, err
	}
	return s.write(key, settings, live, now).Clone(), nil
}

// Delete implements kv.Store.
func (s *Store) Delete(ctx context.Context, key string, options ...kv.DeleteOption) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if _, err := kv.CheckDelete(key, options); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return kv.ErrClosed
	}
	delete(s.rows, key)
	s.notify()
	return nil
}

// AtomicDelete implements kv.Store.
func (s *Store) AtomicDelete(ctx context.Context, key string, previous *kv.KVPair, options ...kv.DeleteOption) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if _, err := kv.CheckAtomicDelete(key, previous, options); err != nil {
		return err
	}
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return kv.ErrClosed
	}
	if _, err := s.check(key, previous, now); err != nil {
		return err
	}
	delete(s.rows, key)
	s.notify()
	return nil
}

// check returns the live pair of key, or the conflict of a write that depends on previous.
// s.mu is held.
func (s *Store) check(key string, previous *kv.KVPair, now time.Time) (*kv.KVPair, error) {
	row := s.rows[key]
	live := livePair(row, now)
	if previous == nil && live == nil || previous != nil && live != nil && live.Version == previous.Version {
		return live, nil
	}
	conflict := &kv.ConflictError{Key: key, Create: previous == nil, Version: version(row)}
	if live != nil {
		conflict.Current = live.Clone()
	}
	return nil, conflict
}

// write replaces the row of key, whose live pair is live, and returns what it stored. s.mu is held.
func (s *Store) write(key string, settings kv.WriteSettings, live *kv.KVPair, now time.Time) *kv.KVPair {
	var expires time.Time
	switch {
	case settings.TTL > 0:
		expires = time.UnixMilli(now.UnixMilli() + settings.TTL.Milliseconds())
	case settings.KeepTTL && live != nil:
		expires = live.Expires
	}
	s.version++
	value := append([]byte(nil), settings.Value...)
	pair := kv.NewPair(strings.Clone(key), s.version, value, expires, settings.Fields)
	if s.rows == nil {
		s.rows = make(map[string]*kv.KVPair)
	}
	s.rows[pair.Key] = pair
	s.sweep(now)
	s.notify()
	return pair
}

// sweep throws out expired rows once in as many writes as there are rows, so that it costs
// a write nothing that grows.
func (s *Store) sweep(now time.Time) {
	if s.version < s.sweepAt {
		return
	}
	maps.DeleteFunc(s.rows, func(_ string, row *kv.KVPair) bool { return !row.Live(now) })
	s.sweepAt = s.version + uint64(max(len(s.rows), 1024))
}

// now is the wall clock, which expiry goes by.
func (s *Store) now() time.Time {
	if s.clock == nil {
		return clock.System.Now().Wall
	}
	return s.clock.Now().Wall
}

// timer makes a timer of the store's clock.
func (s *Store) timer(d time.Duration) clock.Timer {
	if s.clock == nil {
		return clock.System.NewTimer(d)
	}
	return s.clock.NewTimer(d)
}

// livePair returns row if it is a pair that has not expired, else nil.
func livePair(row *kv.KVPair, now time.Time) *kv.KVPair {
	if row == nil || !row.Live(now) {
		return nil
	}
	return row
}

// version returns the version of row, 0 if there is none.
func version(row *kv.KVPair) uint64 {
	if row == nil {
		return 0
	}
	return row.Version
}
