package lock_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

func ExampleMutex_Do() {
	ctx := context.Background()
	client, err := lease.New(memkv.New()) // dynamokv or sqlkv in real life
	if err != nil {
		panic(err)
	}
	defer func() { _ = client.Close(ctx) }()

	report := lock.NewMutex(client, "nightly-report")
	err = report.Do(ctx, func(_ context.Context, l *lease.Lease) error {
		fmt.Println("held:", l.Held())
		return nil
	})
	fmt.Println("error:", err)
	// Output:
	// held: true
	// error: <nil>
}

func ExampleMutex_TryLock() {
	ctx := context.Background()
	client, err := lease.New(memkv.New())
	if err != nil {
		panic(err)
	}
	defer func() { _ = client.Close(ctx) }()

	job := lock.NewMutex(client, "cron/cleanup")
	held, err := job.TryLock(ctx)
	if err != nil {
		panic(err)
	}
	if _, err := job.TryLock(ctx); errors.Is(err, lease.ErrHeld) {
		fmt.Println("somebody else does it")
	}
	fmt.Println("released:", held.Release(ctx))
	// Output:
	// somebody else does it
	// released: <nil>
}
