package memkv

import (
	"context"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/dynalock/dynalock/kv"
)

// WatchPrefix implements kv.Watcher. It sleeps until a write, or until a pair that it has
// shown expires. Then it looks at all rows. Writes that come meanwhile, or while the
// caller is busy, are seen together the next time.
func (s *Store) WatchPrefix(ctx context.Context, prefix string, _ kv.WatchSettings) iter.Seq2[kv.Event, error] {
	return func(yield func(kv.Event, error) bool) {
		w := &watch{store: s, prefix: prefix}
		for event, err := range kv.WatchListings(ctx, w.list, w.wait) {
			if event.Pair != nil {
				event.Pair = event.Pair.Clone()
			}
			if !yield(event, err) {
				return
			}
		}
	}
}

// watch is one iteration of a watch.
type watch struct {
	store  *Store
	prefix string
	// changed is closed by the first write since the listing. expires is when the first of
	// its pairs goes, zero: never.
	changed <-chan struct{}
	expires time.Time
}

// list returns the live pairs. They are the store's own.
func (w *watch) list(ctx context.Context) ([]*kv.KVPair, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	w.changed = w.store.nextChange() // before looking: a write in between is seen now, and once more in vain
	rows, err := w.store.matching(w.prefix, w.store.now())
	if err != nil {
		return nil, err
	}
	slices.SortFunc(rows, func(a, b *kv.KVPair) int { return strings.Compare(a.Key, b.Key) })
	w.expires = time.Time{}
	for _, row := range rows {
		if !row.Expires.IsZero() && (w.expires.IsZero() || row.Expires.Before(w.expires)) {
			w.expires = row.Expires
		}
	}
	return rows, nil
}

// wait returns after a write, or when a pair expires by the store's clock. A wall clock
// that is put forward while it waits is noticed after the next write only.
func (w *watch) wait(ctx context.Context) error {
	var expiry <-chan time.Time
	if !w.expires.IsZero() {
		// The least wait keeps a clock whose timers are early from making this spin.
		t := w.store.timer(max(w.expires.Sub(w.store.now()), time.Microsecond))
		defer t.Stop()
		expiry = t.C()
	}
	select {
	case <-w.changed:
		return nil
	case <-expiry:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// nextChange returns a channel that the next change closes.
func (s *Store) nextChange() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return s.changed
}

// notify wakes the watches. s.mu is held.
func (s *Store) notify() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}
