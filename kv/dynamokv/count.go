package dynamokv

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// Count is how many rows a listing looks at.
type Count struct {
	// Live are the pairs that it returns.
	Live int
	// Dead are the rows that it reads and leaves out: what was deleted or has expired,
	// until DynamoDB sweeps it. The Store's own row, which records that it has one shard,
	// is one of them.
	Dead int
}

// Count says what List looks at. Dead rows make listings slow and dear: they cost what live
// pairs of their size cost. It reads all that List reads, eventually consistent, at half the
// price, and holds nothing of it in memory. Shards are asked one after the other.
func (s *Store) Count(ctx context.Context, prefix string) (Count, error) {
	var c Count
	for i := range s.shards {
		l := &listing{store: s, shard: s.shard(i), prefix: prefix}
		l.settings.Eventual = true
		for !l.done {
			op := s.begin(prefix, false, 0, answerSize)
			in := l.query(op, 0)
			in.Select = types.SelectCount
			var out *dynamodb.QueryOutput
			err := op.run(ctx, func(ctx context.Context, options ...func(*dynamodb.Options)) (err error) {
				out, err = s.client.Query(ctx, in, options...)
				return err
			})
			if err != nil {
				return Count{}, err
			}
			c.Live += int(out.Count)
			c.Dead += int(out.ScannedCount - out.Count)
			l.start, l.done = out.LastEvaluatedKey, len(out.LastEvaluatedKey) == 0
		}
	}
	return c, nil
}
