// Package model runs lease clients against DynamoDB in memory with the throughput
// of partitions, in the time of a testing/synctest bubble: what a partition that
// is full does to locks and heartbeats, and a zone that dies to those that live.
package model

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/dynamomem"
	"github.com/dynalock/dynalock/kv/dynamokv"
	"github.com/dynalock/dynalock/lease"
)

// latency is from a request to its answer, half of it on each way, give or take a
// fifth.
const latency = 5 * time.Millisecond

// fleet is a set of clients of one table, each as a process of its own would be.
type fleet struct {
	t      *testing.T
	server *dynamomem.Server
	shards int

	mu    sync.Mutex
	count counts
}

// counts are of all members that live.
type counts struct {
	Requests, Throttled int
	// Lost are the sessions that ended by themselves, Heartbeat is the slowest.
	Lost      int
	Heartbeat time.Duration
}

func newFleet(t *testing.T, shards int) *fleet {
	t.Helper()
	server := dynamomem.New()
	server.CreateTable("table", "id", "name")
	server.Limit(dynamomem.OnDemand, clock.System)
	return &fleet{t: t, server: server, shards: shards}
}

func (f *fleet) counts() counts {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count
}

func (f *fleet) note(change func(*counts)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.count)
}

// member is one of a fleet. Its requests hang once die was called.
type member struct {
	fleet  *fleet
	client *lease.Client
	alive  context.Context
	die    context.CancelFunc
}

// join makes a member, which ends with the test.
func (f *fleet) join() *member {
	m := &member{fleet: f}
	m.alive, m.die = context.WithCancel(context.Background())
	wire := f.server.Client()
	wire.Inject(m.send)
	store, err := dynamokv.New(wire, "table", dynamokv.WithShards(f.shards))
	if err != nil {
		f.t.Fatal(err)
	}
	m.client, err = lease.New(store, lease.WithObserver(m.observe), lease.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		m.die()
		ended, end := context.WithCancel(context.Background())
		end()
		_ = m.client.Close(ended) // what it holds is not released, which is its error
	})
	return m
}

// send takes the way to the server and back.
func (m *member) send(ctx context.Context, call dynamomem.Call, apply dynamomem.Apply) (any, error) {
	if m.alive.Err() != nil {
		return dynamomem.Hang(ctx, call, apply)
	}
	half := clock.Spread(clock.System, latency/2, 0.2)
	if clock.Sleep(ctx, clock.System, half) != nil {
		return dynamomem.Lost(ctx.Err())(ctx, call, apply)
	}
	out, err := apply()
	m.fleet.note(func(n *counts) {
		n.Requests++
		if dynamomem.IsThrottled(err) {
			n.Throttled++
		}
	})
	if clock.Sleep(ctx, clock.System, half) != nil {
		return dynamomem.Lost(ctx.Err())(ctx, call, apply)
	}
	return out, err
}

func (m *member) observe(e lease.Event) {
	if m.alive.Err() != nil {
		return
	}
	m.fleet.note(func(n *counts) {
		switch e.Type {
		case lease.EventSessionLost:
			n.Lost++
		case lease.EventHeartbeat:
			n.Heartbeat = max(n.Heartbeat, e.Took)
		}
	})
}

// hold acquires a key, for good.
func (m *member) hold(key string) {
	if _, err := m.client.Acquire(m.alive, key); err != nil {
		m.fleet.t.Error(err)
	}
}

// Plan is what the bench has measured.
type Plan struct {
	Offers []Offer
	Storms []Storm
}

// Results is what was found.
type Results struct {
	Served    []Served
	Recovered []Recovered
}
