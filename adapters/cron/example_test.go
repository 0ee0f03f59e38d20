package cronlock_test

import (
	"context"
	"fmt"
	"log"

	"github.com/robfig/cron/v3"

	"github.com/dynalock/dynalock/adapters/cron"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

func ExampleNew() {
	client, err := lease.New(memkv.New())
	if err != nil {
		log.Fatal(err)
	}
	ctx, c := context.Background(), cron.New()
	report := func(context.Context, *lease.Lease) error { fmt.Println("reported"); return nil }
	err = func() error {
		// begin docs/adapters.md
		once := lock.NewOnce(client, "report") // one for each job
		schedule, err := cron.ParseStandard("0 6 * * *")
		if err != nil {
			return err
		}
		shared, err := cronlock.New(ctx, once, schedule, cron.DefaultLogger)
		if err != nil {
			return err
		}
		c.Schedule(schedule, cron.NewChain(shared).Then(cronlock.Func(report)))
		// end docs/adapters.md
		return nil
	}()
	if err != nil {
		log.Fatal(err)
	}
	for range 2 {
		c.Entries()[0].WrappedJob.Run() // as cron does when its time has come
	}
	if err := client.Close(ctx); err != nil {
		log.Fatal(err)
	}
	// Output: reported
}
