package kv

import (
	"context"
	"errors"
	"iter"
)

// All returns the live pairs whose keys begin with prefix, as List does. It reads a
// page when it is needed, so that one at most is in memory. Its options are those of
// ListPage: WithLimit is the size of a page. An error comes last, with a nil pair.
// Breaking off sends nothing more. Each iteration starts anew, and costs what its
// pages cost.
func All(ctx context.Context, store Store, prefix string, options ...ReadOption) iter.Seq2[*KVPair, error] {
	return func(yield func(*KVPair, error) bool) {
		pageOptions := append([]ReadOption(nil), options...)
		for {
			page, err := store.ListPage(ctx, prefix, pageOptions...)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, pair := range page.Pairs {
				if !yield(pair, nil) {
					return
				}
			}
			if page.Next == "" {
				return
			}
			pageOptions = append(pageOptions[:len(options):len(options)], WithStartKey(page.Next))
		}
	}
}

// Update changes the pair of key to what fn makes of it. fn gets the live pair, nil if
// there is none, and returns the new value. When another writer is faster, fn is
// called again with what that writer left. So fn must have no other effect, and must
// not keep or change its argument.
//
// The options are AtomicPut's. Update itself sets the value and WithPrevious. Where
// there is a pair, it keeps its fields unless options has WithFields, and its expiry
// unless options has WithTTL. To let an expiring pair live for ever use AtomicPut.
//
// On success it returns the pair that it wrote. An error of fn, or of ctx between two
// rounds, is returned as it is, and nothing was written. A *UncertainError ends it
// too: the last call of fn may have counted, so calling it again might count twice.
// It costs one read, and one write for each round.
func Update(
	ctx context.Context, store Store, key string, fn func(current *KVPair) ([]byte, error), options ...WriteOption,
) (*KVPair, error) {
	current, err := store.Get(ctx, key)
	if err != nil && !errors.Is(err, ErrKeyNotFound) {
		return nil, err
	}
	for {
		value, err := fn(current)
		if err != nil {
			return nil, err
		}
		// The full slice expression makes append copy: options is the caller's.
		round := append(options[:len(options):len(options)], WithBytes(value), WithPrevious(current), keepRest(current))
		written, err := store.AtomicPut(ctx, key, round...)
		conflict, lost := errors.AsType[*ConflictError](err)
		if !lost || errors.Is(err, ErrUncertain) {
			return written, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		current = conflict.Current
	}
}

// keepRest keeps what the options before it do not set. current is nil if there is
// nothing to keep.
func keepRest(current *KVPair) WriteOption {
	return writeOption(func(s *WriteSettings) error {
		if current == nil {
			s.KeepTTL = false
			return nil
		}
		s.KeepTTL = s.KeepTTL || s.TTL == 0
		if s.fieldsGiven {
			return nil
		}
		fields, err := current.Fields.normalize()
		s.Fields = fields
		return err
	})
}

// DeletePrefix deletes the live pairs whose keys begin with prefix, one by one, and
// returns how many it deleted. The empty prefix deletes everything. A pair that is
// written meanwhile may stay or go. The pairs of one page are deleted before the next
// is read. On failure those before the failing one are gone, and it may be called
// again. It costs what listing costs, and one write for each pair.
func DeletePrefix(ctx context.Context, store Store, prefix string) (int, error) {
	n := 0
	for pair, err := range All(ctx, store, prefix, WithoutValues()) {
		if err != nil {
			return n, err
		}
		if err := store.Delete(ctx, pair.Key); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}
