package dynamomem

import (
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
)

// query is a parsed QueryInput.
type query struct {
	table      *table
	keys       keyCondition
	filter     predicate
	names      []string
	descending bool
	start      *rowKey
	limit      int // 0: none
}

func (s *Server) query(in *dynamodb.QueryInput) (*dynamodb.QueryOutput, error) {
	q, err := s.parseQuery(in)
	if err != nil {
		return nil, err
	}
	return q.run(), nil
}

func (s *Server) parseQuery(in *dynamodb.QueryInput) (*query, error) {
	err := onlyFields(in, "TableName", "ConsistentRead", "ScanIndexForward", "ExclusiveStartKey", "KeyConditionExpression",
		"FilterExpression", "ProjectionExpression", "Limit", "ExpressionAttributeNames", "ExpressionAttributeValues")
	if err != nil {
		return nil, err
	}
	q := &query{descending: in.ScanIndexForward != nil && !*in.ScanIndexForward, limit: int(aws.ToInt32(in.Limit))}
	if in.Limit != nil && q.limit < 1 {
		return nil, invalid("Limit is %d, want at least 1", q.limit)
	}
	if q.table, err = s.table(in.TableName); err != nil {
		return nil, err
	}
	e, err := newScope(in.ExpressionAttributeNames, in.ExpressionAttributeValues)
	if err != nil {
		return nil, err
	}
	if q.keys, err = e.keyCondition(q.table, in.KeyConditionExpression); err != nil {
		return nil, err
	}
	if q.filter, err = e.condition(in.FilterExpression); err != nil {
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

func (q *query) setStart(start item) error {
	if start == nil {
		return nil
	}
	key, err := q.table.onlyKey(start)
	if err != nil {
		return err
	}
	if key.partition != q.keys.partition || !q.keys.sort(key.sort) {
		return invalid("the provided starting key is outside query boundaries based on provided conditions")
	}
	q.start = &key
	return nil
}

// run looks at rows up to the limit, or to 1 MB of them; those that the filter drops count.
func (q *query) run() *dynamodb.QueryOutput {
	keys := q.table.partition(q.keys.partition)
	if q.descending {
		slices.Reverse(keys)
	}
	out := &dynamodb.QueryOutput{Items: []item{}}
	size := 0
	for _, key := range keys {
		if !q.keys.sort(key.sort) || !q.behindStart(key) {
			continue
		}
		row := q.table.rows[key]
		out.ScannedCount++
		size += sizeOf(row)
		if q.filter(row) {
			out.Items = append(out.Items, project(row, q.names))
			out.Count++
		}
		if int(out.ScannedCount) == q.limit || size >= maxPageSize {
			out.LastEvaluatedKey = q.table.keyItem(key)
			break
		}
	}
	return out
}

func (q *query) behindStart(key rowKey) bool {
	if q.start == nil {
		return true
	}
	if q.descending {
		return strings.Compare(key.sort, q.start.sort) < 0
	}
	return strings.Compare(key.sort, q.start.sort) > 0
}
