package dynamomem

import (
	"fmt"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// query is a parsed QueryInput.
type query struct {
	table      *table
	index      Index
	keys       keyCondition
	filter     predicate
	names      []string
	descending bool
	start      *entry
	limit      int // 0: none
}

func (s *Server) query(in *dynamodb.QueryInput) (*dynamodb.QueryOutput, error) {
	q, err := s.parseQuery(in)
	if err != nil {
		return nil, err
	}
	index, partition := "", partitionText(q.keys.partition)
	if q.table.global(q.index) {
		index = q.index.Name
	}
	m, err := s.admit(q.table, index, partition, false)
	if err != nil {
		return nil, err
	}
	out, size := q.run()
	m.read(size, aws.ToBool(in.ConsistentRead))
	if in.Select == types.SelectCount {
		out.Items = nil
	}
	return out, nil
}

// partitionText tells the values of a partition key apart.
func partitionText(v types.AttributeValue) string {
	if s, ok := v.(*types.AttributeValueMemberS); ok {
		return s.Value
	}
	return fmt.Sprintf("%T %v", v, v)
}

func (s *Server) parseQuery(in *dynamodb.QueryInput) (*query, error) {
	err := onlyFields(in, "TableName", "IndexName", "ConsistentRead", "ScanIndexForward", "ExclusiveStartKey",
		"KeyConditionExpression", "Select",
		"FilterExpression", "ProjectionExpression", "Limit", "ExpressionAttributeNames", "ExpressionAttributeValues")
	if err != nil {
		return nil, err
	}
	if in.Select != "" && in.Select != types.SelectCount {
		return nil, invalid("dynamomem does not know the parameter Select %s", in.Select)
	}
	q := &query{descending: in.ScanIndexForward != nil && !*in.ScanIndexForward, limit: int(aws.ToInt32(in.Limit))}
	if in.Limit != nil && q.limit < 1 {
		return nil, invalid("Limit is %d, want at least 1", q.limit)
	}
	if q.table, err = s.table(in.TableName); err != nil {
		return nil, err
	}
	if q.index, err = q.table.index(in.IndexName); err != nil {
		return nil, err
	}
	if q.table.global(q.index) && aws.ToBool(in.ConsistentRead) {
		return nil, invalid("consistent reads are not supported on global secondary indexes")
	}
	e, err := newScope(in.ExpressionAttributeNames, in.ExpressionAttributeValues)
	if err != nil {
		return nil, err
	}
	if q.keys, err = e.keyCondition(q.index, in.KeyConditionExpression); err != nil {
		return nil, err
	}
	if q.filter, err = e.condition(in.FilterExpression); err != nil {
		return nil, err
	}
	if err := e.onlyKeys(q); err != nil {
		return nil, err
	}
	if q.names, err = e.projection(in.ProjectionExpression); err != nil {
		return nil, err
	}
	if err := e.checkUsed(); err != nil {
		return nil, err
	}
	return q, q.setStart(in.ExclusiveStartKey)
}

// onlyKeys refuses a filter on what an index of keys does not hold.
func (s *scope) onlyKeys(q *query) error {
	for placeholder, name := range s.names {
		if q.index.KeysOnly && s.used[placeholder] && !slices.Contains(q.table.keyNames(q.index), name) {
			return invalid("Secondary index %s does not project one or more filter attributes: [%s]", q.index.Name, name)
		}
	}
	return nil
}

func (q *query) setStart(start item) error {
	if start == nil {
		return nil
	}
	names := q.table.keyNames(q.index)
	if len(start) != len(names) {
		return invalid("the provided starting key is invalid")
	}
	key, err := q.table.keyOf(start)
	if err != nil {
		return err
	}
	e, ok := q.index.entryOf(key, start)
	if !ok {
		return invalid("the provided starting key is invalid")
	}
	if !equal(start[q.index.PartitionKey], q.keys.partition) || !q.keys.sort(e.sort) {
		return invalid("the provided starting key is outside query boundaries based on provided conditions")
	}
	q.start = &e
	return nil
}

// run looks at rows up to the limit, or to 1 MB of them, and returns how many bytes they
// are; those that the filter drops count.
func (q *query) run() (*dynamodb.QueryOutput, int) {
	entries := q.table.partition(q.index, q.keys.partition)
	if q.descending {
		slices.Reverse(entries)
	}
	keys := q.table.keyNames(q.index)
	out := &dynamodb.QueryOutput{Items: []item{}}
	size := 0
	for _, e := range entries {
		if !q.keys.sort(e.sort) || !q.behindStart(e) {
			continue
		}
		row := q.table.rows[e.key]
		position := project(row, keys)
		if q.index.KeysOnly {
			row = position
		}
		out.ScannedCount++
		size += sizeOf(row)
		if q.filter(row) {
			out.Items = append(out.Items, project(row, q.names))
			out.Count++
		}
		if int(out.ScannedCount) == q.limit || size >= maxPageSize {
			out.LastEvaluatedKey = position
			break
		}
	}
	return out, size
}

func (q *query) behindStart(e entry) bool {
	if q.start == nil {
		return true
	}
	if q.descending {
		return e.compare(*q.start) < 0
	}
	return e.compare(*q.start) > 0
}
