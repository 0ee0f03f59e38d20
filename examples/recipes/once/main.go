// Once does a job once a night, on however many machines it is started, and
// whatever their clocks say. Start it again: it says that the job was done.
//
//	go run ./examples/recipes/once
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

func main() { stores.Main(report) }

func report(ctx context.Context, store kv.Store) error {
	client, err := lease.New(store) // one client per process
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = client.Close(ctx)
	}()
	night := lock.Slot(time.Now(), 24*time.Hour) // the day, in UTC
	job := lock.NewOnce(client, "nightly-report", lock.Wait())
	ran, err := job.Do(ctx, night, func(context.Context, *lease.Lease) error {
		fmt.Println("writes the report of", night)
		return nil
	})
	if err == nil && !ran {
		fmt.Println("somebody has written the report of", night)
	}
	return err
}
