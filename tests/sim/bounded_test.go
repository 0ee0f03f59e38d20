package sim_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dynalock/dynalock/lease"
)

// holdBounded holds a key for which it says how long it keeps it from others at
// least, and at most, and how long others wait when it has died.
func holdBounded(a *actor, key string) {
	var options []lease.AcquireOption
	least := latency(a.rng, time.Millisecond, time.Second)
	keeps := a.rng.IntN(2) == 0
	if keeps {
		options = append(options, lease.WithMinHold(least))
	}
	if a.rng.IntN(2) == 0 {
		options = append(options, lease.WithLockDelay(latency(a.rng, time.Millisecond, time.Second)))
	}
	if a.rng.IntN(3) == 0 {
		options = append(options, lease.WithMaxHold(time.Second+latency(a.rng, 0, time.Second)))
	}
	acquire := func(ctx context.Context) *grant { return a.acquire(ctx, key, options...) }
	switch a.rng.IntN(4) {
	case 0:
		acquire = func(ctx context.Context) *grant {
			return a.get(key, func() (*lease.Lease, error) { return a.node.client.TryAcquire(ctx, key, options...) })
		}
	case 1:
		acquire = func(ctx context.Context) *grant {
			return a.get(key, func() (*lease.Lease, error) {
				return a.node.client.AcquireAny(a.node.asks(ctx, "AcquireAny of one", "", 1), []string{key}, options...)
			})
		}
	}
	ctx, cancel := a.node.ctx, context.CancelFunc(func() {})
	if a.rng.IntN(4) == 0 {
		ctx, cancel = a.node.clock.WithTimeout(ctx, latency(a.rng, 0, 2*a.node.ttl))
	}
	defer cancel()
	g := acquire(ctx)
	if g == nil {
		return
	}
	a.hold(g, latency(a.rng, 0, time.Second))
	if keeps && a.w.held(g) {
		a.w.keepFor(g, least*100/104)
	}
	a.release(g)
}

// keptKey is a key that is released, and kept from others until then. Its node may
// have been stopped before that was noted, or its operators take it away: then
// nothing is known.
type keptKey struct {
	*grant
	until time.Duration
}

// keepFor notes that a key is about to be released, and kept from others for least
// since it was acquired: by the write of its row, which a waiter that was handed it
// may have heard of later.
func (w *world) keepFor(g *grant, least time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if row := w.rows["lease/"+g.key]; row != nil && g.node.trouble == 0 && !g.node.troubled {
		w.kept[g.key] = &keptKey{g, row.acquired[g.token] + least}
	}
}

// checkKeptLocked checks that a key that is granted was not to be kept from others,
// if whoever said so lives, and is not being closed.
func (w *world) checkKeptLocked(g *grant) {
	k := w.kept[g.key]
	if k == nil || w.elapsed() >= k.until || k.node.closing || w.excused(k.grant) {
		return
	}
	s := w.rows["session/"+k.session]
	if s == nil || s.dead() || s.revoked[fmt.Sprintf("%s@%d", k.key, k.token)] {
		return
	}
	if errors.Is(k.lease.Err(), lease.ErrNotHeld) { // it was not lost before
		w.failLocked("R13", "%s is granted %s, which %s keeps from others for %v more",
			g.node.name, g.key, k.node.name, k.until-w.elapsed())
	}
}
