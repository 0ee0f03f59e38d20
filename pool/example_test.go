package pool_test

import (
	"context"
	"fmt"
	"log"
	"sync/atomic"

	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/pool"
)

// A pool of three jobs. Each is worked on by one member at a time, which goes on
// where its predecessor's checkpoint says, and says when it is
// finished for good. Any number of processes may run this.
func ExampleNew() {
	ctx := context.Background()
	client, err := lease.New(memkv.New())
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close(ctx)

	var sent atomic.Int64
	p, err := pool.New(client, "newsletters", func(ctx context.Context, l *pool.Work) error {
		next := 0
		if checkpoint := l.Checkpoint(); checkpoint != nil {
			next = int(checkpoint[0])
		}
		for ; next < 5; next++ {
			select {
			case <-l.Draining():
				return nil // another member goes on from the checkpoint
			case <-ctx.Done():
				return context.Cause(ctx)
			default:
			}
			sent.Add(1) // give l.Token() to a resource that refuses old tokens
			if err := l.Save(ctx, []byte{byte(next + 1)}); err != nil {
				return err
			}
		}
		return pool.ErrDone
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := p.Add(ctx, "monday", "tuesday", "wednesday"); err != nil {
		log.Fatal(err)
	}
	if err := p.Run(ctx); err != nil { // until all are done
		log.Fatal(err)
	}
	for partition, err := range p.Partitions(ctx) {
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
