package model

import (
	"context"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/dynamomem"
	"github.com/dynalock/dynalock/lease"
)

// Offer is a load of lock cycles: each tries to take a key of its own, and
// releases it.
type Offer struct {
	// Shards and Processes are how many there are, Rate the cycles a second that all
	// processes begin together, whatever became of the ones before.
	Shards, Processes, Rate int
	// Lasts is for how long. Nothing counts in the first quarter.
	Lasts time.Duration
}

// Served is what became of it.
type Served struct {
	Offer
	// PerSecond are the cycles that ended well, Fraction what that is of those that
	// the shards have units for: a cycle is two writes.
	PerSecond, Fraction float64
	// P50 and P99 are of the cycles that ended well, Refused the part that did not.
	P50, P99 time.Duration
	Refused  float64
	// Lost are the sessions that ended, Heartbeat is the slowest.
	Lost      int
	Heartbeat time.Duration
	// Attempts are the requests for each cycle that ended well.
	Attempts float64
}

// Run offers the load. t is that of a bubble.
func (o Offer) Run(t *testing.T) Served {
	t.Helper()
	f := newFleet(t, o.Shards)
	var members []*member
	for i := range o.Processes {
		m := f.join()
		m.hold("kept-" + strconv.Itoa(i))
		members = append(members, m)
	}
	warm, began := o.Lasts/4, time.Now()
	cycles := cycles{from: began.Add(warm), to: began.Add(o.Lasts)}
	var all sync.WaitGroup
	for _, m := range members {
		all.Go(func() {
			pause := time.Duration(o.Processes) * time.Second / time.Duration(o.Rate)
			for time.Since(began) < o.Lasts {
				time.Sleep(clock.Spread(clock.System, pause, 1))
				all.Go(func() { cycles.one(t.Context(), m.client) })
			}
		})
	}
	time.Sleep(warm)
	before := f.counts()
	time.Sleep(o.Lasts - warm)
	after := f.counts()
	all.Wait()
	s := Served{Offer: o, Lost: after.Lost, Heartbeat: after.Heartbeat}
	if n := len(cycles.took); n > 0 {
		slices.Sort(cycles.took)
		s.P50, s.P99 = cycles.took[n/2], cycles.took[n*99/100]
		s.PerSecond = float64(n) / (o.Lasts - warm).Seconds()
		s.Fraction = s.PerSecond * 2 / dynamomem.OnDemand.Writes / float64(o.Shards)
		s.Attempts = float64(after.Requests-before.Requests) / float64(n)
		s.Refused = float64(cycles.refused) / float64(n+cycles.refused)
	}
	return s
}

// cycles counts how those cycles ended that end in a span of time.
type cycles struct {
	from, to time.Time

	mu      sync.Mutex
	took    []time.Duration
	refused int
}

func (n *cycles) one(ctx context.Context, c *lease.Client) {
	began := time.Now()
	l, err := c.TryAcquire(ctx, "key-"+strconv.Itoa(rand.IntN(1_000_000)))
	if err == nil {
		err = l.Release(ctx)
	}
	now := time.Now()
	if now.Before(n.from) || now.After(n.to) {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil {
		n.refused++
		return
	}
	n.took = append(n.took, now.Sub(began))
}
