package sim_test

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// sweepAfter is for how long a tombstone is kept where rows are swept: longer
// than anything is under way and clocks differ there. A day in reality.
const sweepAfter = time.Minute

// sweep removes tombstones as DynamoDB does, after their retention and without telling anybody.
func (w *world) sweep(ctx context.Context) {
	for w.sleep(ctx, 7*time.Second) {
		w.mu.Lock()
		for name, row := range w.rows {
			if row.live || row.version == 0 || row.swept || w.elapsed()-row.changed < sweepAfter {
				continue
			}
			_, err := w.server.Client().DeleteItem(ctx,
				&dynamodb.DeleteItemInput{TableName: aws.String("table"), Key: map[string]types.AttributeValue{
					"id": row.id, "name": &types.AttributeValueMemberS{Value: name},
				}})
			if err != nil {
				w.failLocked("harness", "%v", err)
			}
			row.swept = true
			w.recordLocked(nil, "swept", name, row.version)
		}
		w.mu.Unlock()
	}
}
