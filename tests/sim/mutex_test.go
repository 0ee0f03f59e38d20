package sim_test

import "time"

// holdMutex waits for a key, holds it for a while, at times for longer than the
// TTL, and gives it back.
func holdMutex(a *actor, key string) {
	g := a.acquire(a.node.ctx, key)
	if g == nil {
		return
	}
	most := 500 * time.Millisecond
	if a.rng.IntN(5) == 0 {
		most = 2 * a.node.ttl
	}
	a.hold(g, latency(a.rng, 0, most))
	a.release(g)
}
