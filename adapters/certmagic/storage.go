package certmagicstorage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// DefaultPrefix begins the keys of a Storage without WithPrefix.
const DefaultPrefix = "certmagic/"

// modified is the field of a pair that has when it was written, in Unix
// milliseconds of the writer's clock.
const modified = "modified_ms"

// tries is how often a write is sent whose outcome is unknown each time. The driver
// has made its own attempts before.
const tries = 3

// Storage is a certmagic.Storage. All processes that make one of the same kv.Store
// and prefix share what it holds. It is safe for concurrent use. Use New. The
// caller closes the client when certmagic has stopped, which frees its locks.
type Storage struct {
	store  kv.Store // without the prefix
	client *lease.Client
	prefix string

	mu    sync.Mutex
	locks map[string]*held
}

var (
	_ certmagic.Storage          = (*Storage)(nil)
	_ certmagic.TryLocker        = (*Storage)(nil)
	_ certmagic.LockLeaseRenewer = (*Storage)(nil)
)

// Option is an option of New.
type Option func(*Storage) error

// WithPrefix sets what the keys of all pairs and locks begin with: 2 to 200 bytes,
// the last of them a slash. Default: DefaultPrefix.
func WithPrefix(prefix string) Option {
	return func(s *Storage) error {
		if len(prefix) < 2 || len(prefix) > 200 || !strings.HasSuffix(prefix, "/") {
			return fmt.Errorf("certmagicstorage: WithPrefix(%.40q): want 2 to 200 bytes that end with a slash: %w",
				prefix, lease.ErrInvalid)
		}
		s.prefix = prefix
		return nil
	}
}

// New returns the storage in store. client makes its locks. Its own store may be
// another one, as long as all processes agree. New does no I/O. Its errors match
// lease.ErrInvalid.
func New(store kv.Store, client *lease.Client, options ...Option) (*Storage, error) {
	if store == nil || client == nil {
		return nil, fmt.Errorf("certmagicstorage: New: want a store and a client, not nil: %w", lease.ErrInvalid)
	}
	s := &Storage{client: client, prefix: DefaultPrefix, locks: map[string]*held{}}
	for _, option := range options {
		if option == nil {
			return nil, fmt.Errorf("certmagicstorage: New: a nil option: %w", lease.ErrInvalid)
		}
		if err := option(s); err != nil {
			return nil, err
		}
	}
	s.store = kv.Prefixed(store, s.prefix)
	return s, nil
}

// Store writes value under key, whatever was there before. On success Load returns
// it. An error that matches kv.ErrUncertain: it may have been written. Any other
// error: it was not. It costs one read, and one write for each time that another
// writer was faster.
func (s *Storage) Store(ctx context.Context, key string, value []byte) (err error) {
	if err := checkKey(key); err != nil {
		return err
	}
	for range tries {
		now := kv.WithFields(kv.Fields{modified: time.Now().UnixMilli()})
		_, err = kv.Update(ctx, s.store, key, func(*kv.KVPair) ([]byte, error) { return value, nil }, now)
		if !errors.Is(err, kv.ErrUncertain) || ctx.Err() != nil {
			break // a write of unknown outcome is written over, which costs nothing
		}
	}
	return err
}

// Load returns the value of key, or an error that matches fs.ErrNotExist. It costs
// one read.
func (s *Storage) Load(ctx context.Context, key string) ([]byte, error) {
	pair, err := s.get(ctx, key)
	if err != nil {
		return nil, err
	}
	return pair.Bytes(), nil
}

func (s *Storage) get(ctx context.Context, key string) (*kv.KVPair, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	pair, err := s.store.Get(ctx, key)
	if errors.Is(err, kv.ErrKeyNotFound) {
		return nil, notExist(key)
	}
	return pair, err
}

// Delete removes key and, if it is a directory, all keys in it. A key that is not
// there is no error. On failure some of them may be left. It costs a listing of
// the directory, one read, and a read and a write for each key that it removes.
func (s *Storage) Delete(ctx context.Context, key string) error {
	if err := checkKey(key); err != nil {
		return err
	}
	for pair, err := range kv.All(ctx, s.store, key+"/", kv.WithoutValues()) {
		if err != nil {
			return err
		}
		if err := s.remove(ctx, pair.Key); err != nil {
			return err
		}
	}
	return s.remove(ctx, key)
}

// remove removes one pair, in a way that cannot land late on one that is newer.
func (s *Storage) remove(ctx context.Context, key string) error {
	for unknown := 0; ; {
		pair, err := s.store.Get(ctx, key)
		if errors.Is(err, kv.ErrKeyNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		err = s.store.AtomicDelete(ctx, key, pair)
		switch {
		case errors.Is(err, kv.ErrKeyModified): // somebody wrote it meanwhile
		case errors.Is(err, kv.ErrUncertain) && unknown < tries && ctx.Err() == nil:
			unknown++
		default:
			return err
		}
	}
}

// Exists reports whether key is a key or a directory. It says false where the
// store does not answer. It costs one read for a key, two for a directory.
func (s *Storage) Exists(ctx context.Context, key string) bool {
	_, err := s.Stat(ctx, key)
	return err == nil
}

// List returns the keys under path in order, "" being all. With recursive they
// are those in directories too, else those and the directories one level below
// path. Where there is nothing under path the error matches fs.ErrNotExist. It
// costs a listing of all that is under path, also without recursive.
func (s *Storage) List(ctx context.Context, path string, recursive bool) ([]string, error) {
	prefix := ""
	if path != "" {
		if err := checkKey(path); err != nil {
			return nil, err
		}
		prefix = path + "/"
	}
	var keys []string
	seen := map[string]bool{} // "a", "a-b" and "a/b" come in this order, so a name may come again
	for pair, err := range kv.All(ctx, s.store, prefix, kv.WithoutValues()) {
		if err != nil {
			return nil, err
		}
		key := pair.Key
		if !recursive {
			name, _, _ := strings.Cut(strings.TrimPrefix(key, prefix), "/")
			key = prefix + name
		}
		if !seen[key] {
			seen[key], keys = true, append(keys, key)
		}
	}
	if keys == nil && path != "" {
		return nil, notExist(path)
	}
	return keys, nil
}

// Stat says what key is, or returns an error that matches fs.ErrNotExist. It costs
// one read for a key, two for a directory.
func (s *Storage) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	pair, err := s.get(ctx, key)
	if err == nil {
		info := certmagic.KeyInfo{Key: key, Size: int64(len(pair.Bytes())), IsTerminal: true}
		if ms, ok := pair.Fields[modified].(int64); ok {
			info.Modified = time.UnixMilli(ms)
		}
		return info, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return certmagic.KeyInfo{}, err
	}
	page, listing := s.store.ListPage(ctx, key+"/", kv.WithLimit(1), kv.WithoutValues())
	switch {
	case listing != nil:
		return certmagic.KeyInfo{}, listing
	case len(page.Pairs) == 0:
		return certmagic.KeyInfo{}, err
	}
	return certmagic.KeyInfo{Key: key}, nil
}

// checkKey refuses what is not a path of certmagic's.
func checkKey(key string) error {
	if key == "" || strings.HasPrefix(key, "/") || strings.HasSuffix(key, "/") {
		return fmt.Errorf("certmagicstorage: key %.40q: want a path without slashes at its ends: %w",
			key, kv.ErrInvalidKey)
	}
	return nil
}

func notExist(key string) error {
	return fmt.Errorf("certmagicstorage: %q: %w", key, fs.ErrNotExist)
}
