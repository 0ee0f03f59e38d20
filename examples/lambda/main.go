// Lambda shows a function for AWS Lambda that works under a lock, and what to
// do about its sandbox being frozen between invocations.
//
//	go run ./examples/lambda                                          two sandboxes, invoked in turns
//	go run ./examples/lambda -store dynamodb:TABLE -create-table      the same on DynamoDB
//
// handler.go is the part that a function of your own would have; its main would be
//
//	handler, err := NewHandler(store, work)
//	...
//	lambda.Start(handler.Handle) // github.com/aws/aws-lambda-go/lambda
//
// Here main plays the service: it invokes two handlers that share nothing but
// the store. The freezes are in handler_test.go.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/dynalock/dynalock/examples/internal/stores"
)

func main() {
	spec := flag.String("store", "memory", "memory, sqlite:PATH, postgres://USER@HOST/DATABASE or dynamodb:TABLE")
	create := flag.Bool("create-table", false, "make the table of DynamoDB or PostgreSQL if there is none")
	flag.Parse()
	if err := invoke(context.Background(), *spec, *create); err != nil {
		fmt.Fprintln(os.Stderr, "lambda:", err)
		os.Exit(1)
	}
}

// invoke makes two sandboxes and invokes them in turns.
func invoke(ctx context.Context, spec string, create bool) (err error) {
	store, closeStore, err := stores.Open(ctx, spec, create)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeStore()) }()
	paid := 0
	var sandboxes []*Handler
	for range 2 {
		h, err := NewHandler(store, func(context.Context, string) (int, error) {
			paid += 10
			return paid, nil
		})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, h.client.Close(ctx)) }() // Lambda would not: it drops a sandbox without a word
		sandboxes = append(sandboxes, h)
	}
	for i := range 4 {
		balance, err := sandboxes[i%2].Handle(ctx, Event{Account: "alice"})
		if err != nil {
			return err
		}
		fmt.Printf("sandbox %d: the balance is %d, written with token %d\n", 1+i%2, balance.Amount, balance.Token)
	}
	return nil
}
