package sim_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/dynalock/dynalock/election"
	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/dynamokv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

// node is one life of one process: a lease client over its own driver, network
// and clocks, and the actors that use it.
type node struct {
	w      *world
	name   string
	ttl    time.Duration
	clock  *machine
	link   *link
	client *lease.Client
	// election, pool and rwmutex are the node's part in those of which there is one each.
	election *election.Election
	rwmutex  *lock.RWMutex
	pool     *pooled
	ctx      context.Context // of the actors
	cancel   context.CancelFunc
	actors   sync.WaitGroup

	// These are guarded by w.mu. closing: Close waits for its holders; closed:
	// nothing may run any more; gone: it has crashed.
	closing, closed, gone bool
	sessions              int // that it has made
	freed                 int // leases that it has given back
	// troubled: it is stopped, or its network is; trouble is the longest time that this took.
	troubled bool
	trouble  time.Duration
	// met: the store has answered its client; refused is when it was first refused.
	met     bool
	refused time.Duration
	// memberships are the groups that it has joined.
	memberships map[string]*membership
	// unasked is what the client asks of the store for no call.
	unasked *asking
}

// start makes a node, without actors.
func (w *world) start(name string, ttl time.Duration, rng *rand.Rand) *node {
	rate := []float64{0.97, 1.03, 0.97 + 0.06*rng.Float64()}[rng.IntN(3)]
	offset := latency(rng, -w.weather.offset, w.weather.offset)
	n := &node{w: w, name: name, ttl: ttl, clock: w.newMachine(w.rng("machine "+name), rate, offset)}
	n.link = &link{node: n, wire: w.server.Client(), counts: map[string]uint64{}}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.unasked = n.newAsking("nobody", "", 10)
	store, err := dynamokv.New(n.link, "table", dynamokv.WithClock(n.clock), dynamokv.WithShards(w.shards()))
	if err == nil {
		n.client, err = lease.New(kv.Instrument(store, n.askStore), lease.WithTTL(ttl), lease.WithOwner(name),
			lease.WithClock(n.clock), turns(w.rng("turns "+name)))
	}
	if err == nil {
		n.election, err = election.New(n.client, "e", election.WithClock(n.clock))
	}
	n.rwmutex = lock.NewRWMutex(n.client, rwName)
	if err == nil {
		err = n.newPool()
	}
	if err != nil {
		panic(err) // the options are wrong
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nodes = append(w.nodes, n)
	w.recordLocked(n, "start", "", uint64(ttl))
	return n
}

// employ gives a node its actors.
func (n *node) employ(rng *rand.Rand) {
	for i := range 1 + rng.IntN(3) {
		a := &actor{node: n, w: n.w, rng: n.w.rng(fmt.Sprint("actor ", n.name, " ", i))}
		n.actors.Go(a.work)
	}
}

// operate gives a node nothing to do but to sweep what others have left.
func (n *node) operate() {
	a := &actor{node: n, w: n.w, rng: n.w.rng("operator " + n.name)}
	n.actors.Go(func() {
		for n.ctx.Err() == nil {
			sweepLeftovers(a, a.w.keys[a.rng.IntN(len(a.w.keys))])
			a.pause(latency(a.rng, time.Millisecond, time.Second))
		}
	})
}

// crash stops a node for ever. What it has on the wire may still land.
func (n *node) crash() {
	n.w.mu.Lock()
	n.gone = true
	n.w.recordLocked(n, "CRASH", "", 0)
	n.w.mu.Unlock()
	n.clock.stop(true)
}

// close ends a node in order, if it can within its patience: its actors stop first, or find out.
func (n *node) close(first bool, patience time.Duration) {
	n.w.record(n, "close", "", 0)
	if first {
		n.cancel()
		n.wait()
	}
	ctx, cancel := n.clock.WithTimeout(context.Background(), patience)
	n.w.mu.Lock()
	n.closing = true
	n.w.mu.Unlock()
	err := n.client.Close(ctx)
	cancel()
	n.cancel()
	n.wait()
	n.clock.await() // its last goroutines may have been stopped with it
	if err != nil {
		n.w.sleep(context.Background(), 10*time.Millisecond) // only on success has everything ended at once
	}
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	if n.gone {
		return
	}
	n.w.recordLocked(n, fmt.Sprintf("closed, error: %t", err != nil), "", 0)
	n.closed = true
	if timers := n.clock.active(); timers != 0 {
		n.w.failLocked("I10", "%s is closed (%v) and has %d timers", n.name, err, timers)
	}
	if err != nil {
		return
	}
	for name, row := range n.w.rows {
		if row.owner == n && row.live && !row.foreign && !row.renewed.IsZero() {
			n.w.failLocked("I10", "%s is closed, but %s lives", n.name, n.w.aliasLocked(name))
		}
	}
}

// wait waits for the actors.
func (n *node) wait() {
	done := make(chan struct{})
	go func() {
		n.actors.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Minute):
		n.w.fail("I5", "the actors of %s do not end", n.name)
		<-done
	}
}

