package sim_test

import (
	"time"

	"github.com/dynalock/dynalock/lease"
)

// tryMutex asks for a key now, and holds it for a while if it is free.
func tryMutex(a *actor, key string) {
	g := a.get(key, func() (*lease.Lease, error) { return a.node.client.TryAcquire(a.node.ctx, key) })
	if g == nil {
		return
	}
	a.hold(g, latency(a.rng, 0, 300*time.Millisecond))
	a.release(g)
}
