package sim_test

import (
	"errors"

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
