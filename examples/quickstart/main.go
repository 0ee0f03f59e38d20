// Quickstart takes a lock in memory: the program of the README.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

func main() {
	ctx := context.Background()
	client, err := lease.New(memkv.New()) // one client per process
	if err != nil {
		log.Fatal(err)
	}
	err = lock.NewMutex(client, "schema-migration").Do(ctx, func(ctx context.Context, l *lease.Lease) error {
		fmt.Println("locked, with fencing token", l.Token()) // ctx ends if the lock is lost
		return nil
	})
	if err := errors.Join(err, client.Close(ctx)); err != nil {
		log.Fatal(err)
	}
}
