package lease_test

import (
	"context"
	"fmt"
	"log"
	"sync/atomic"

	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
)

// A pool of three jobs. Each is worked on by one member at a time, which goes on where its predecessor's checkpoint says, and says when it is
// finished for good. Any number of processes may run this.
func ExampleNewPool() {
	ctx := context.Background()
	client, err := lease.New(memkv.New())
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close(ctx)

	var sent atomic.Int64
	pool, err := lease.NewPool(client, "newsletters", func(ctx context.Context, l *lease.Lease) error {
		next := 0
		if checkpoint := l.Value(); checkpoint != nil {
			next = int(checkpoint[0])
		}
		for ; next < 5; next++ {
			select {
			case <-lease.Draining(ctx):
				return nil // another member goes on from the checkpoint
			case <-ctx.Done():
				return context.Cause(ctx)
			default:
			}
			sent.Add(1) // give l.Token() to a resource that refuses old tokens
			if err := l.Update(ctx, []byte{byte(next + 1)}); err != nil {
				return err
			}
		}
		return lease.ErrDone
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := pool.Add(ctx, "monday", "tuesday", "wednesday"); err != nil {
		log.Fatal(err)
	}
	if err := pool.Run(ctx); err != nil { // until all are done
		log.Fatal(err)
	}
	for partition, err := range pool.Partitions(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s %d %t\n", partition.Name, partition.Checkpoint, partition.Done)
	}
	fmt.Println(sent.Load(), "sent")
	// Output:
	// monday [5] true
	// tuesday [5] true
	// wednesday [5] true
	// 15 sent
}
