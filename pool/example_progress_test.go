package pool_test

import (
	"context"
	"fmt"
	"log"

	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/pool"
)

// How far a batch job is. A tool needs no handler and no running member.
func ExamplePool_Progress() {
	ctx := context.Background()
	client, err := lease.New(memkv.New())
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = client.Close(ctx) }()

	p, err := pool.New(client, "newsletters", nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := p.Add(ctx, "monday", "tuesday", "wednesday"); err != nil {
		log.Fatal(err)
	}
	if err := p.Pause(ctx, "tuesday"); err != nil {
		log.Fatal(err)
	}
	n, err := p.Progress(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d of %d done, %d held, %d idle, %d paused\n", n.Done, n.Total, n.Held, n.Idle, n.Paused)
	// Output:
	// 0 of 3 done, 0 held, 2 idle, 1 paused
}
