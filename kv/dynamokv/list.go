package dynamokv

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/dynalock/dynalock/kv"
)

// minScan is how many rows a query with a limit looks at, so that dead rows do not make
// many small queries.
const minScan = 100

// List implements kv.Store.
func (s *Store) List(ctx context.Context, prefix string, options ...kv.ReadOption) ([]*kv.KVPair, error) {
	m, err := s.newMerge(prefix, options)
	if err != nil {
		return nil, err
	}
	pairs := []*kv.KVPair{}
	for !m.done() && (m.limit == 0 || len(pairs) < m.limit) {
		more, err := m.next(ctx, m.limit-len(pairs))
		if err != nil {
			return nil, err
		}
		pairs = append(pairs, more...)
	}
	return pairs, nil
}

// ListPage implements kv.Store. Without WithLimit a page is DynamoDB's, of at most 1 MB, and
// on several shards what is in order of one such page of each.
func (s *Store) ListPage(ctx context.Context, prefix string, options ...kv.ReadOption) (*kv.Page, error) {
	m, err := s.newMerge(prefix, options)
	if err != nil {
		return nil, err
	}
	page := &kv.Page{Pairs: []*kv.KVPair{}}
	for !m.done() && (len(page.Pairs) == 0 || len(page.Pairs) < m.limit) {
		more, err := m.next(ctx, m.limit-len(page.Pairs))
		if err != nil {
			return nil, err
		}
		page.Pairs = append(page.Pairs, more...)
	}
	if !m.done() {
		page.Next = m.token()
	}
	return page, nil
}

// listing is a List or ListPage of one shard under way.
type listing struct {
	store    *Store
	shard    string // its partition key; any shard's rows in a global index
	pace     *pace  // of the shard, nil: of a global index
	prefix   string
	settings kv.ReadSettings
	start    item // the key of the last row looked at, nil at the beginning
	done     bool // there is no row behind start
}

func checkIndex(prefix string, settings kv.ReadSettings) error {
	index := settings.Index
	switch {
	case index == nil:
		return nil
	case index.PartitionField == "" && index.SortField == "":
		return fmt.Errorf("dynamokv: local index %q: its sort field is not named: %w", index.Name, kv.ErrInvalidOption)
	case index.PartitionField != "" && !settings.Eventual:
		return fmt.Errorf("dynamokv: global index %q is only eventually consistent: %w", index.Name, kv.ErrUnsupported)
	case index.SortField == "" && prefix != "":
		return fmt.Errorf("dynamokv: index %q has no sort field to match prefix %q: %w", index.Name, prefix,
			kv.ErrInvalidOption)
	}
	return nil
}

// next makes one query and returns its live rows, at most limit if that is not 0.
func (l *listing) next(ctx context.Context, limit int) ([]listed, error) {
	op := l.store.begin(l.prefix, false, l.settings.AttemptTimeout, answerSize)
	op.pace = l.pace
	in := l.query(op, limit)
	var out *dynamodb.QueryOutput
	err := op.run(ctx, func(ctx context.Context, options ...func(*dynamodb.Options)) (err error) {
		out, err = l.store.client.Query(ctx, in, options...)
		return err
	})
	if err != nil {
		return nil, err
	}
	var rows []listed
	now := l.store.clock.Now().Wall
	for i, it := range out.Items {
		r, err := l.row(it)
		if err != nil {
			return nil, err
		}
		if r == nil || !r.live(now) {
			continue
		}
		l.store.observeVersion(r.version, now)
		rows = append(rows, listed{pair: r.pair, sort: l.sortOf(it)})
		if len(rows) == limit && (i < len(out.Items)-1 || len(out.LastEvaluatedKey) > 0) {
			l.start = l.position(it)
			return rows, nil
		}
	}
	l.start, l.done = out.LastEvaluatedKey, len(out.LastEvaluatedKey) == 0
	return rows, nil
}

// row decodes a row of a query, nil if a global index returned one of another Store.
func (l *listing) row(it item) (*row, error) {
	s := l.store
	key, ok := it[s.nameName].(*types.AttributeValueMemberS)
	if !ok {
		return nil, &kv.FormatError{Key: l.prefix, Problem: fmt.Sprintf("a row of the listing has no string %q", s.nameName)}
	}
	if id, ok := it[s.idName].(*types.AttributeValueMemberS); !ok || !s.hasShard(id.Value) {
		return nil, nil
	}
	r, err := s.decode(key.Value, it, !l.settings.WithoutValues)
	if bad, ok := errors.AsType[*kv.FormatError](err); ok && l.settings.Index != nil {
		bad.Problem += fmt.Sprintf(" in index %q, whose projection must be ALL", l.settings.Index.Name)
	}
	return r, err
}

