package sim_test

import (
	"context"
	"time"

	"github.com/dynalock/dynalock/lease"
)

// permits are keys of which any one will do.
var permits = []string{"permit/0", "permit/1"}

// takeAny gets one of several keys, or tries to: the permits, which are listed, or
// those that others want for themselves.
func takeAny(a *actor, _ string) {
	keys, options := a.w.keys, []lease.AcquireOption(nil)
	if a.rng.IntN(3) > 0 {
		keys, options = permits, append(options, lease.WithListing("permit/", nil))
	}
	acquire := a.node.client.AcquireAny
	if a.rng.IntN(3) == 0 {
		acquire = a.node.client.TryAcquireAny
	}
	ctx, cancel := a.node.ctx, context.CancelFunc(func() {})
	if a.rng.IntN(4) == 0 {
		ctx, cancel = a.node.clock.WithTimeout(ctx, latency(a.rng, 0, 2*a.node.ttl))
	}
	defer cancel()
	for _, key := range keys {
		defer a.w.acquiring(a.node, key)()
	}
	l, err := acquire(a.node.asks(ctx, "AcquireAny", "", len(keys)), keys, options...)
	if err != nil {
		a.w.refused(a.node, keys[0], err)
		return
	}
	g := a.w.granted(a.node, l.Key(), l)
	a.hold(g, latency(a.rng, 0, 500*time.Millisecond))
	a.release(g)
}

// everyPermit: without faults a node gets each permit, and holds them together.
func (w *world) everyPermit() {
	rng := w.rng("permits")
	n := w.start("permits", w.ttls[0], rng)
	n.link.set(func(l *link) { l.clear = true })
	a := &actor{node: n, w: w, rng: rng}
	var all []*grant
	for range permits {
		began := w.elapsed()
		ctx, cancel := n.clock.WithTimeout(n.ctx, 5*time.Minute)
		l, err := n.client.AcquireAny(ctx, permits, lease.WithListing("permit/", nil))
		cancel()
		if took := w.elapsed() - began; err != nil || took > takeover(8*time.Second)+5*time.Second {
			w.fail("I5", "a permit without any fault: %v, after %v", err, took)
			break
		}
		all = append(all, w.granted(n, l.Key(), l))
	}
	for _, g := range all {
		a.release(g)
	}
}
