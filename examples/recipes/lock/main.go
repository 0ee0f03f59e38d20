// Lock keeps work from overlapping: who comes second waits. Start it in two
// terminals.
//
//	go run ./examples/recipes/lock
package main

import (
	"context"
	"fmt"
	"time"

	"github.com/dynalock/dynalock/examples/internal/stores"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

func main() { stores.Main(migrate) }

func migrate(ctx context.Context, store kv.Store) error {
	client, err := lease.New(store) // one client per process
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = client.Close(ctx)
	}()
	fmt.Println("waits for the lock")
	return lock.NewMutex(client, "schema-migration").Do(ctx, func(ctx context.Context, l *lease.Lease) error {
		fmt.Println("works, with fencing token", l.Token())
		select {
		case <-time.After(3 * time.Second): // the work
		case <-ctx.Done(): // the lock is lost, or the program stops
		}
		return context.Cause(ctx)
	})
}
