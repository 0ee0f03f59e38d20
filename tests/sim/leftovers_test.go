package sim_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// sweepLeftovers removes what crashed nodes have left of some keys, while others
// take the same keys over. That it spares whoever lives is what I3 and I4 say of
// every write.
func sweepLeftovers(a *actor, key string) {
	prefix := ""
	if a.rng.IntN(2) == 0 {
		prefix = key
	}
	ctx, cancel := a.node.clock.WithTimeout(a.node.ctx, latency(a.rng, a.node.ttl, 3*a.node.ttl))
	defer cancel()
	swept, err := a.node.client.Sweep(ctx, prefix)
	if errors.Is(err, kv.ErrFormat) || errors.Is(err, lease.ErrInvalid) || swept.Unreadable > 0 {
		a.w.fail("R18", "%s: sweeping %q: %+v, %v", a.node.name, prefix, swept, err)
	}
	for range swept.Keys {
		a.w.record(a.node, "leftover freed", prefix, 0)
	}
}

// leftoversSwept: without other faults an operator's Sweep leaves nothing of a
// process that has crashed with many keys, while somebody takes some of them
// over, and nothing that lives is lost. What the operator deletes is slow, so
// that others are faster.
func (w *world) leftoversSwept() {
	const keys = 10
	rng := w.rng("leftovers")
	ttl := w.ttls[len(w.ttls)-1]
	nodes := map[string]*actor{}
	for _, name := range []string{"crashes", "lives", "operator", "taker"} {
		n := w.start(name, ttl, rng)
		n.link.set(func(l *link) { l.clear = true })
		nodes[name] = &actor{node: n, w: w, rng: rng}
	}
	var live []*grant
	for i := range keys {
		g := nodes["lives"].acquire(nodes["lives"].node.ctx, fmt.Sprint("leftover/live", i))
		if g == nil || nodes["crashes"].acquire(nodes["crashes"].node.ctx, fmt.Sprint("leftover/dead", i)) == nil {
			w.fail("I5", "a free key is not granted")
			return
		}
		live = append(live, g)
	}
	w.sleep(context.Background(), latency(rng, 0, ttl))
	nodes["crashes"].node.crash()
	nodes["operator"].node.link.set(func(l *link) { l.slowDeletes = 200 * time.Millisecond })
	var taking sync.WaitGroup
	taken := make([]*grant, keys/2)
	for i := range taken {
		taking.Go(func() { taken[i] = nodes["taker"].acquire(nodes["taker"].node.ctx, fmt.Sprint("leftover/dead", i)) })
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	swept, err := nodes["operator"].node.client.Sweep(ctx, "leftover/")
	taking.Wait()
	if err != nil {
		w.fail("I5", "sweeping without any fault: %+v, %v", swept, err)
	}
	for _, g := range append(live, taken...) {
		if g == nil || !w.held(g) {
			w.fail("I4", "a Sweep has cost somebody a lease: %+v", g)
			return
		}
		nodes[g.node.name].release(g)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, row := range w.rows {
		s := w.rows["session/"+row.session]
		if row.live && (row.owner == nodes["crashes"].node || s != nil && s.owner == nodes["crashes"].node) {
			w.failLocked("sweep", "%s is left of a process that has crashed, after %+v", w.aliasLocked(name), swept)
		}
	}
}
