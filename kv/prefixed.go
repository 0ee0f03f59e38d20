package kv

import (
	"context"
	"errors"
	"iter"
	"strings"
)

// Prefixed returns the part of store whose keys begin with prefix, as a store of its
// own. Its keys are those without the prefix, in arguments, results, errors and
// conditions. Prefix and key together must be a valid key. It costs no request. Where
// one prefix begins with another, their parts overlap: end prefixes with a separator.
//
// A listing by an index finds pairs by a field, whatever their keys. Those that are not
// of this part are left out, so a page may hold fewer than its limit.
func Prefixed(store Store, prefix string) Store { return &prefixed{store, prefix} }

type prefixed struct {
	store  Store
	prefix string
}

// Unwrap implements Wrapper.
func (p *prefixed) Unwrap() Store { return p.store }

// MapCondition implements ConditionMapper.
func (p *prefixed) MapCondition(c Condition) Condition {
	c.Key = p.prefix + c.Key
	return c
}

func (p *prefixed) Put(ctx context.Context, key string, options ...WriteOption) error {
	if err := p.check(key); err != nil {
		return err
	}
	return p.inner(p.store.Put(ctx, p.prefix+key, options...))
}

func (p *prefixed) Get(ctx context.Context, key string, options ...ReadOption) (*KVPair, error) {
	if err := p.check(key); err != nil {
		return nil, err
	}
	pair, err := p.store.Get(ctx, p.prefix+key, options...)
	return p.strip(pair), p.inner(err)
}

func (p *prefixed) Exists(ctx context.Context, key string, options ...ReadOption) (bool, error) {
	if err := p.check(key); err != nil {
		return false, err
	}
	exists, err := p.store.Exists(ctx, p.prefix+key, options...)
	return exists, p.inner(err)
}

func (p *prefixed) Delete(ctx context.Context, key string, options ...DeleteOption) error {
	if err := p.check(key); err != nil {
		return err
	}
	return p.inner(p.store.Delete(ctx, p.prefix+key, options...))
}

func (p *prefixed) AtomicPut(ctx context.Context, key string, options ...WriteOption) (*KVPair, error) {
	if err := p.check(key); err != nil {
		return nil, err
	}
	mapped := append(options[:len(options):len(options)], writeOption(func(s *WriteSettings) error {
		s.Previous = p.outer(s.Previous)
		return nil
	}))
	pair, err := p.store.AtomicPut(ctx, p.prefix+key, mapped...)
	return p.strip(pair), p.inner(err)
}

func (p *prefixed) AtomicDelete(ctx context.Context, key string, previous *KVPair, options ...DeleteOption) error {
	if err := p.check(key); err != nil {
		return err
	}
	return p.inner(p.store.AtomicDelete(ctx, p.prefix+key, p.outer(previous), options...))
}

func (p *prefixed) List(ctx context.Context, prefix string, options ...ReadOption) ([]*KVPair, error) {
	settings, err := ListSettings(prefix, options)
	if err != nil {
		return nil, err
	}
	if settings.Index != nil {
		return p.listIndex(ctx, prefix, settings.Limit, options)
	}
	pairs, err := p.store.List(ctx, p.prefix+prefix, p.startAfter(settings, options)...)
	return p.stripAll(pairs), p.inner(err)
}

// listIndex goes on until there are as many pairs of this part as the limit allows.
func (p *prefixed) listIndex(ctx context.Context, prefix string, limit int, options []ReadOption) ([]*KVPair, error) {
	pairs := []*KVPair{}
	for pair, err := range All(ctx, p, prefix, options...) {
		if err != nil {
			return nil, err
		}
		if pairs = append(pairs, pair); len(pairs) == limit {
			break
		}
	}
	return pairs, nil
}

func (p *prefixed) ListPage(ctx context.Context, prefix string, options ...ReadOption) (*Page, error) {
	settings, err := ListSettings(prefix, options)
	if err != nil {
		return nil, err
	}
	if settings.Index == nil { // else prefix is one of a field's values
		prefix = p.prefix + prefix
	}
	page, err := p.store.ListPage(ctx, prefix, p.startAfter(settings, options)...)
	if err != nil {
		return nil, p.inner(err)
	}
	return &Page{Pairs: p.stripAll(page.Pairs), Next: page.Next}, nil
}

