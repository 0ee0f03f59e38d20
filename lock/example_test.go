package lock_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

// Work that one process at a time may do.
func ExampleMutex_Do() {
	ctx := context.Background()
	client, err := lease.New(memkv.New()) // dynamokv or sqlkv in real life
	if err != nil {
		panic(err)
	}
	defer func() { _ = client.Close(ctx) }()

	report := lock.NewMutex(client, "nightly-report")
	err = report.Do(ctx, func(_ context.Context, l *lease.Lease) error {
		fmt.Println("held:", l.Held())
		return nil
	})
	fmt.Println("error:", err)
	// Output:
	// held: true
	// error: <nil>
}

// A cron job on several machines that has nothing to do where another one is at it.
func ExampleMutex_TryLock() {
	ctx := context.Background()
	store := memkv.New()
	cleanup := func(machine string, work func()) {
		client, err := lease.New(store, lease.WithOwner(machine))
		if err != nil {
			panic(err)
		}
		defer func() { _ = client.Close(ctx) }()

		l, err := lock.NewMutex(client, "cron/cleanup").TryLock(ctx)
		var held *lease.HeldError
		switch {
		case errors.As(err, &held):
			fmt.Printf("%s: %s is at it\n", machine, held.Holder.Owner)
			return
		case err != nil:
			panic(err)
		}
		work()
		fmt.Printf("%s: cleaned, released: %v\n", machine, l.Release(ctx))
	}
	cleanup("one", func() { cleanup("two", func() {}) })
	// Output:
	// two: one is at it
	// one: cleaned, released: <nil>
}

// The same without a branch for the busy case: what another is at is skipped.
func ExampleMutex_TryDo() {
	ctx := context.Background()
	store := memkv.New()
	cleanup := func(machine string, work func()) {
		client, err := lease.New(store, lease.WithOwner(machine))
		if err != nil {
			panic(err)
		}
		defer func() { _ = client.Close(ctx) }()

		err = lock.NewMutex(client, "cron/cleanup").TryDo(ctx, func(context.Context, *lease.Lease) error {
			work()
			return nil
		})
		fmt.Println(machine, "skipped:", errors.Is(err, lease.ErrHeld))
	}
	cleanup("one", func() { cleanup("two", func() {}) })
	// Output:
	// two skipped: true
	// one skipped: false
}

// A transfer between two accounts locks both, or none. Transfers in the other
// direction do not deadlock with it.
func ExampleMulti() {
	ctx := context.Background()
	client, err := lease.New(memkv.New())
	if err != nil {
		panic(err)
	}
	defer func() { _ = client.Close(ctx) }()

	both := lock.NewMulti(client, []string{"account/9", "account/7"})
	err = both.Do(ctx, func(ctx context.Context, l *lock.MultiLease) error {
		fmt.Println("locked:", both.Names(), l.Held())
		_, err := lock.NewMulti(client, []string{"account/7", "account/8"}).TryLock(ctx)
		fmt.Println("another one:", errors.Is(err, lease.ErrHeld))
		return nil
	})
	fmt.Println("error:", err)
	// Output:
	// locked: [account/7 account/9] true
	// another one: true
	// error: <nil>
}

// A job that is shorter than the clocks of its hosts differ. The lock is kept for
// a while after it, so that a host that is late finds it held.
func ExampleMutex_TryDo_minHold() {
	ctx := context.Background()
	store := memkv.New()
	tick := func(machine string) (end func()) {
		client, err := lease.New(store, lease.WithOwner(machine))
		if err != nil {
			panic(err)
		}
		job := lock.NewMutex(client, "job", lease.WithMinHold(200*time.Millisecond))
		err = job.TryDo(ctx, func(context.Context, *lease.Lease) error { return nil })
		fmt.Println(machine, "skipped:", errors.Is(err, lease.ErrHeld))
		return func() { _ = client.Close(ctx) } // waits until the time is over
	}
	defer tick("one")()
	defer tick("two")()
	// Output:
	// one skipped: false
	// two skipped: true
}

