package kvtest_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/dynalock/dynalock/kv"
)

// keeping keeps the caller's bytes instead of a copy.
type keeping struct {
	sound
	mu     sync.Mutex
	values map[string][]byte
}

func (s *keeping) Put(ctx context.Context, key string, options ...kv.WriteOption) error {
	settings, err := kv.PutSettings(key, options)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.values[key] = settings.Value
	s.mu.Unlock()
	return s.sound.Put(ctx, key, options...)
}

func (s *keeping) Get(ctx context.Context, key string, options ...kv.ReadOption) (*kv.KVPair, error) {
	pair, err := s.sound.Get(ctx, key, options...)
	s.mu.Lock()
	defer s.mu.Unlock()
	if value, kept := s.values[key]; kept && err == nil {
		return kv.NewPair(key, pair.Version, slices.Clone(value), pair.Expires, pair.Fields), nil
	}
	return pair, err
}

// greedy takes a prefix for a name and lists its siblings, as stores with directories do.
type greedy struct{ sound }

func (s *greedy) List(ctx context.Context, prefix string, options ...kv.ReadOption) ([]*kv.KVPair, error) {
	return s.sound.List(ctx, strings.TrimSuffix(prefix, "/"), options...)
}

func (s *greedy) ListPage(ctx context.Context, prefix string, options ...kv.ReadOption) (*kv.Page, error) {
	return s.sound.ListPage(ctx, strings.TrimSuffix(prefix, "/"), options...)
}

// leaky loses the last pair of each page that is full.
type leaky struct{ sound }

func (s *leaky) ListPage(ctx context.Context, prefix string, options ...kv.ReadOption) (*kv.Page, error) {
	page, err := s.sound.ListPage(ctx, prefix, options...)
	if err == nil && page.Next != "" {
		page.Pairs = page.Pairs[:len(page.Pairs)-1]
	}
	return page, err
}

// hasty ends a listing with its first page.
type hasty struct{ sound }

func (s *hasty) ListPage(ctx context.Context, prefix string, options ...kv.ReadOption) (*kv.Page, error) {
	page, err := s.sound.ListPage(ctx, prefix, options...)
	if err == nil {
		page.Next = ""
	}
	return page, err
}

// forgiving calls a create that lost a success.
type forgiving struct{ sound }

func (s *forgiving) AtomicPut(ctx context.Context, key string, options ...kv.WriteOption) (*kv.KVPair, error) {
	if settings, err := kv.AtomicPutSettings(key, options); err == nil && settings.Previous == nil {
		if pair, err := s.Get(ctx, key); err == nil {
			return pair, nil
		}
	}
	return s.sound.AtomicPut(ctx, key, options...)
}

// haunted refuses every tenth create of a key that was freed, and shows the
// pair that was there before, or none.
type haunted struct {
	sound
	shows bool

	mu    sync.Mutex
	frees int
	last  *kv.KVPair
}

func (s *haunted) AtomicPut(ctx context.Context, key string, options ...kv.WriteOption) (*kv.KVPair, error) {
	pair, err := s.sound.AtomicPut(ctx, key, options...)
	if settings, _ := kv.AtomicPutSettings(key, options); err != nil || settings.Previous != nil {
		return pair, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.last
	s.last = pair.Clone()
	if s.frees++; s.frees%10 > 0 {
		return pair, nil
	}
	conflict := &kv.ConflictError{Key: key, Create: true, Version: last.Version}
	if s.shows {
		conflict.Current = last
	}
	return nil, errors.Join(conflict, s.AtomicDelete(ctx, key, pair))
}

// circular goes on from the last page with the first one.
type circular struct{ sound }

func (s *circular) ListPage(ctx context.Context, prefix string, options ...kv.ReadOption) (*kv.Page, error) {
	page, err := s.sound.ListPage(ctx, prefix, options...)
	settings, optionsErr := kv.ListSettings(prefix, options)
	if err == nil && optionsErr == nil && page.Next == "" {
		page.Next = kv.NewCursor(prefix, settings, prefix).Token()
	}
	return page, err
}

// undeleting answers deletes, and does nothing.
type undeleting struct{ sound }

func (s *undeleting) Delete(_ context.Context, key string, options ...kv.DeleteOption) error {
	_, err := kv.CheckDelete(key, options)
	return err
}

func (s *undeleting) AtomicDelete(_ context.Context, key string, previous *kv.KVPair,
	options ...kv.DeleteOption) error {
	_, err := kv.CheckAtomicDelete(key, previous, options)
	return err
}

// ajar says that it closes, and does not.
type ajar struct{ sound }

func (s *ajar) Close() error { return nil }
