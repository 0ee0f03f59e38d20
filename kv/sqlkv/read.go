package sqlkv

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/dynalock/dynalock/kv"
)

const (
	// pageSize is how many pairs a page of ListPage has without WithLimit. pageBytes is
	// the sum of their values from which it ends.
	pageSize  = 1000
	pageBytes = 1 << 20
)

// Get implements kv.Store.
func (s *Store) Get(ctx context.Context, key string, options ...kv.ReadOption) (*kv.KVPair, error) {
	return s.get(ctx, key, columns, options)
}

// Exists implements kv.Store.
func (s *Store) Exists(ctx context.Context, key string, options ...kv.ReadOption) (bool, error) {
	_, err := s.get(ctx, key, columnsWithoutValues, options)
	if errors.Is(err, kv.ErrKeyNotFound) {
		return false, nil
	}
	return err == nil, err
}

func (s *Store) get(ctx context.Context, key, columns string, options []kv.ReadOption) (*kv.KVPair, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if _, err := kv.GetSettings(key, options); err != nil {
		return nil, err
	}
	var row *kv.KVPair
	err := s.read(ctx, func(ctx context.Context, conn *conn) error {
		statement, err := conn.prepare(ctx, selectRow(columns))
		if err != nil {
			return fmt.Errorf("sqlkv: preparing a read: %w", err)
		}
		row, err = rowOf(statement.QueryRowContext(ctx, []byte(key)))
		return err
	})
	if err != nil {
		return nil, err
	}
	if live := livePair(row, s.clock.Now().Wall); live != nil {
		return live, nil
	}
	absent := &kv.NotFoundError{Key: key}
	if row != nil {
		absent.Version = row.Version
	}
	return nil, absent
}

// read runs fn with a connection and a context that does not end: an interrupted
// statement costs more than it saves.
func (s *Store) read(ctx context.Context, fn func(context.Context, *conn) error) error {
	start := s.clock.Now()
	conn, err := s.take(ctx, s.readers)
	if err != nil {
		return classified(err)
	}
	if err = s.file.recheck(); err == nil {
		err = s.retryBusy(ctx, start, func() error { return fn(context.WithoutCancel(ctx), conn) })
	}
	s.give(s.readers, conn, err)
	return classified(err)
}

// List implements kv.Store. It reads page by page.
func (s *Store) List(ctx context.Context, prefix string, options ...kv.ReadOption) ([]*kv.KVPair, error) {
	settings, err := listSettings(ctx, prefix, options)
	if err != nil {
		return nil, err
	}
	limit := settings.Limit
	pairs := []*kv.KVPair{}
	for {
		if limit > 0 {
			settings.Limit = limit - len(pairs)
		}
		page, err := s.page(ctx, prefix, settings)
		if err != nil {
			return nil, err
		}
		pairs = append(pairs, page.Pairs...)
		if page.Next == "" || limit > 0 && len(pairs) >= limit {
			return pairs, nil
		}
		settings.StartKey = page.Next
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
}

// ListPage implements kv.Store. A page has at most 1,000 pairs if WithLimit does not say
// otherwise. It ends with the pair that makes its values exceed 1 MiB.
func (s *Store) ListPage(ctx context.Context, prefix string, options ...kv.ReadOption) (*kv.Page, error) {
	settings, err := listSettings(ctx, prefix, options)
	if err != nil {
		return nil, err
	}
	return s.page(ctx, prefix, settings)
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

// page reads one page.
func (s *Store) page(ctx context.Context, prefix string, settings kv.ReadSettings) (*kv.Page, error) {
	if settings.Limit == 0 {
		settings.Limit = pageSize
	}
	cursor, resumed, err := kv.ParseCursor(prefix, settings)
	if err != nil {
		return nil, err
	}
	if !resumed {
		cursor.Key = ""
	}
	var page *kv.Page
	err = s.read(ctx, func(ctx context.Context, conn *conn) (err error) {
		query, args := listQuery(prefix, settings, cursor.Key, s.clock.Now().Wall.UnixMilli())
		page, err = queryPage(ctx, conn, prefix, settings, query, args)
		return err
	})
	return page, err
}

// listQuery makes the query of a page that starts behind the key after, "": at the
// beginning. It asks for a row more than the page takes, which tells whether there is
// another page.
func listQuery(prefix string, settings kv.ReadSettings, after string, now int64) (string, []any) {
	selected, order, behind := columns, "ASC", ">"
	if settings.WithoutValues {
		selected = columnsWithoutValues
	}
	if settings.Descending {
		order, behind = "DESC", "<"
	}
	where := []string{"(expires IS NULL OR expires > ?)"}
	args := []any{now}
	bound := func(operator string, key []byte) {
		where = append(where, "key "+operator+" ?")
		args = append(args, key)
	}
	if prefix != "" {
		bound(">=", []byte(prefix))
		bound("<", successor(prefix))
	}
	if after != "" {
		bound(behind, []byte(after))
	}
	query := fmt.Sprintf("SELECT %s FROM kv WHERE %s ORDER BY key %s LIMIT ?", selected,
		strings.Join(where, " AND "), order)
	return query, append(args, settings.Limit+1)
}

// successor returns the least key that is greater than all with the prefix, which is not
// empty. UTF-8 has no byte 0xff.
func successor(prefix string) []byte {
	next := []byte(prefix)
	next[len(next)-1]++
	return next
}

// queryPage runs the query of listQuery.
func queryPage(
	ctx context.Context, conn *conn, prefix string, settings kv.ReadSettings, query string, args []any,
) (*kv.Page, error) {
	rows, err := conn.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("sqlkv: listing %q: %w", prefix, err)
	}
	defer func() { _ = rows.Close() }()
	page := &kv.Page{Pairs: []*kv.KVPair{}}
	size := 0
	for rows.Next() {
		if n := len(page.Pairs); n == settings.Limit || size > pageBytes {
			page.Next = kv.NewCursor(prefix, settings, page.Pairs[n-1].Key).Token()
			break
		}
		pair, err := scanPair(rows)
		if err != nil {
			return nil, err
		}
		size += len(pair.Bytes())
		page.Pairs = append(page.Pairs, pair)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("sqlkv: listing %q: %w", prefix, err)
	}
	return page, nil
}
