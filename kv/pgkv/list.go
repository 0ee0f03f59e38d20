package pgkv

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"github.com/dynalock/dynalock/kv"
)

const (
	// pageSize is how many pairs a page of ListPage has without WithLimit,
	// pageBytes the sum of their values from which it ends.
	pageSize  = 1000
	pageBytes = 1 << 20
	// maxPageSize is how many it has at most, whatever WithLimit says.
	maxPageSize = 10_000
)

// List implements kv.Store. It reads page by page.
func (s *Store) List(ctx context.Context, prefix string, options ...kv.ReadOption) ([]*kv.KVPair, error) {
	settings, err := listSettings(prefix, options)
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
	}
}

// ListPage implements kv.Store. It is one statement. A page has at most 1,000
// pairs if WithLimit does not say otherwise, 10,000 at most, and ends with the
// pair that makes its values exceed 1 MiB.
func (s *Store) ListPage(ctx context.Context, prefix string, options ...kv.ReadOption) (*kv.Page, error) {
	settings, err := listSettings(prefix, options)
	if err != nil {
		return nil, err
	}
	return s.page(ctx, prefix, settings)
}

func listSettings(prefix string, options []kv.ReadOption) (kv.ReadSettings, error) {
	settings, err := kv.ListSettings(prefix, options)
	if err == nil && settings.Index != nil {
		err = fmt.Errorf("pgkv: index %q: %w", settings.Index.Name, kv.ErrIndexNotSupported)
	}
	return settings, err
}

func (s *Store) page(ctx context.Context, prefix string, settings kv.ReadSettings) (*kv.Page, error) {
	if settings.Limit == 0 {
		settings.Limit = pageSize
	}
	settings.Limit = min(settings.Limit, maxPageSize)
	cursor, resumed, err := kv.ParseCursor(prefix, settings)
	if err != nil {
		return nil, err
	}
	if !resumed {
		cursor.Key = ""
	}
	query, args := s.listQuery(prefix, settings, cursor.Key)
	op := s.begin(prefix, false, settings.AttemptTimeout, int(listTimeout/attemptTimeout-1)*attemptRate)
	var page *kv.Page
	err = op.run(ctx, func(ctx context.Context, conn *sql.Conn) (again bool, err error) {
		page = &kv.Page{Pairs: []*kv.KVPair{}}
		return false, op.queryPage(ctx, conn, page, query, args)
	})
	if err != nil {
		return nil, err
	}
	if n := len(page.Pairs); page.Next != "" {
		page.Next = kv.NewCursor(prefix, settings, page.Pairs[n-1].Key).Token()
	}
	return page, nil
}

// listQuery makes the query of a page that starts behind the key after, "": at
// the beginning. It asks for a row more than the page takes, which tells whether
// there is another page, and the server leaves out what does not fit: a client
// that stops reading rows must take them all the same.
func (s *Store) listQuery(prefix string, settings kv.ReadSettings, after string) (string, []any) {
	order, behind := "ASC", ">"
	if settings.Descending {
		order, behind = "DESC", "<"
	}
	args := []any{s.namespace}
	where := []string{"t.ns = $1::text", isLive}
	bound := func(operator string, key []byte) {
		args = append(args, key)
		where = append(where, fmt.Sprintf("t.key %s $%d::bytea", operator, len(args)))
	}
	if prefix != "" {
		bound(">=", []byte(prefix))
		bound("<", successor(prefix))
	}
	if after != "" {
		bound(behind, []byte(after))
	}
	value, fields := "t.value", "t.fields::text"
	if settings.WithoutValues {
		value, fields = "''::bytea", "NULL::text"
	}
	args = append(args, settings.Limit+1, settings.Limit, pageBytes)
	n := len(args)
	return fmt.Sprintf(`SELECT p.key, p.version, p.expires, p.fields, p.value, p.n < p.rows FROM (
	SELECT r.*, row_number() OVER w AS n, count(*) OVER () AS rows,
		sum(octet_length(r.value)) OVER w - octet_length(r.value) AS before
	FROM (SELECT t.key, t.version, t.expires, %[1]s AS fields, %[2]s AS value FROM %[3]s AS t
		WHERE %[4]s ORDER BY t.key %[5]s LIMIT $%[6]d::int) r
	WINDOW w AS (ORDER BY r.key %[5]s)) p
WHERE p.n <= $%[7]d::int AND p.before <= $%[8]d::int ORDER BY p.key %[5]s`,
		fields, value, s.table, strings.Join(where, " AND "), order, n-2, n-1, n), args
}

// successor returns the least key that is greater than all with the prefix,
// which is not empty. UTF-8 has no byte 0xff.
func successor(prefix string) []byte {
	next := []byte(prefix)
	next[len(next)-1]++
	return next
}

// queryPage fills page. A page that is not the last has a Next, not yet a token.
func (op *operation) queryPage(ctx context.Context, conn *sql.Conn, page *kv.Page, query string, args []any) error {
	var (
		key, value []byte
		version    int64
		expires    sql.NullTime
		fields     sql.NullString
		more       bool
		broken     error
	)
	take := func() {
		pair, err := makePair(string(key), version, expires, fields, value)
		if err != nil && broken == nil {
			broken = err
		}
		page.Pairs, page.Next = append(page.Pairs, pair), ""
		if more {
			page.Next = string(key)
		}
		key, value = nil, nil
	}
	_, err := op.queryRows(ctx, conn, false, query, args, take, &key, &version, &expires, &fields, &value, &more)
	if err != nil {
		return err
	}
	return broken
}