// bury lets the goroutines of a crashed node run out, without a network.
func (n *node) bury() {
	n.link.set(func(l *link) { l.gone = true })
	n.cancel()
	n.clock.resume()
	n.close(false, 30*time.Second)
}

// disturb does what the weather says to a node until ctx ends or the node's
// time has come. It reports whether that is so.
func (n *node) disturb(ctx context.Context, rng *rand.Rand) (over bool) {
	y := &n.w.weather
	kinds := []struct {
		mean time.Duration
		act  func()
	}{
		{y.endings, func() { over = true }},
		{y.freezes, func() { n.freeze(ctx, rng) }},
		{y.partitions, func() { n.partition(ctx, rng) }},
		{y.outages, func() {
			n.suffer(ctx, rng, "outage", func(l *link) { l.dark = true }, func(l *link) { l.dark = false })
		}},
		{y.steps, func() { n.step(rng) }},
		{n.w.trouble.refusals, func() { n.refuse(ctx, rng) }},
		{n.w.trouble.slowErrors, func() { n.failSlowly(ctx, rng) }},
		{n.w.trouble.wrongClocks, func() { n.mistime(ctx, rng) }},
	}
	for !over {
		soonest, next := time.Hour, -1
		for i, k := range kinds {
			if k.mean == 0 {
				continue
			}
			if d := time.Duration(rng.ExpFloat64() * float64(k.mean)); d < soonest {
				soonest, next = d, i
			}
		}
		if !n.w.sleep(ctx, soonest) || next < 0 {
			return false
		}
		kinds[next].act()
	}
	return true
}

// troubles notes that the node or its network is, or is not, out of order.
func (n *node) troubles(begin bool, lasted time.Duration, what string) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	n.troubled = begin
	n.trouble = max(n.trouble, lasted)
	n.w.recordLocked(n, what, "", uint64(lasted))
}

func (n *node) freeze(ctx context.Context, rng *rand.Rand) {
	d := latency(rng, 10*time.Millisecond, 3*n.ttl)
	n.troubles(true, d, "freeze")
	n.clock.stop(n.w.weather.stopMonotonic)
	n.w.sleep(ctx, d)
	n.troubles(false, d, "thaw")
	n.clock.resume()
}

func (n *node) partition(ctx context.Context, rng *rand.Rand) {
	ways := 1 + rng.IntN(3)
	n.suffer(ctx, rng, fmt.Sprint("partition ", ways), func(l *link) { l.outward, l.inward = ways&1 != 0, ways&2 != 0 },
		func(l *link) { l.outward, l.inward = false, false })
}

func (n *node) suffer(ctx context.Context, rng *rand.Rand, what string, begin, end func(*link)) {
	d := latency(rng, 100*time.Millisecond, 2*n.ttl)
	n.troubles(true, d, what)
	n.link.set(begin)
	n.w.sleep(ctx, d)
	n.link.set(end)
	n.troubles(false, d, what+" over")
}

// step moves the wall clock: not backward where the monotonic clock may have stopped.
func (n *node) step(rng *rand.Rand) {
	d := latency(rng, -3*time.Second, 3*time.Second)
	if n.w.weather.stopMonotonic && d < 0 {
		d = -d
	}
	n.w.record(n, "step", "", uint64(d))
	n.clock.step(d)
}

var _ clock.Clock = (*machine)(nil)
