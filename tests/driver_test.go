package tests_test

import (
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/kvtest"
)

// begin docs/drivers.md

// Store is the smallest driver: a map under a mutex.
type Store struct {
	mu      sync.Mutex
	version uint64                // one counter for all keys, so that versions grow across deletes (S3)
	rows    map[string]*kv.KVPair // never changed, only replaced
}

var _ kv.Store = (*Store)(nil)

// live returns the pair of key that has not expired, nil if there is none. s.mu is held.
func (s *Store) live(key string) *kv.KVPair {
	if row := s.rows[key]; row != nil && row.Live(time.Now()) {
		return row
	}
	return nil
}

// write replaces the pair of key, whose live pair is live. s.mu is held.
func (s *Store) write(key string, w kv.WriteSettings, live *kv.KVPair) *kv.KVPair {
	var expires time.Time
	switch {
	case w.TTL > 0:
		expires = time.UnixMilli(time.Now().UnixMilli() + w.TTL.Milliseconds())
	case w.KeepTTL && live != nil:
		expires = live.Expires
	}
	s.version++
	if s.rows == nil {
		s.rows = map[string]*kv.KVPair{}
	}
	s.rows[key] = kv.NewPair(key, s.version, slices.Clone(w.Value), expires, w.Fields)
	return s.rows[key]
}

// check returns the conflict of an operation that depends on previous, nil if
// there is none. s.mu is held.
func (s *Store) check(key string, previous *kv.KVPair) error {
	live := s.live(key)
	if previous == nil && live == nil || previous != nil && live != nil && live.Version == previous.Version {
		return nil
	}
	conflict := &kv.ConflictError{Key: key, Create: previous == nil}
	if row := s.rows[key]; row != nil {
		conflict.Version = row.Version
	}
	if live != nil {
		conflict.Current = live.Clone()
	}
	return conflict
}

func (s *Store) Put(ctx context.Context, key string, options ...kv.WriteOption) error {
	w, err := kv.PutSettings(key, options)
	if err = errors.Join(err, ctx.Err()); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	live := s.live(key)
	if live != nil && len(live.Fields) > 0 { // Put merges fields, AtomicPut does not
		merged := maps.Clone(live.Fields)
		maps.Copy(merged, w.Fields)
		w.Fields = merged
	}
	s.write(key, w, live)
	return nil
}

func (s *Store) AtomicPut(ctx context.Context, key string, options ...kv.WriteOption) (*kv.KVPair, error) {
	w, err := kv.AtomicPutSettings(key, options)
	if err = errors.Join(err, ctx.Err()); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(key, w.Previous); err != nil {
		return nil, err
	}
	return s.write(key, w, s.live(key)).Clone(), nil
}

func (s *Store) Delete(ctx context.Context, key string, options ...kv.DeleteOption) error {
	_, err := kv.CheckDelete(key, options)
	if err = errors.Join(err, ctx.Err()); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.rows, key)
	return nil
}

func (s *Store) AtomicDelete(ctx context.Context, key string, previous *kv.KVPair, options ...kv.DeleteOption) error {
	_, err := kv.CheckAtomicDelete(key, previous, options)
	if err = errors.Join(err, ctx.Err()); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(key, previous); err != nil {
		return err
	}
	delete(s.rows, key)
	return nil
}

func (s *Store) Get(ctx context.Context, key string, options ...kv.ReadOption) (*kv.KVPair, error) {
	_, err := kv.GetSettings(key, options)
	if err = errors.Join(err, ctx.Err()); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if live := s.live(key); live != nil {
		return live.Clone(), nil
	}
	absent := &kv.NotFoundError{Key: key}
	if row := s.rows[key]; row != nil {
		absent.Version = row.Version
	}
	return nil, absent
}

func (s *Store) Exists(ctx context.Context, key string, options ...kv.ReadOption) (bool, error) {
	_, err := s.Get(ctx, key, options...)
	if errors.Is(err, kv.ErrKeyNotFound) {
		return false, nil
	}
	return err == nil, err
}

func (s *Store) List(ctx context.Context, prefix string, options ...kv.ReadOption) ([]*kv.KVPair, error) {
	page, err := s.ListPage(ctx, prefix, options...)
	if err != nil {
		return nil, err
	}
	return page.Pairs, nil
}

func (s *Store) ListPage(ctx context.Context, prefix string, options ...kv.ReadOption) (*kv.Page, error) {
	r, err := kv.ListSettings(prefix, options)
	if err == nil && r.Index != nil {
		err = kv.ErrIndexNotSupported
	}
	cursor, resumed, cursorErr := kv.ParseCursor(prefix, r)
	if err = errors.Join(err, cursorErr, ctx.Err()); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := slices.Sorted(maps.Keys(s.rows))
	if r.Descending {
		slices.Reverse(keys)
	}
	page := &kv.Page{Pairs: []*kv.KVPair{}}
	for _, key := range keys {
		behind := !resumed || (key > cursor.Key) != r.Descending && key != cursor.Key
		live := s.live(key)
		if !behind || live == nil || !strings.HasPrefix(key, prefix) {
			continue
		}
		if r.Limit > 0 && len(page.Pairs) == r.Limit {
			page.Next = kv.NewCursor(prefix, r, page.Pairs[r.Limit-1].Key).Token()
			break
		}
		if r.WithoutValues {
			live = kv.NewPair(key, live.Version, nil, live.Expires, nil)
		}
		page.Pairs = append(page.Pairs, live.Clone())
	}
	return page, nil
}

func TestConformance(t *testing.T) {
	t.Parallel()
	kvtest.Run(t, kvtest.Harness{Open: func(*testing.T) kv.Store { return &Store{} }})
}

// end docs/drivers.md

func TestTheDriverOfTheDriversPageIsThisOne(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(repository + "/docs/drivers.md")
	require.NoError(t, err)
	source, err := os.ReadFile("driver_test.go")
	require.NoError(t, err)
	_, driver, found := strings.Cut(string(source), "\n// begin docs/drivers.md\n\n")
	require.True(t, found)
	driver, _, found = strings.Cut(driver, "\n// end docs/drivers.md\n")
	require.True(t, found)
	require.Contains(t, string(page), "```go\n"+driver+"```\n")
}
