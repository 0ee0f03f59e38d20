// Jobs shares out jobs among the processes that run it, and each job is done
// once. Start it in two terminals. When all jobs are done it ends, and started
// again it finds nothing to do.
//
//	go run ./examples/recipes/jobs
package main

import (
	"context"
	"fmt"
	"time"

	"github.com/dynalock/dynalock/examples/internal/stores"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/pool"
)

func main() { stores.Main(share) }

func share(ctx context.Context, store kv.Store) error {
	client, err := lease.New(store) // one client per process
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = client.Close(ctx)
	}()
	p, err := pool.New(client, "invoices", func(_ context.Context, w *pool.Work) error {
		fmt.Println("does", w.Name())
		return pool.ErrDone
	}, pool.WithMaxPartitions(2), pool.WithPlanInterval(time.Second))
	if err == nil {
		err = p.Sync(ctx, "anna", "bob", "carla", "dave", "eve", "frank")
	}
	if err == nil {
		err = p.Run(ctx) // until all are done
	}
	return err
}
