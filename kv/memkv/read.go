package memkv

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/dynalock/dynalock/kv"
)

// pageSize is how many pairs a page of ListPage has without WithLimit.
const pageSize = 1000

// Get implements kv.Store. It allocates the pair and its value, nothing else.
func (s *Store) Get(ctx context.Context, key string, options ...kv.ReadOption) (*kv.KVPair, error) {
	row, err := s.live(ctx, key, options)
	if err != nil {
		return nil, err
	}
	return row.Clone(), nil
}

// Exists implements kv.Store.
func (s *Store) Exists(ctx context.Context, key string, options ...kv.ReadOption) (bool, error) {
	_, err := s.live(ctx, key, options)
	if errors.Is(err, kv.ErrKeyNotFound) {
		return false, nil
	}
	return err == nil, err
}

// live returns the store's own pair of key, not a copy, or a *kv.NotFoundError.
func (s *Store) live(ctx context.Context, key string, options []kv.ReadOption) (*kv.KVPair, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if _, err := kv.GetSettings(key, options); err != nil {
		return nil, err
	}
	now := s.now()
	s.mu.RLock()
	closed, row := s.closed, s.rows[key]
	s.mu.RUnlock()
	if closed {
		return nil, kv.ErrClosed
	}
	if live := livePair(row, now); live != nil {
		return live, nil
	}
	return nil, &kv.NotFoundError{Key: key, Version: version(row)}
}

// List implements kv.Store. Here it is a snapshot.
func (s *Store) List(ctx context.Context, prefix string, options ...kv.ReadOption) ([]*kv.KVPair, error) {
	settings, err := listSettings(ctx, prefix, options)
	if err != nil {
		return nil, err
	}
	page, err := s.page(prefix, settings, settings.Limit)
	if err != nil {
		return nil, err
	}
	return page.Pairs, nil
}

// ListPage implements kv.Store. A page has at most 1,000 pairs if WithLimit does not say otherwise.
func (s *Store) ListPage(ctx context.Context, prefix string, options ...kv.ReadOption) (*kv.Page, error) {
	settings, err := listSettings(ctx, prefix, options)
	if err != nil {
		return nil, err
	}
	limit := settings.Limit
	if limit == 0 {
		limit = pageSize
	}
	return s.page(prefix, settings, limit)
}

func listSettings(ctx context.Context, prefix string, options []kv.ReadOption) (kv.ReadSettings, error) {
	if err := ctx.Err(); err != nil {
		return kv.ReadSettings{}, err
	}
	settings, err := kv.ListSettings(prefix, options)
	if err == nil && settings.Index != nil {
		return kv.ReadSettings{}, kv.ErrIndexNotSupported
	}
	return settings, err
}

// page returns copies of up to limit live pairs; limit 0 is no limit.
func (s *Store) page(prefix string, settings kv.ReadSettings, limit int) (*kv.Page, error) {
	cursor, resumed, err := kv.ParseCursor(prefix, settings)
	if err != nil {
		return nil, err
	}
	rows, err := s.matching(prefix, s.now())
	if err != nil {
		return nil, err
	}
	compare := func(a, b string) int {
		if settings.Descending {
			return strings.Compare(b, a)
		}
		return strings.Compare(a, b)
	}
	if resumed {
		rows = slices.DeleteFunc(rows, func(row *kv.KVPair) bool { return compare(row.Key, cursor.Key) <= 0 })
	}
	slices.SortFunc(rows, func(a, b *kv.KVPair) int { return compare(a.Key, b.Key) })
	page := &kv.Page{}
	if limit > 0 && len(rows) > limit {
		rows = rows[:limit]
		page.Next = kv.NewCursor(prefix, settings, rows[limit-1].Key).Token()
	}
	page.Pairs = make([]*kv.KVPair, len(rows))
	for i, row := range rows {
		if settings.WithoutValues {
			row = kv.NewPair(row.Key, row.Version, nil, row.Expires, nil)
		}
		page.Pairs[i] = row.Clone()
	}
	return page, nil
}

// matching returns the live rows whose keys begin with prefix, in no order.
// They are the store's own.
func (s *Store) matching(prefix string, now time.Time) ([]*kv.KVPair, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, kv.ErrClosed
	}
	var rows []*kv.KVPair
	for key, row := range s.rows {
		if strings.HasPrefix(key, prefix) && row.Live(now) {
			rows = append(rows, row)
		}
	}
	return rows, nil
}
