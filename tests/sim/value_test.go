package sim_test

import (
	"context"
	"fmt"
	"time"

	"github.com/dynalock/dynalock/lease"
)

// keepValue works on a key that keeps its value: it goes on from the last
// holder's checkpoint, and leaves its own.
func keepValue(a *actor, _ string) {
	const key = "kept"
	g := a.acquire(a.node.ctx, key, lease.KeepValue())
	if g == nil {
		return
	}
	checkpoint := func() []byte { return fmt.Append(nil, g.token, a.rng.IntN(1000)) }
	for range a.rng.IntN(4) {
		if !a.w.held(g) {
			break
		}
		ctx, cancel := a.node.clock.WithTimeout(a.node.ctx, latency(a.rng, 0, a.node.ttl))
		_ = g.lease.(*lease.Lease).Update(ctx, checkpoint()) // of which the server's observer knows more than its caller
		cancel()
		a.pause(latency(a.rng, 0, 200*time.Millisecond))
	}
	if a.rng.IntN(2) == 0 {
		a.release(g)
		return
	}
	last := checkpoint()
	a.releaseBy(g, func(ctx context.Context) error { return g.lease.(*lease.Lease).ReleaseWith(ctx, last) })
}
