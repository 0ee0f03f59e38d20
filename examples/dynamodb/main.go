// Quickstart takes a lock on DynamoDB: the program of the README.
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
	store, err := dynamokv.New(db, "locks") // or memkv.New(), or sqlkv.Open
	if err != nil {
		return err
	}
	client, err := lease.New(store) // one for the whole process
	if err != nil {
		return err
	}
	defer func() { _ = client.Close(ctx) }()

	return lock.NewMutex(client, "nightly-report").Do(ctx, func(ctx context.Context, l *lease.Lease) error {
		fmt.Println("locked, with fencing token", l.Token()) // ctx ends if the lock is lost
		return nil
	})
}