// startAfter names the key of WithStartAfter as the wrapped store knows it.
func (p *prefixed) startAfter(settings ReadSettings, options []ReadOption) []ReadOption {
	if settings.StartAfter == "" {
		return options
	}
	return append(options[:len(options):len(options)], WithStartAfter(p.prefix+settings.StartAfter))
}

// WatchPrefix implements Watcher, with the wrapped store's watch or, if it has none, its
// listings.
func (p *prefixed) WatchPrefix(ctx context.Context, prefix string, settings WatchSettings) iter.Seq2[Event, error] {
	same := func(s *WatchSettings) error {
		*s = settings
		return nil
	}
	return func(yield func(Event, error) bool) {
		for event, err := range Watch(ctx, p.store, p.prefix+prefix, same) {
			event.Key = strings.TrimPrefix(event.Key, p.prefix)
			event.Pair = p.strip(event.Pair)
			if !yield(event, p.inner(err)) {
				return
			}
		}
	}
}

// check refuses the empty key, which would be a valid one with the prefix.
func (p *prefixed) check(key string) error {
	if key == "" {
		return CheckKey(key)
	}
	return nil
}

// outer returns pair as the wrapped store knows it. It is a copy; pair is the caller's.
func (p *prefixed) outer(pair *KVPair) *KVPair {
	if pair == nil {
		return nil
	}
	mapped := *pair
	mapped.Key = p.prefix + pair.Key
	return &mapped
}

// strip returns pair as users of p know it. It is a copy, since an error that holds a
// pair may be somebody else's, too.
func (p *prefixed) strip(pair *KVPair) *KVPair {
	if pair == nil {
		return nil
	}
	mapped := *pair
	mapped.Key = strings.TrimPrefix(pair.Key, p.prefix)
	return &mapped
}

// stripAll strips the pairs of this part and leaves out others, which only indexes find.
func (p *prefixed) stripAll(pairs []*KVPair) []*KVPair {
	if pairs == nil {
		return nil
	}
	own := make([]*KVPair, 0, len(pairs))
	for _, pair := range pairs {
		if strings.HasPrefix(pair.Key, p.prefix) {
			own = append(own, p.strip(pair))
		}
	}
	return own
}

// inner returns err with the keys that users of p know.
func (p *prefixed) inner(err error) error {
	mapped, original := p.mapError(err)
	switch {
	case mapped == nil:
		return err
	case original == err: //nolint:errorlint // the question is whether something is wrapped around it
		return mapped
	default:
		return &remapped{err: err, mapped: mapped}
	}
}

// mapError returns the error in err's tree that holds a key, mapped and as it was, or nil.
func (p *prefixed) mapError(err error) (mapped, original error) {
	trim := func(key string) string { return strings.TrimPrefix(key, p.prefix) }
	if e, ok := errors.AsType[*UncertainError](err); ok {
		return &UncertainError{Key: trim(e.Key), Current: p.strip(e.Current), Version: e.Version, Err: e.Err}, e
	}
	if e, ok := errors.AsType[*ConflictError](err); ok {
		return &ConflictError{Key: trim(e.Key), Create: e.Create, Current: p.strip(e.Current), Version: e.Version}, e
	}
	if e, ok := errors.AsType[*NotFoundError](err); ok {
		return &NotFoundError{Key: trim(e.Key), Version: e.Version}, e
	}
	if e, ok := errors.AsType[*FormatError](err); ok {
		return &FormatError{Key: trim(e.Key), Problem: e.Problem}, e
	}
	return nil, nil
}

// remapped is an error that somebody wrapped. Its text has the whole key. errors.As
// finds the mapped one first.
type remapped struct{ err, mapped error }

func (r *remapped) Error() string   { return r.err.Error() }
func (r *remapped) Unwrap() []error { return []error{r.mapped, r.err} }
