package lock_test

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/dynalock/dynalock/kv/dynamokv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

// writeBalance writes an account's balance in one transaction with the
// condition that the lease is still the one under which it was computed. The
// store of the leases must be one on DynamoDB, in the account and Region of the
// table.
func writeBalance(ctx context.Context, db *dynamodb.Client, store *dynamokv.Store, l *lease.Lease, table, account,
	balance string) error {
	check, err := store.ConditionCheck(l.Condition())
	if err != nil {
		return err
	}
	_, err = db.TransactWriteItems(ctx, &dynamodb.TransactWriteItemsInput{TransactItems: []types.TransactWriteItem{check, {
		Put: &types.Put{TableName: aws.String(table), Item: map[string]types.AttributeValue{
			"account": &types.AttributeValueMemberS{Value: account},
			"balance": &types.AttributeValueMemberN{Value: balance},
		}},
	}}})
	var canceled *types.TransactionCanceledException
	if errors.As(err, &canceled) && aws.ToString(canceled.CancellationReasons[0].Code) == "ConditionalCheckFailed" {
		return fmt.Errorf("the lock went to another, nothing is written: %w", err)
	}
	return err
}

// A write to DynamoDB that a deposed holder cannot make, however late it comes:
// the transaction checks the lease. It needs DynamoDB, so that this example is
// compiled only; a test runs writeBalance.
func Example_fencedWriteToDynamoDB() {
	var db *dynamodb.Client // of the AWS SDK
	ctx := context.Background()
	store, err := dynamokv.New(db, "locks")
	if err != nil {
		panic(err)
	}
	client, err := lease.New(store)
	if err != nil {
		panic(err)
	}
	err = lock.NewMutex(client, "account/7").Do(ctx, func(ctx context.Context, l *lease.Lease) error {
		return writeBalance(ctx, db, store, l, "accounts", "7", "100")
	})
	fmt.Println(err)
}

// reports stands for a table of an SQL database with a column for the token:
//
//	CREATE TABLE reports (id TEXT PRIMARY KEY, body TEXT, token BIGINT NOT NULL DEFAULT 0)
type reports struct {
	mu   sync.Mutex
	rows map[string]reportRow
}

type reportRow struct {
	body  string
	token uint64
}

// update is
//
//	UPDATE reports SET body = ?, token = ? WHERE id = ? AND token <= ?
//
// and returns the number of rows it changed, 0 where a greater token has been there.
func (r *reports) update(id, body string, token uint64) (changed int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.rows[id].token > token {
		return 0
	}
	r.rows[id] = reportRow{body, token}
	return 1
}

// A write to a table that refuses those who held the lock before the last one
// that wrote: the token is a column.
func Example_fencedWriteToSQL() {
	ctx := context.Background()
	client, err := lease.New(memkv.New())
	if err != nil {
		panic(err)
	}
	defer func() { _ = client.Close(ctx) }()

	table := &reports{rows: map[string]reportRow{"nightly": {}}}
	write := func(body string, l *lease.Lease) {
		if table.update("nightly", body, l.Token()) == 0 {
			fmt.Println(body, "is refused: the lock has gone to another")
			return
		}
		fmt.Println(body, "is written")
	}
	var late *lease.Lease
	report := lock.NewMutex(client, "nightly-report")
	for _, who := range []string{"first", "second"} {
		err := report.Do(ctx, func(_ context.Context, l *lease.Lease) error {
			if late == nil {
				late = l // paused just before its write
				return nil
			}
			write(who, l)
			return nil
		})
		if err != nil {
			panic(err)
		}
	}
	write("first", late) // it wakes
	fmt.Println("kept:", table.rows["nightly"].body)
	// Output:
	// second is written
	// first is refused: the lock has gone to another
	// kept: second
}
