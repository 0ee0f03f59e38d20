package lease_test

import (
	"context"
	"fmt"
	"time"

	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
)

// An entry of a register that stays when its owner is gone, and is new with each
// owner.
func ExampleWithReplaceValue() {
	ctx := context.Background()
	client, err := lease.New(memkv.New())
	if err != nil {
		panic(err)
	}
	defer func() { _ = client.Close(ctx) }()

	for _, address := range []string{"10.0.0.1:80", "10.0.0.2:80"} {
		l, err := client.Acquire(ctx, "primary", lease.KeepValue(), lease.WithReplaceValue([]byte(address)))
		if err != nil {
			panic(err)
		}
		if err := l.Release(ctx); err != nil {
			panic(err)
		}
		h, err := client.Inspect(ctx, "primary")
		if err != nil {
			panic(err)
		}
		fmt.Printf("%s, held: %t\n", h.Value, h.Held())
	}
	// Output:
	// 10.0.0.1:80, held: false
	// 10.0.0.2:80, held: false
}

// A holder that saves what it has before its time is over.
func ExampleLease_Notify() {
	ctx := context.Background()
	client, err := lease.New(memkv.New())
	if err != nil {
		panic(err)
	}
	defer func() { _ = client.Close(ctx) }()

	l, err := client.Acquire(ctx, "shift", lease.WithMaxHold(time.Second))
	if err != nil {
		panic(err)
	}
	<-l.Notify(500 * time.Millisecond)
	fmt.Println("saves, held:", l.Held())
	if err := l.Release(ctx); err != nil {
		panic(err)
	}
	// Output:
	// saves, held: true
}

// A holder whose requests to a third party may be under way for a while when its
// lease is lost. Who takes over from it, if it dies, waits for that long.
func ExampleWithLockDelay() {
	ctx := context.Background()
	client, err := lease.New(memkv.New())
	if err != nil {
		panic(err)
	}
	defer func() { _ = client.Close(ctx) }()

	l, err := client.Acquire(ctx, "payments", lease.WithLockDelay(30*time.Second))
	if err != nil {
		panic(err)
	}
	h, err := client.Inspect(ctx, "payments")
	if err != nil {
		panic(err)
	}
	fmt.Println("others wait for", h.LockDelay, "after its death")
	if err := l.Release(ctx); err != nil {
		panic(err)
	}
	l, err = client.TryAcquire(ctx, "payments")
	if err != nil {
		panic(err)
	}
	fmt.Println("after a release nobody waits")
	if err := l.Release(ctx); err != nil {
		panic(err)
	}
	// Output:
	// others wait for 30s after its death
	// after a release nobody waits
}
