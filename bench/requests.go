package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/dynalock/dynalock/lease"
)

// requests counts what goes over the wire for each operation.
func requests(ctx context.Context, r *rig) (section, error) {
	s := section{
		title:  "Requests per operation",
		method: "HTTP requests to DynamoDB Local, counted below the SDK: the cost of [the cost page](cost.md).",
		table:  [][]string{{"Operation", "Requests"}},
	}
	table, err := r.table(ctx)
	if err != nil {
		return s, err
	}
	a, wire, err := r.client(table, lease.WithTTL(time.Hour)) // no heartbeat comes between
	if err != nil {
		return s, err
	}
	b, other, err := r.client(table, lease.WithTTL(time.Hour))
	if err != nil {
		return s, err
	}
	if err := warmUp(ctx, a); err != nil {
		return s, err
	}
	for _, step := range requestSteps(ctx, a, b) {
		wire.requests.Store(0)
		other.requests.Store(0)
		if err := step.do(); err != nil {
			return s, fmt.Errorf("%s: %w", step.name, err)
		}
		if step.name != "" {
			s.table = append(s.table, []string{step.name, strconv.FormatInt(wire.requests.Load()+other.requests.Load(), 10)})
		}
	}
	return s, closeNow(b)
}

// requestStep is an operation to be counted, or without a name what has to come before another.
type requestStep struct {
	name string
	do   func() error
}

// requestSteps are what two clients do, one after the other. The last closes a.
func requestSteps(ctx context.Context, a, b *lease.Client) []requestStep {
	var l *lease.Lease
	acquire := func(c *lease.Client, key string) func() error {
		return func() (err error) {
			l, err = c.TryAcquire(ctx, key)
			return err
		}
	}
	release := func() error { return l.Release(ctx) }
	try := func() error {
		if _, err := b.TryAcquire(ctx, "key"); !errors.Is(err, lease.ErrHeld) {
			return fmt.Errorf("held, and got %w", err)
		}
		return nil
	}
	hundred := func() error {
		for i := range 100 {
			if _, err := a.TryAcquire(ctx, strconv.Itoa(i)); err != nil {
				return err
			}
		}
		return nil
	}
	shut := func() error {
		ended, end := context.WithCancel(ctx)
		end()
		if err := a.Close(ended); !errors.Is(err, context.Canceled) { // their holders never release
			return fmt.Errorf("close: %w", err)
		}
		return nil
	}
	return []requestStep{
		{"first acquire of a process", acquire(a, "key")},
		{"release", release},
		{"acquire a key that was released", acquire(a, "key")},
		{"acquire a key that was never used", acquire(a, "other")},
		{"", acquire(b, "mine")}, // its session
		{"", release},
		{"try a held key", try},
		{"try it again", try},
		{"acquire 100 keys", hundred},
		{"close, with 102 leases", shut},
	}
}

// warmUp makes the emulator's first requests, which may take longer than an
// attempt, and be repeated.
func warmUp(ctx context.Context, c *lease.Client) error {
	for range 20 {
		if holder, err := c.Inspect(ctx, "key"); err != nil || holder.Held() {
			return fmt.Errorf("warming up: %v, %w", holder, err)
		}
	}
	return nil
}
