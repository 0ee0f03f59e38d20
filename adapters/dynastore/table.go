package dynastore

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/dynamokv"
)

// ErrTaken says that the row is dynamokv's by now: read it with a dynamokv.Store.
var ErrTaken = errors.New("dynastore: the row was taken over")

// Table is one partition of a table that the old libraries wrote. It is safe for
// concurrent use, and holds nothing that needs closing. Use Open.
type Table struct {
	client           dynamokv.Client
	table, partition string
}

// Open returns the rows of one partition of table. partition is the name that the
// old program gave to Table.Partition of dynastore, or to its lock store. Open
// does no I/O. Its errors match kv.ErrInvalidOption.
func Open(client dynamokv.Client, table, partition string) (*Table, error) {
	if client == nil || table == "" || partition == "" {
		return nil, fmt.Errorf("dynastore: Open: table %q, partition %q: want a client and two names: %w",
			table, partition, kv.ErrInvalidOption)
	}
	return &Table{client: client, table: table, partition: partition}, nil
}

// Get returns the live row of key, by a strongly consistent read. Without one the
// error matches kv.ErrKeyNotFound. ErrTaken: it is dynamokv's. An error that
// matches kv.ErrFormat: neither wrote it. It costs one read.
func (t *Table) Get(ctx context.Context, key string) (*Row, error) {
	if err := kv.CheckKey(key); err != nil {
		return nil, err
	}
	out, err := t.client.GetItem(ctx, &dynamodb.GetItemInput{
		TableName: &t.table, Key: t.keyOf(key), ConsistentRead: aws.Bool(true),
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("dynastore: reading %q: %w", key, err)
	case out.Item == nil:
		return nil, &kv.NotFoundError{Key: key}
	case taken(out.Item):
		return nil, fmt.Errorf("%q: %w", key, ErrTaken)
	}
	r, err := decode(out.Item)
	if err == nil && !r.live(time.Now()) {
		return nil, &kv.NotFoundError{Key: key, Version: r.Version}
	}
	return r, err
}

// All returns the live rows whose keys begin with prefix, in the order of their
// keys, by strongly consistent reads. Rows of dynamokv are left out. A row that
// neither wrote comes as an error that matches kv.ErrFormat, with a nil row, and
// the listing goes on. Any other error ends it. It costs what reading the rows
// costs, a page at a time.
func (t *Table) All(ctx context.Context, prefix string) iter.Seq2[*Row, error] {
	return func(yield func(*Row, error) bool) {
		input := t.query(prefix)
		for {
			page, err := t.client.Query(ctx, input)
			if err != nil {
				yield(nil, fmt.Errorf("dynastore: listing %q: %w", prefix, err))
				return
			}
			for _, it := range page.Items {
				if taken(it) {
					continue
				}
				r, err := decode(it)
				if err == nil && !r.live(time.Now()) {
					continue
				}
				if err != nil {
					r = nil
				}
				if !yield(r, err) {
					return
				}
			}
			if page.LastEvaluatedKey == nil {
				return
			}
			input.ExclusiveStartKey = page.LastEvaluatedKey
		}
	}
}

func (t *Table) query(prefix string) *dynamodb.QueryInput {
	q := &dynamodb.QueryInput{
		TableName: &t.table, ConsistentRead: aws.Bool(true),
		KeyConditionExpression:    aws.String("#i = :i"),
		ExpressionAttributeNames:  map[string]string{"#i": attrID},
		ExpressionAttributeValues: item{":i": text(t.partition)},
	}
	if prefix != "" { // DynamoDB refuses an empty one
		q.KeyConditionExpression = aws.String("#i = :i AND begins_with(#n, :p)")
		q.ExpressionAttributeNames["#n"] = attrName
		q.ExpressionAttributeValues[":p"] = text(prefix)
	}
	return q
}

func (t *Table) keyOf(key string) item {
	return item{attrID: text(t.partition), attrName: text(key)}
}

func text(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }

func whole(n int64) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: fmt.Sprint(n)}
}
