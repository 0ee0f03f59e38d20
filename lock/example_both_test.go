package lock_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

// dynamolock stands in for cirello.io/dynamolock, which is no dependency of this
// module.
var dynamolock oldLibrary

type (
	oldLibrary struct{}
	oldOption  func()
	oldItem    struct{}
)

func (oldLibrary) WithSessionMonitor(time.Duration, func()) oldOption { return func() {} }

func (oldLibrary) AcquireLockWithContext(_ context.Context, key string, _ ...oldOption) (*oldItem, error) {
	fmt.Println("old lock of", key, "taken")
	return &oldItem{}, nil
}

func (oldLibrary) ReleaseLockWithContext(context.Context, *oldItem) (bool, error) {
	fmt.Println("old lock released")
	return true, nil
}

func ExampleBoth() {
	ctx := context.Background()
	client, err := lease.New(memkv.New())
	if err != nil {
		log.Fatal(err)
	}
	old := dynamolock
	send := func(_ context.Context, l *lease.Lease) error {
		fmt.Println("invoices sent under both locks:", l.Held())
		return nil
	}
	err = func() error {
		// begin docs/migration.md
		acquireOld := func(ctx context.Context) (func(context.Context) error, <-chan struct{}, error) {
			lost := make(chan struct{})
			monitor := dynamolock.WithSessionMonitor(3*time.Second, func() { close(lost) })
			item, err := old.AcquireLockWithContext(ctx, "invoices", monitor)
			if err != nil {
				return nil, nil, err
			}
			release := func(ctx context.Context) error {
				_, err := old.ReleaseLockWithContext(ctx, item)
				return err
			}
			return release, lost, nil
		}
		job := lock.Both(acquireOld, lock.NewMutex(client, "invoices"))
		return job.Do(ctx, send) // the context of send ends with the first loss
		// end docs/migration.md
	}()
	if err != nil {
		log.Fatal(err)
	}
	if err := client.Close(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// old lock of invoices taken
	// invoices sent under both locks: true
	// old lock released
}
