package sim_test

import "time"

// writeFenced writes to a resource that checks tokens. Between its look at the lease and the
// write it takes its time, as a process does that is paused there.
func writeFenced(a *actor, key string) {
	g := a.acquire(a.node.ctx, key)
	if g == nil {
		return
	}
	for range 1 + a.rng.IntN(4) {
		if !a.w.held(g) {
			break
		}
		a.pause(latency(a.rng, 0, 50*time.Millisecond))
		if !a.w.use(g) {
			break
		}
		a.pause(latency(a.rng, 0, 300*time.Millisecond))
	}
	a.release(g)
}
