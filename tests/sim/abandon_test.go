package sim_test

import (
	"time"
)

// abandonAcquire gives up an acquire in the middle, more often than not while a
// write is on the wire.
func abandonAcquire(a *actor, key string) {
	most := 60 * time.Millisecond
	if a.rng.IntN(3) == 0 {
		most = a.node.ttl
	}
	ctx, cancel := a.node.clock.WithTimeout(a.node.ctx, latency(a.rng, 0, most))
	defer cancel()
	if g := a.acquire(ctx, key); g != nil {
		a.release(g)
	}
}
