// Migration brings a schema up to date when a process starts. The processes of a
// release all start at the same time, and one of them migrates. The others wait,
// and find it done. Start it in several terminals.
//
//	go run ./examples/patterns/migration
package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/dynalock/dynalock/examples/internal/stores"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

// migrations are the steps, the first leads to version 1.
var migrations = []string{"create table orders", "add column orders.customer", "create index by_customer"}

// version is the key of the schema's version. In a program of your own it is a row
// of the database that is migrated, written in the transaction of the step.
const version = "schema/version"

func main() { stores.Main(start) }

func start(ctx context.Context, store kv.Store) error {
	client, err := lease.New(store) // one client per process
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = client.Close(ctx)
	}()
	err = lock.NewMutex(client, "schema-migration").Do(ctx, func(ctx context.Context, _ *lease.Lease) error {
		return migrate(ctx, store)
	})
	if err == nil {
		fmt.Println("starts with version", len(migrations))
	}
	return err
}

// migrate takes the steps that are missing. Each is written on the version before
// it: a process that was paused, and has lost the lock meanwhile, is refused.
func migrate(ctx context.Context, store kv.Store) error {
	current, err := store.Get(ctx, version)
	if err != nil && !errors.Is(err, kv.ErrKeyNotFound) {
		return err
	}
	done := 0
	if current != nil {
		if done, err = strconv.Atoi(string(current.Bytes())); err != nil {
			return fmt.Errorf("%s: %w", version, err)
		}
	}
	for i := done; i < len(migrations); i++ {
		if ctx.Err() != nil {
			return context.Cause(ctx) // the lock is lost
		}
		fmt.Println("migrates:", migrations[i])
		next := []kv.WriteOption{kv.WithString(strconv.Itoa(i + 1))}
		if current != nil {
			next = append(next, kv.WithPrevious(current))
		}
		if current, err = store.AtomicPut(ctx, version, next...); err != nil {
			return err
		}
	}
	return nil
}