// Two of three get in. The resource can check the token of each permit.
func ExampleSemaphore() {
	ctx := context.Background()
	store := memkv.New()
	for _, machine := range []string{"one", "two", "three"} {
		client, err := lease.New(store, lease.WithOwner(machine))
		if err != nil {
			panic(err)
		}
		defer func() { _ = client.Close(ctx) }()

		l, err := lock.NewSemaphore(client, "crawl/example.com", 2).TryAcquire(ctx)
		if err == nil {
			defer func() { _ = l.Release(ctx) }()
		}
		fmt.Println(machine, err == nil, errors.Is(err, lease.ErrHeld))
	}
	// Output:
	// one true false
	// two true false
	// three false true
}

// A site asks for fewer requests at a time. Who has a permit keeps it.
func ExampleSemaphore_Resize() {
	ctx := context.Background()
	client, err := lease.New(memkv.New())
	if err != nil {
		panic(err)
	}
	defer func() { _ = client.Close(ctx) }()

	site := lock.NewSemaphore(client, "crawl/example.com", 2)
	var permits []*lease.Lease
	for range 2 {
		l, err := site.Acquire(ctx)
		if err != nil {
			panic(err)
		}
		permits = append(permits, l)
	}
	fmt.Println("resize:", site.Resize(ctx, 1))
	holders, err := site.Holders(ctx)
	fmt.Println(len(holders), "have permits", err)
	for _, l := range permits {
		fmt.Println("held:", l.Held(), l.Release(ctx))
	}
	for range 2 {
		_, err := site.TryAcquire(ctx)
		fmt.Println("another one:", err == nil)
	}
	// Output:
	// resize: <nil>
	// 2 have permits <nil>
	// held: true <nil>
	// held: true <nil>
	// another one: true
	// another one: false
}

// Work for a scheduled time, which every machine asks for and one does.
func ExampleOnce_Do() {
	ctx := context.Background()
	store := memkv.New()
	scheduled := time.Date(2026, 3, 1, 4, 0, 0, 0, time.UTC)
	for _, machine := range []string{"one", "two", "three"} {
		client, err := lease.New(store, lease.WithOwner(machine))
		if err != nil {
			panic(err)
		}
		defer func() { _ = client.Close(ctx) }()

		invoices := lock.NewOnce(client, "invoices")
		ran, err := invoices.Do(ctx, lock.Slot(scheduled, time.Hour), func(context.Context, *lease.Lease) error {
			fmt.Println(machine, "sends the invoices")
			return nil
		})
		fmt.Println(machine, ran, err)
	}
	// Output:
	// one sends the invoices
	// one true <nil>
	// two false <nil>
	// three false <nil>
}

// A scheduler that locks and unlocks by itself, and keeps a result.
func ExampleOnce_Claim() {
	ctx := context.Background()
	client, err := lease.New(memkv.New())
	if err != nil {
		panic(err)
	}
	defer func() { _ = client.Close(ctx) }()

	invoices := lock.NewOnce(client, "invoices")
	for range 2 {
		run, err := invoices.Claim(ctx, "2026-03")
		var settled *lock.FinishedError
		switch {
		case errors.Is(err, lock.ErrDone) && errors.As(err, &settled):
			fmt.Printf("done before: %s\n", settled.Outcome.Value)
			continue
		case err != nil:
			panic(err)
		}
		// The work, until run.Lease().Context() ends.
		fmt.Println("run", run.Attempt(), run.Finish(ctx, []byte("17 sent"), nil))
	}
	// Output:
	// run 1 <nil>
	// done before: 17 sent
}

// A webhook that is delivered twice charges once, and gives the same answer to both.
func ExampleOnceValue() {
	ctx := context.Background()
	client, err := lease.New(memkv.New())
	if err != nil {
		panic(err)
	}
	defer func() { _ = client.Close(ctx) }()

	type receipt struct{ Number int }
	payments := lock.NewOnce(client, "payments", lock.Wait())
	for number := 1; number <= 2; number++ {
		r, err := lock.OnceValue(ctx, payments, "event-8f3", func(context.Context, *lease.Lease) (receipt, error) {
			fmt.Println("charged")
			return receipt{number}, nil
		})
		fmt.Println("receipt", r.Number, err)
	}
	// Output:
	// charged
	// receipt 1 <nil>
	// receipt 1 <nil>
}