// query makes the request for the rows behind l.start.
func (l *listing) query(op *operation, limit int) *dynamodb.QueryInput {
	s, e, index := l.store, newExpression(), l.settings.Index
	in := &dynamodb.QueryInput{
		TableName:         aws.String(s.table),
		ConsistentRead:    aws.Bool(!l.settings.Eventual),
		ScanIndexForward:  aws.Bool(!l.settings.Descending),
		ExclusiveStartKey: l.start,
	}
	partition, partitionValue, sort := s.idName, stringAttr(l.shard), s.nameName
	if index != nil {
		in.IndexName, sort = aws.String(index.Name), index.SortField
		if index.PartitionField != "" {
			partition, partitionValue = index.PartitionField, encodeField(index.PartitionValue)
		}
	}
	condition := e.attr(partition) + " = " + e.value(partitionValue)
	if l.prefix != "" {
		condition += fmt.Sprintf(" AND begins_with(%s, %s)", e.attr(sort), e.value(stringAttr(l.prefix)))
	}
	in.KeyConditionExpression = aws.String(condition)
	in.FilterExpression = aws.String(e.notDead(op.wall()))
	if l.settings.WithoutValues {
		in.ProjectionExpression = aws.String(s.project(e, l.indexFields()...))
	}
	if limit > 0 {
		in.Limit = aws.Int32(int32(min(max(limit, minScan), 1<<20)))
	}
	in.ExpressionAttributeNames, in.ExpressionAttributeValues = e.names, e.values
	return in
}

// indexFields names the attributes that make a position in the listing's index,
// beside the table's key.
func (l *listing) indexFields() []string {
	var names []string
	if index := l.settings.Index; index != nil {
		if index.PartitionField != "" {
			names = append(names, index.PartitionField)
		}
		if index.SortField != "" {
			names = append(names, index.SortField)
		}
	}
	return names
}

// position is it as an ExclusiveStartKey.
func (l *listing) position(it item) item {
	start := item{}
	for _, name := range append([]string{l.store.idName, l.store.nameName}, l.indexFields()...) {
		if value, ok := it[name]; ok {
			start[name] = value
		}
	}
	return start
}

// sortOf is the value that an index orders it by, "" without one.
func (l *listing) sortOf(it item) string {
	if l.settings.Index == nil {
		return ""
	}
	v, _ := it[l.settings.Index.SortField].(*types.AttributeValueMemberS)
	if v == nil {
		return ""
	}
	return v.Value
}

// token says where l stopped.
func (l *listing) token() string {
	text := func(name string) string {
		v, _ := l.start[name].(*types.AttributeValueMemberS)
		if v == nil {
			return ""
		}
		return v.Value
	}
	c := kv.NewCursor(l.prefix, l.settings, text(l.store.nameName))
	if index := l.settings.Index; index != nil {
		c.Position = map[string]any{"id": text(l.store.idName)}
		if index.SortField != "" {
			c.Position["sort"] = text(index.SortField)
		}
	}
	return c.Token()
}

// resume goes on where a token says.
func (l *listing) resume(c kv.Cursor) error {
	s, index := l.store, l.settings.Index
	bad := fmt.Errorf("dynamokv: WithStartKey: not a position of this listing: %w", kv.ErrInvalidOption)
	l.start = item{s.idName: stringAttr(l.shard), s.nameName: stringAttr(c.Key)}
	if index == nil {
		if !strings.HasPrefix(c.Key, l.prefix) {
			return bad
		}
		return nil
	}
	id, ok := c.Position["id"].(string)
	if !ok || id == "" || (index.PartitionField == "" && !s.hasShard(id)) {
		return bad
	}
	if index.PartitionField != "" {
		l.start[s.idName] = stringAttr(id)
		l.start[index.PartitionField] = encodeField(index.PartitionValue)
	}
	if index.SortField != "" {
		sort, ok := c.Position["sort"].(string)
		if !ok || !strings.HasPrefix(sort, l.prefix) {
			return bad
		}
		l.start[index.SortField] = stringAttr(sort)
	}
	return nil
}
