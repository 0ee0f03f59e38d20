package gocronlock_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/go-co-op/gocron/v2"

	"github.com/dynalock/dynalock/adapters/gocron"
	"github.com/dynalock/dynalock/election"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

var sent = make(chan struct{}, 1)

func send() {
	fmt.Println("sent")
	sent <- struct{}{}
}

// newExample returns a client and a scheduler for the examples. They end with
// closeExample.
func newExample() (*lease.Client, gocron.Scheduler) {
	client, err := lease.New(memkv.New())
	if err != nil {
		log.Fatal(err)
	}
	scheduler, err := gocron.NewScheduler()
	if err != nil {
		log.Fatal(err)
	}
	return client, scheduler
}

func closeExample(client *lease.Client, scheduler gocron.Scheduler) {
	if err := scheduler.Shutdown(); err != nil {
		log.Fatal(err)
	}
	if err := client.Close(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func ExampleNew() {
	client, scheduler := newExample()
	defer closeExample(client, scheduler)
	err := func() error {
		// begin docs/adapters.md
		once := lock.NewOnce(client, "invoices") // one for all jobs of a program
		hourly, err := gocronlock.New(once, time.Hour)
		if err != nil {
			return err
		}
		_, err = scheduler.NewJob(gocron.CronJob("0 * * * *", false), gocron.NewTask(send),
			gocron.WithName("send"), gocron.WithDistributedJobLocker(hourly))
		// end docs/adapters.md
		return err
	}()
	if err != nil {
		log.Fatal(err)
	}
	scheduler.Start()
	if err := scheduler.Jobs()[0].RunNow(); err != nil {
		log.Fatal(err)
	}
	<-sent
	// Output: sent
}

func ExampleNewHolding() {
	client, scheduler := newExample()
	defer closeExample(client, scheduler)
	// begin docs/adapters.md
	held, err := gocronlock.NewHolding(client, time.Second) // more than clocks differ
	// end docs/adapters.md
	if err != nil {
		log.Fatal(err)
	}
	_, err = scheduler.NewJob(gocron.DurationRandomJob(time.Hour, 2*time.Hour), gocron.NewTask(send),
		gocron.WithName("send"), gocron.WithDistributedJobLocker(held))
	if err != nil {
		log.Fatal(err)
	}
	scheduler.Start()
	if err := scheduler.Jobs()[0].RunNow(); err != nil {
		log.Fatal(err)
	}
	<-sent
	// Output: sent
}

func ExampleNewElector() {
	client, _ := newExample()
	ctx, stop := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	scheduler, err := func() (gocron.Scheduler, error) {
		// begin docs/adapters.md
		e, err := election.New(client, "scheduler")
		if err != nil {
			return nil, err
		}
		go func() { // leads until ctx ends
			ran <- e.Run(ctx, func(ctx context.Context, t *election.Term) error { <-ctx.Done(); return nil })
		}()
		elector, err := gocronlock.NewElector(e)
		if err != nil {
			return nil, err
		}
		return gocron.NewScheduler(gocron.WithDistributedElector(elector))
		// end docs/adapters.md
	}()
	if err != nil {
		log.Fatal(err)
	}
	closed := func() {
		stop()
		<-ran
		closeExample(client, scheduler)
	}
	defer closed()
	for leader, err := range must(election.New(client, "scheduler")).Observe(ctx) {
		if err == nil && !leader.Vacant() {
			fmt.Println("this process leads")
			break
		}
	}
	// Output: this process leads
}
