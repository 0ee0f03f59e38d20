package dynamokv

import (
	"cmp"
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/dynalock/dynalock/kv"
)

// sideBySide bounds how many shards a listing asks at a time.
const sideBySide = 16

// listed is a live row of a listing, and what an index orders it by.
type listed struct {
	pair *kv.KVPair
	sort string
}

// merge is a List or ListPage under way. It puts what the shards have in order.
type merge struct {
	limit int // of the caller, 0: none
	parts []*part
	last  *listing // the part of the last pair, its start where that pair is
}

// part is a shard's listing, and what it has returned and merge has not.
type part struct {
	*listing
	rows []listed
}

// newMerge checks the listing, and begins it where a token says. A global index
// has the rows of all shards, so it is asked once.
func (s *Store) newMerge(prefix string, options []kv.ReadOption) (*merge, error) {
	settings, err := kv.ListSettings(prefix, options)
	if err != nil {
		return nil, err
	}
	if err := checkIndex(prefix, settings); err != nil {
		return nil, err
	}
	cursor, resumed, err := kv.ParseCursor(prefix, settings)
	if err != nil {
		return nil, err
	}
	m := &merge{limit: settings.Limit}
	n, global := s.shards, settings.Index != nil && settings.Index.PartitionField != ""
	if global {
		n = 1
	}
	for i := range n {
		l := &listing{store: s, shard: s.shard(i), prefix: prefix, settings: settings}
		if !global {
			l.pace = s.paceOf(i, false)
		}
		if resumed {
			if err := l.resume(cursor); err != nil {
				return nil, err
			}
		}
		m.parts = append(m.parts, &part{listing: l})
	}
	return m, nil
}

// done reports that there are no rows left.
func (m *merge) done() bool {
	for _, p := range m.parts {
		if !p.done || len(p.rows) > 0 {
			return false
		}
	}
	return true
}

// next asks each shard of which nothing is left, and returns what is in order
// then, at most limit if that is not 0.
func (m *merge) next(ctx context.Context, limit int) ([]*kv.KVPair, error) {
	if err := m.fill(ctx, limit); err != nil {
		return nil, err
	}
	if len(m.parts) == 1 {
		p := m.parts[0]
		m.last = p.listing
		return p.take(), nil
	}
	var pairs []*kv.KVPair
	var last listed
	var lastPart *part
	for limit == 0 || len(pairs) < limit {
		first, ok := m.first()
		if !ok {
			break
		}
		last, lastPart = first.rows[0], first
		pairs = append(pairs, last.pair)
		first.rows = first.rows[1:]
	}
	if lastPart != nil {
		m.last = lastPart.at(last)
	}
	return pairs, nil
}

// first is the part whose first row comes next. ok is false if that is not
// known before a shard is asked again, or if no row is left.
func (m *merge) first() (next *part, ok bool) {
	for _, p := range m.parts {
		switch {
		case len(p.rows) == 0 && !p.done:
			return nil, false
		case len(p.rows) == 0:
		case next == nil || p.rows[0].before(next.rows[0], p.settings.Descending):
			next = p
		}
	}
	return next, next != nil
}

// before orders by the index's value, and then by key.
func (r listed) before(other listed, descending bool) bool {
	order := cmp.Or(cmp.Compare(r.sort, other.sort), cmp.Compare(r.pair.Key, other.pair.Key))
	return order < 0 != descending
}

// fill asks the shards of which no row is left, side by side.
func (m *merge) fill(ctx context.Context, limit int) error {
	var asking errgroup.Group
	asking.SetLimit(sideBySide)
	for _, p := range m.parts {
		if len(p.rows) == 0 && !p.done {
			asking.Go(func() error { return p.ask(ctx, limit) })
		}
	}
	return asking.Wait()
}

func (p *part) ask(ctx context.Context, limit int) (err error) {
	p.rows, err = p.next(ctx, limit)
	return err
}

// take removes the rows and returns their pairs.
func (p *part) take() []*kv.KVPair {
	pairs := make([]*kv.KVPair, len(p.rows))
	for i, r := range p.rows {
		pairs[i] = r.pair
	}
	p.rows = nil
	return pairs
}

// at is the listing as if it had stopped at r.
func (p *part) at(r listed) *listing {
	l := *p.listing
	l.start = item{p.store.idName: stringAttr(p.shard), p.store.nameName: stringAttr(r.pair.Key)}
	if index := p.settings.Index; index != nil {
		l.start[index.SortField] = stringAttr(r.sort)
	}
	return &l
}

// token says where the listing stopped. On several shards that is the last pair.
func (m *merge) token() string { return m.last.token() }
