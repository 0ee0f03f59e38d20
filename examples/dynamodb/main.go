// Dynamodb takes a lock on DynamoDB: the program of the README, for processes
// anywhere. It makes the table if there is none.
//
//	go run ./examples/dynamodb
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/dynalock/dynalock/kv/dynamokv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	settings, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return err
	}
	db := dynamodb.NewFromConfig(settings)
	if err := dynamokv.EnsureTable(ctx, db, "locks"); err != nil { // once; or make it with infra/table.yaml
		return err
	}
	store, err := dynamokv.New(db, "locks")
	if err != nil {
		return err
	}
	client, err := lease.New(store) // one client per process
	if err != nil {
		return err
	}
	defer func() { _ = client.Close(ctx) }()

	return lock.NewMutex(client, "schema-migration").Do(ctx, func(ctx context.Context, l *lease.Lease) error {
		fmt.Println("locked, with fencing token", l.Token()) // ctx ends if the lock is lost
		return nil
	})
}
