package model

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

// Storm is a zone that dies at once. For each lease of its sessions one of the
// living waits.
type Storm struct {
	// Shards are those of the store, Dead and Living the sessions, which hold Leases
	// each.
	Shards, Dead, Living, Leases int
}

// Recovered is what became of it.
type Recovered struct {
	Storm
	// Half and All are from the deaths until half the dead's leases were held again,
	// and all.
	Half, All time.Duration
	// Requests and Throttled are of the living in that time, Waiting the requests a
	// second before it.
	Requests, Throttled int
	Waiting             float64
	// Lost are sessions of the living that ended, Heartbeat is the slowest.
	Lost      int
	Heartbeat time.Duration
}

// Run lets the zone die. t is that of a bubble.
func (s Storm) Run(t *testing.T) Recovered {
	t.Helper()
	f := newFleet(t, s.Shards)
	var members []*member
	var starting sync.WaitGroup
	for i := range s.Dead + s.Living {
		m := f.join()
		members = append(members, m)
		starting.Go(func() {
			for j := range s.Leases {
				m.hold(fmt.Sprintf("%d/%d", i, j))
			}
		})
	}
	starting.Wait()
	dead, living := members[:s.Dead], members[s.Dead:]
	var waiting sync.WaitGroup
	var mu sync.Mutex
	var held []time.Time
	for i := range s.Dead * s.Leases {
		waiting.Go(func() {
			living[i%len(living)].hold(fmt.Sprintf("%d/%d", i/s.Leases, i%s.Leases))
			mu.Lock()
			defer mu.Unlock()
			held = append(held, time.Now())
		})
	}
	const observed = 30 * time.Second
	time.Sleep(observed)
	before := f.counts()
	time.Sleep(observed)
	after := f.counts()
	for _, m := range dead {
		m.die()
	}
	died := time.Now()
	waiting.Wait()
	n := f.counts()
	slices.SortFunc(held, time.Time.Compare)
	return Recovered{
		Storm: s, Half: held[len(held)/2].Sub(died), All: held[len(held)-1].Sub(died),
		Requests: n.Requests - after.Requests, Throttled: n.Throttled - after.Throttled,
		Waiting: float64(after.Requests-before.Requests) / observed.Seconds(),
		Lost:    n.Lost, Heartbeat: n.Heartbeat,
	}
}
