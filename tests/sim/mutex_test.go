package sim_test

import (
	"time"

	"github.com/dynalock/dynalock/lease"
)

// holdMutex waits for a key, holds it for a while, at times for longer than the
// TTL, and gives it back.
func holdMutex(a *actor, key string) { a.mutex(key) }

// holdChecked does so with a look at the row every second (WithRowCheck).
func holdChecked(a *actor, key string) { a.mutex(key, lease.WithRowCheck(time.Second)) }

func (a *actor) mutex(key string, options ...lease.AcquireOption) {
	g := a.acquire(a.node.ctx, key, options...)
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
