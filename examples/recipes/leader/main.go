// Leader elects one process among those that run it. Start it in two terminals,
// then stop or kill the one that leads.
//
//	go run ./examples/recipes/leader
package main

import (
	"context"
	"fmt"
	"time"

	"github.com/dynalock/dynalock/election"
	"github.com/dynalock/dynalock/examples/internal/stores"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

func main() { stores.Main(campaign) }

func campaign(ctx context.Context, store kv.Store) error {
	client, err := lease.New(store) // one client per process
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = client.Close(ctx)
	}()
	scheduler, err := election.New(client, "scheduler")
	if err != nil {
		return err
	}
	fmt.Println("campaigns")
	return scheduler.Run(ctx, func(ctx context.Context, t *election.Term) error {
		fmt.Println("leads, with fencing token", t.Token())
		<-ctx.Done() // work until the leadership is lost or the program stops
		return nil
	})
}
