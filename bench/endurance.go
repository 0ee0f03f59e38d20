package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/dynalock/dynalock/lease"
)

// failover is how long a key is without a holder that works, after its holder's process died.
func failover(ctx context.Context, r *rig) (section, error) {
	const ttl = 3 * time.Second
	s := section{
		title: "Failover after a crash",
		method: "A holder is cut off for good at a random moment between its heartbeats, as a crash does; from then to the grant to a client that was\n" +
			"waiting, in TTLs of 3 s, on DynamoDB Local. The bound is (1 + 1/16 + 1/3)·1.03 TTL, a poll and the requests: 1.77 TTL here, since a poll of a\n" +
			"second is a third of this TTL; at the default TTL of 15 s it is 1.51.",
		table: [][]string{{"Crashes", "Least", "Median", "Most"}},
	}
	n := pick(r, 30, 2)
	table, err := r.table(ctx)
	if err != nil {
		return s, err
	}
	took, errs := make([]float64, n), make([]error, n)
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() {
			took[i], errs[i] = r.crash(ctx, table, strconv.Itoa(i), ttl, time.Duration(i)*time.Second/time.Duration(n))
		})
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		return s, err
	}
	low, middle, high := quantile(took, 0), quantile(took, 0.5), quantile(took, 1)
	s.table = append(s.table, []string{strconv.Itoa(n), fmt.Sprintf("%.2f TTL", low), fmt.Sprintf("%.2f TTL", middle),
		fmt.Sprintf("%.2f TTL", high)})
	s.plots = []plot{{
		file: "failover.svg", title: "Failover after a crash, in TTLs: median, least to most", line: 1.77, meaning: "bound",
		bars: []bar{{"crash of the holder", middle, low, high, fmt.Sprintf("%.2f", middle)}},
	}}
	return s, nil
}

// crash returns how many TTLs after its holder's crash a key was granted to a
// waiter. The crash comes phase after a heartbeat.
func (r *rig) crash(ctx context.Context, table, key string, ttl, phase time.Duration) (float64, error) {
	victim, wire, err := r.client(table, lease.WithTTL(ttl))
	if err != nil {
		return 0, err
	}
	waiter, _, err := r.client(table, lease.WithTTL(ttl))
	if err != nil {
		return 0, err
	}
	if _, err := victim.TryAcquire(ctx, key); err != nil {
		return 0, err
	}
	granted := make(chan error, 1)
	var at time.Time
	var l *lease.Lease
	go func() {
		var err error
		l, err = waiter.Acquire(ctx, key)
		at = time.Now()
		granted <- err
	}()
	time.Sleep(ttl + phase)
	wire.cut.Store(true)
	died := time.Now()
	if err := <-granted; err != nil {
		return 0, err
	}
	if !l.TakenOver() {
		return 0, fmt.Errorf("key %s was not taken over", key)
	}
	if err := errors.Join(l.Release(ctx), closeNow(waiter)); err != nil {
		return 0, err
	}
	wire.cut.Store(false)
	ended, end := context.WithCancel(ctx)
	end()
	_ = victim.Close(ended) // its lease was never released, which is its error
	return at.Sub(died).Seconds() / ttl.Seconds(), nil
}

// manyLeases holds many leases while every write takes 50 ms more.
func manyLeases(ctx context.Context, r *rig) (section, error) {
	n, lasts := pick(r, 10_000, 20), pick(r, 2*time.Minute, 6*time.Second)
	s := section{
		title:  "Ten thousand leases on a slow network",
		method: fmt.Sprintf("One process holds them for %v with 50 ms added to every write, on DynamoDB Local, with the default TTL of 15 s.", lasts),
		table:  [][]string{{"Leases", "Lost", "Writes per minute while held"}},
	}
	table, err := r.table(ctx)
	if err != nil {
		return s, err
	}
	client, wire, err := r.client(table)
	if err != nil {
		return s, err
	}
	leases, errs := make([]*lease.Lease, n), make([]error, n)
	var group sync.WaitGroup
	for worker := range 20 {
		group.Go(func() {
			for i := worker; i < n; i += 20 {
				leases[i], errs[i] = client.TryAcquire(ctx, strconv.Itoa(i))
			}
		})
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		return s, err
	}
	wire.delay.Store(int64(50 * time.Millisecond))
	wire.puts.Store(0)
	time.Sleep(lasts)
	perMinute := float64(wire.puts.Load()) / lasts.Minutes()
	lost := 0
	for _, l := range leases {
		if !l.Held() {
			lost++
		}
	}
	s.table = append(s.table, []string{strconv.Itoa(n), strconv.Itoa(lost), fmt.Sprintf("%.1f", perMinute)})
	ended, end := context.WithCancel(ctx)
	end()
	if err := client.Close(ended); !errors.Is(err, context.Canceled) { // the leases are not released one by one
		return s, fmt.Errorf("close: %w", err)
	}
	return s, nil
}
