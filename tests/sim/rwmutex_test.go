package sim_test

import (
	"context"
	"strings"
	"time"
)

// rwName is the lock of readers and writers, rwKeys what its keys begin with.
const (
	rwName = "m"
	rwKeys = "rw/" + rwName + "/"
)

// shared is a grant of that lock, to a reader or a writer.
type shared struct {
	*grant
	writing bool
	epoch   uint64
	// served: the resource has served it. disturbed: and somebody since who
	// must not come between.
	served, disturbed bool
	release           func(context.Context) error
}

// bars are those of the resource.
type bars struct{ writers, readers uint64 }

// acquiringShared counts a call for the lock that is in flight. Which row a
// reader takes is not known before.
func (w *world) acquiringShared(n *node, writing bool) (done func()) {
	if writing {
		return w.acquiring(n, rwKeys+"w")
	}
	return w.acquiring(n, rwKeys+"r/")
}

// grantedShared checks a grant of the lock (I14), and watches over it from now
// on.
func (w *world) grantedShared(s *shared) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, o := range w.shared {
		if (s.writing || o.writing) && w.believed(s.grant) && w.believed(o.grant) {
			w.failLocked("I14", "%s is granted %s (epoch %d) while %s believes in %s (epoch %d)",
				s.node.name, s.key, s.epoch, o.node.name, o.key, o.epoch)
		}
	}
	w.shared = append(w.shared, s)
}

// useShared is the resource with two bars. It refuses nobody who holds the
// lock, and serves nobody between two acts of one whom that excludes (I14).
func (w *world) useShared(s *shared) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case s.node.gone:
		return false
	case s.epoch < w.bars.writers, s.writing && s.epoch <= w.bars.readers:
		w.recordLocked(s.node, "fenced off", s.key, s.epoch)
		if w.believed(s.grant) {
			w.failLocked("I14", "%s holds %s with epoch %d, but the resource is at %d for writers and %d for readers",
				s.node.name, s.key, s.epoch, w.bars.writers, w.bars.readers)
		}
		return false
	case s.served && s.disturbed && !w.excused(s.grant):
		w.failLocked("I14", "the resource serves %s (epoch %d of %s) on both sides of somebody else",
			s.key, s.epoch, s.node.name)
	}
	s.served = true
	for _, o := range w.shared {
		o.disturbed = o.disturbed || o != s && o.served && (s.writing || o.writing)
	}
	if s.writing {
		w.bars.writers = max(w.bars.writers, s.epoch)
	} else {
		w.bars.readers = max(w.bars.readers, s.epoch)
	}
	return true
}

// endingShared notes that a holder stops.
func (w *world) endingShared(s *shared) {
	w.mu.Lock()
	defer w.mu.Unlock()
	kept := w.shared[:0]
	for _, o := range w.shared {
		if o != s {
			kept = append(kept, o)
		}
	}
	w.shared = kept
}

// getShared acquires the lock, or tries to; nil if it is not to be had.
func (a *actor) getShared(ctx context.Context, writing, waits bool) *shared {
	defer a.w.acquiringShared(a.node, writing)()
	m := a.node.rwmutex
	if !writing {
		get := m.TryRLock
		if waits {
			get = m.RLock
		}
		l, err := get(a.node.asks(ctx, "RLock", "", 2))
		if err != nil {
			a.w.refused(a.node, rwKeys+"r/", err)
			return nil
		}
		s := &shared{grant: a.w.granted(a.node, l.Lease().Key(), l.Lease()), epoch: l.Epoch(), release: l.Release}
		a.w.grantedShared(s)
		return s
	}
	get := m.TryLock
	if waits {
		get = m.Lock
	}
	l, err := get(a.node.asks(ctx, "Lock", "", 2))
	if err != nil {
		a.w.refused(a.node, rwKeys+"w", err)
		return nil
	}
	s := &shared{grant: a.w.granted(a.node, l.Key(), l), writing: true, epoch: l.Token(), release: l.Release}
	a.w.grantedShared(s)
	return s
}

// share reads or writes. Between its look at the lock and the act it takes its
// time, as a process does that is paused there.
func share(a *actor, _ string) {
	ctx, cancel := a.node.ctx, context.CancelFunc(func() {})
	if a.rng.IntN(4) == 0 {
		ctx, cancel = a.node.clock.WithTimeout(ctx, latency(a.rng, 0, 2*a.node.ttl))
	}
	defer cancel()
	s := a.getShared(ctx, a.rng.IntN(3) == 0, a.rng.IntN(3) > 0)
	if s == nil {
		return
	}
	for range 1 + a.rng.IntN(4) {
		if !a.w.held(s.grant) {
			break
		}
		a.pause(latency(a.rng, 0, 50*time.Millisecond))
		if !a.w.useShared(s) {
			break
		}
		a.pause(latency(a.rng, 0, 300*time.Millisecond))
	}
	a.endShared(s)
}

func (a *actor) endShared(s *shared) {
	a.node.clock.await()
	a.w.endingShared(s)
	a.releaseBy(s.grant, s.release)
}

// everyoneShares: without faults every node reads, and writes.
func (w *world) everyoneShares() {
	rng := w.rng("shares")
	n := w.start("shares", w.ttls[0], rng)
	n.link.set(func(l *link) { l.clear = true })
	a := &actor{node: n, w: w, rng: rng}
	for _, writing := range []bool{false, true, false} {
		began := w.elapsed()
		bound := takeover(8*time.Second) + 5*time.Second + w.absent("rw/m/w")
		ctx, cancel := n.clock.WithTimeout(n.ctx, 5*time.Minute)
		s := a.getShared(ctx, writing, true)
		cancel()
		if took := w.elapsed() - began; s == nil || took > bound {
			w.fail("I5", "the lock of readers and writers without any fault: granted %t, after %v", s != nil, took)
			return
		}
		if !w.useShared(s) {
			w.fail("I14", "the resource refuses %s without any fault", s.key)
		}
		a.endShared(s)
	}
}

// sharedAlias names a reader's row without the random id of its client.
func sharedAlias(row string) string {
	before, after, found := strings.Cut(row, rwKeys+"r/")
	if !found {
		return row
	}
	return before + rwKeys + "r/?" + after[strings.LastIndex(after, "/")+1:]
}
