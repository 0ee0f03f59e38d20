package sim_test

import (
	"errors"

	"github.com/dynalock/dynalock/lease"
)

// breakHolder takes a key away from whoever holds it, with as much patience as it feels like.
func breakHolder(a *actor, key string) {
	g := a.get(key, func() (*lease.Lease, error) { return a.node.client.TryAcquire(a.node.ctx, key) })
	if g != nil {
		a.release(g)
		return
	}
	var held *lease.HeldError
	if !errors.As(a.err, &held) {
		return
	}
	ctx, cancel := a.node.clock.WithTimeout(a.node.ctx, latency(a.rng, 0, 3*a.node.ttl))
	defer cancel()
	a.w.record(a.node, "break", key, held.Holder.Token)
	if err := a.node.client.Break(ctx, &held.Holder); err == nil {
		a.w.broken(a.node, key, held.Holder.Token)
	}
}

// broken: an acquisition whose Break has succeeded is not believed in.
func (w *world) broken(n *node, key string, token uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.recordLocked(n, "broken", key, token)
	for _, g := range w.grants[key] {
		if g.token == token && !n.gone && w.believed(g) {
			w.failLocked("I3", "%s has broken %s of %s (token %d), which believes in it", n.name, key, g.node.name, token)
		}
	}
}