// What became of a batch, and a second try by hand.
func ExampleOnce_Outcome() {
	ctx := context.Background()
	client, err := lease.New(memkv.New())
	if err != nil {
		panic(err)
	}
	defer func() { _ = client.Close(ctx) }()

	batches := lock.NewOnce(client, "batches")
	_, err = batches.Do(ctx, "batch-17",
		func(context.Context, *lease.Lease) error { return errors.New("line 3: no price") })
	fmt.Println(err)
	_, err = batches.Do(ctx, "batch-17", func(context.Context, *lease.Lease) error { return nil })
	fmt.Println("failed before:", errors.Is(err, lock.ErrFailed))

	outcome, err := batches.Outcome(ctx, "batch-17")
	fmt.Println(outcome.State, outcome.Error, err)
	fmt.Println("forget:", batches.Forget(ctx, "batch-17"))
	fmt.Println(batches.Do(ctx, "batch-17", func(context.Context, *lease.Lease) error { return nil }))
	// Output:
	// line 3: no price
	// failed before: true
	// failed line 3: no price <nil>
	// forget: <nil>
	// true <nil>
}

// Different wake-up times of one hour are one slot.
func ExampleSlot() {
	woken := time.Date(2026, 3, 1, 4, 7, 31, 0, time.UTC)
	fmt.Println(lock.Slot(woken, time.Hour))
	fmt.Println(lock.Slot(woken.Add(40*time.Minute), time.Hour))

	// Clocks that show the full hour, a little apart: half a period more puts
	// both on the same side.
	early, late := woken.Truncate(time.Hour).Add(-time.Second), woken.Truncate(time.Hour).Add(time.Second)
	fmt.Println(lock.Slot(early.Add(30*time.Minute), time.Hour) == lock.Slot(late.Add(30*time.Minute), time.Hour))
	// Output:
	// 2026-03-01T04:00:00Z
	// 2026-03-01T04:00:00Z
	// true
}

// Work in steps stops when the lock is lost, and learns why.
func ExampleMutex_Do_loss() {
	ctx := context.Background()
	client, err := lease.New(memkv.New())
	if err != nil {
		panic(err)
	}
	defer func() { _ = client.Close(ctx) }()

	reindex := lock.NewMutex(client, "reindex", lease.WithMaxHold(time.Second)) // so that this one is lost
	err = reindex.Do(ctx, func(ctx context.Context, l *lease.Lease) error {
		for l.Held() { // computed from the clocks; pass ctx to whatever blocks
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond): // a step of the work
			}
		}
		return fmt.Errorf("stopped half way: %w", context.Cause(ctx))
	})
	var lost *lease.LostError
	if errors.As(err, &lost) {
		fmt.Println("lost:", lost.Reason)
	}
	// Output:
	// lost: max-hold
}

// An operator looks who holds a lock, and takes it away from a process that is stuck.
func Example_inspectAndBreak() {
	ctx := context.Background()
	store := memkv.New()
	stuck, err := lease.New(store, lease.WithOwner("stuck"), lease.WithHeartbeat(100*time.Millisecond))
	if err != nil {
		panic(err)
	}
	operator, err := lease.New(store, lease.WithOwner("operator"))
	if err != nil {
		panic(err)
	}
	defer func() { _ = errors.Join(stuck.Close(ctx), operator.Close(ctx)) }()

	l, err := lock.NewMutex(stuck, "nightly-report").Lock(ctx)
	if err != nil {
		panic(err)
	}
	defer func() { _ = l.Release(ctx) }()

	holder, err := operator.Inspect(ctx, "nightly-report")
	if err != nil {
		panic(err)
	}
	fmt.Println("held by", holder.Owner, "- alive:", holder.Member != nil)
	// Without force it would first give the holder the time to stop.
	fmt.Println("break:", operator.Break(ctx, holder, lease.BreakForce()))
	<-l.Context().Done()
	fmt.Println(context.Cause(l.Context()))
	holder, err = operator.Inspect(ctx, "nightly-report")
	fmt.Println("held:", holder.Held(), err)
	// Output:
	// held by stuck - alive: true
	// break: <nil>
	// lease: "nightly-report" lost: revoked
	// held: false <nil>
}
