package sim_test

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/dynalock/dynalock/pool"
)

var partitions = []string{"p0", "p1", "p2", "p3"}

func partitionKey(partition string) string { return "pool/pool/" + partition }

// pooled is what a node's pool and its handlers know of each other.
type pooled struct {
	*pool.Pool
	// These are guarded by w.mu: whether Run is running, the handlers at work,
	// by partition, how many calls there were, and the last one's lease.
	running bool
	busy    map[string]bool
	calls   map[string]int
	grants  map[string]*grant
}

// working is a partition at work, and the context of its handler.
type working struct {
	*pool.Work
	ctx context.Context
}

// Context implements holding.
func (w working) Context() context.Context { return w.ctx }

func (n *node) newPool() error {
	p := &pooled{busy: map[string]bool{}, calls: map[string]int{}, grants: map[string]*grant{}}
	made, err := pool.New(n.client, "pool", n.handle, pool.WithPlanInterval(n.ttl/2), pool.WithDrainTimeout(n.ttl/2),
		pool.WithoutEnd())
	p.Pool, n.pool = made, p
	return err
}

// joinPool is a member of the pool for a while.
func joinPool(a *actor, _ string) {
	if !a.node.pool.begin(a.w) { // another actor runs it
		return
	}
	defer a.w.acquiringAll(a.node)()
	ctx, cancel := a.node.clock.WithTimeout(a.node.ctx, latency(a.rng, 0, 10*a.node.ttl))
	defer cancel()
	if err := a.node.pool.Add(ctx, partitions...); err != nil {
		a.w.record(a.node, "not added", "lease/pool", 0)
	}
	err := a.node.pool.Run(a.node.asks(ctx, "pool.Run", "", 2+2*len(partitions)))
	a.node.clock.await()
	a.w.record(a.node, fmt.Sprintf("pool left, error: %t", err != nil), "lease/pool", 0)
	a.node.pool.end(a.node)
}

func (p *pooled) begin(w *world) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	began := !p.running
	p.running = true
	return began
}

// end checks that all handlers have returned before Run.
func (p *pooled) end(n *node) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	p.running = false
	for partition, busy := range p.busy {
		if busy {
			n.w.failLocked("pool", "Run of %s has returned, the handler of %s has not", n.name, partition)
		}
	}
	for _, g := range p.grants {
		g.ended = true
	}
}

// markPool pauses, resumes or weighs a partition.
func markPool(a *actor, _ string) {
	ctx, cancel := a.node.clock.WithTimeout(a.node.ctx, latency(a.rng, 0, 2*a.node.ttl))
	defer cancel()
	p := partitions[a.rng.IntN(len(partitions))]
	switch a.rng.IntN(3) {
	case 0:
		err := a.node.pool.Pause(ctx, p)
		a.w.record(a.node, fmt.Sprintf("pause, error: %t", err != nil), "lease/"+partitionKey(p), 0)
	case 1:
		_ = a.node.pool.SetWeight(ctx, 1+a.rng.IntN(3), p)
	}
	_ = a.node.pool.Resume(ctx, p)
}

// handle works on a partition: never twice at a time, and not while another's
// lease is believed in (granted checks that).
func (n *node) handle(ctx context.Context, l *pool.Work) error {
	p := l.Name()
	n.w.mu.Lock()
	if n.pool.busy[p] {
		n.w.failLocked("pool", "two handlers of %s work on %s", n.name, p)
	}
	n.pool.busy[p] = true
	n.pool.calls[p]++
	n.w.worked[p] = n.w.elapsed()
	a := &actor{node: n, w: n.w, rng: n.w.rng(fmt.Sprint("handler ", n.name, p, n.pool.calls[p]))}
	g := n.pool.grants[p]
	n.w.mu.Unlock()
	if g == nil || g.token != l.Token() { // else it is called again with the same lease, after a failure
		g = n.w.granted(n, l.Key(), working{l, ctx})
	}
	a.process(ctx, g, l)
	n.clock.await()
	fails := a.rng.IntN(4) == 0
	n.w.mu.Lock()
	n.pool.busy[p], n.pool.grants[p] = false, g
	n.w.mu.Unlock()
	if fails {
		return errJob
	}
	n.w.ending(g)
	return nil
}

// process goes on until it is asked to stop, or has had enough, with a checkpoint now and then.
func (a *actor) process(ctx context.Context, g *grant, l *pool.Work) {
	for range a.rng.IntN(20) {
		t := a.node.clock.NewTimer(latency(a.rng, time.Millisecond, time.Second))
		select {
		case <-t.C():
			a.w.signalled(g)
		case <-ctx.Done():
			t.Stop()
			return
		case <-l.Draining():
			t.Stop()
			if a.rng.IntN(2) == 0 {
				return
			}
			a.pause(latency(a.rng, 0, a.node.ttl))
		}
		if !a.w.held(g) {
			return
		}
		if a.rng.IntN(3) == 0 {
			_ = l.Save(ctx, fmt.Append(nil, g.token, a.rng.IntN(1000)))
		}
	}
}

// everyPartition is worked on when there is a member and nothing is wrong.
func (w *world) everyPartition() {
	nodes := w.alive()
	if len(nodes) == 0 {
		return
	}
	w.mu.Lock()
	w.frozen = true // members do many things in one instant
	w.mu.Unlock()
	ctx, stop := context.WithTimeout(context.Background(), 10*time.Minute)
	defer stop()
	done := make(chan struct{}, len(nodes))
	for _, n := range nodes {
		ends := n.w.acquiringAll(n)
		go func() {
			_ = n.pool.Run(ctx)
			ends()
			done <- struct{}{}
		}()
	}
	began := w.elapsed()
	if err := nodes[0].pool.Add(ctx, partitions...); err == nil {
		err = nodes[0].pool.Resume(ctx, partitions...)
		if err != nil {
			w.fail("I5", "the partitions cannot be resumed: %v", err)
		}
	} else {
		w.fail("I5", "the partitions cannot be added: %v", err)
	}
	bound := 2*takeover(8*time.Second) + 10*time.Second
	idle := func(p string) bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.worked[p] <= began
	}
	for slices.ContainsFunc(partitions, idle) && w.elapsed()-began < bound {
		w.sleep(ctx, 100*time.Millisecond)
	}
	for _, p := range partitions {
		if idle(p) {
			w.fail("I5", "nobody has worked on %s for %v, without any fault", p, bound)
		}
	}
	stop()
	for range nodes {
		<-done
	}
}

// acquiringAll counts a member of the pool as one who acquires any of its partitions.
func (w *world) acquiringAll(n *node) (done func()) {
	var ends []func()
	for _, p := range partitions {
		ends = append(ends, w.acquiring(n, partitionKey(p)))
	}
	return func() {
		for _, end := range ends {
			end()
		}
	}
}
