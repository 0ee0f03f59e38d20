package sim_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// simulate runs a seed: a part with faults; one in which nobody wants anything,
// so that only the library itself can clear away what is left; one in which
// everybody wants everything; a crash without other faults; and the end.
func simulate(t *testing.T, seed uint64) *world {
	var w *world
	synctest.Test(t, func(*testing.T) {
		w = newWorld(seed)
		watch, stop := context.WithCancel(context.Background())
		go func() {
			for w.sleep(watch, 250*time.Millisecond) {
				w.orphans()
			}
		}()
		w.storm()
		for _, part := range []func(){
			w.settle, w.everyoneAsks, w.everyoneObserves, w.lostAnswers, w.cleanCrash, w.everyPartition, w.everyPermit,
			w.everyoneShares, w.rowsDeleted, w.leftoversSwept,
		} {
			if !w.failed() {
				part()
			}
		}
		stop()
		w.end()
		w.lasted = w.elapsed()
	})
	return w
}

func (w *world) failed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.failures) > 0
}

// storm is the part with faults.
func (w *world) storm() {
	ctx, stop := context.WithCancel(context.Background())
	var slots sync.WaitGroup
	for slot, ttl := range w.ttls {
		slots.Go(func() { w.lives(ctx, slot, ttl) })
	}
	var others sync.WaitGroup
	if w.weather.sweeps {
		others.Go(func() { w.sweep(ctx) })
	}
	if w.trouble.deletions > 0 {
		others.Go(func() { w.deletions(ctx) })
	}
	if w.trouble.operator {
		slots.Go(func() { w.lives(ctx, len(w.ttls), w.ttls[0]) })
	}
	for w.elapsed() < 2*time.Minute && !w.spent() {
		w.sleep(ctx, 100*time.Millisecond)
	}
	stop()
	slots.Wait()
	others.Wait()
}

// lives is one process after another on one machine, until ctx ends.
func (w *world) lives(ctx context.Context, slot int, ttl time.Duration) {
	rng := w.rng(fmt.Sprint("slot ", slot))
	for life := 0; w.sleep(ctx, latency(rng, time.Millisecond, time.Second)); life++ {
		n := w.start(fmt.Sprintf("n%d.%d", slot, life), ttl, rng)
		if slot < len(w.ttls) {
			n.employ(rng)
		} else {
			n.operate()
		}
		if !n.disturb(ctx, rng) {
			return
		}
		if rng.Float64() < w.weather.crash {
			n.crash()
		} else {
			n.close(rng.IntN(2) == 0, []time.Duration{latency(rng, 0, 2*ttl), 30 * time.Second}[rng.IntN(2)])
		}
	}
}

// alive are the nodes that have neither crashed nor been closed.
func (w *world) alive() []*node {
	w.mu.Lock()
	defer w.mu.Unlock()
	var alive []*node
	for _, n := range w.nodes {
		if !n.gone && !n.closed {
			alive = append(alive, n)
		}
	}
	return alive
}

// settle ends the actors and all faults, and waits until the nodes have given
// back what nobody holds.
func (w *world) settle() {
	var all sync.WaitGroup
	for _, n := range w.alive() {
		all.Go(func() {
			n.link.set(func(l *link) { l.clear = true })
			n.cancel()
			n.wait()
		})
	}
	all.Wait()
	w.record(nil, "calm", "", 0)
	deadline := w.elapsed() + 2*time.Minute
	for calm := w.elapsed() + 15*time.Second; w.elapsed() < calm || w.leftovers() > 0 && w.elapsed() < deadline; {
		w.sleep(context.Background(), time.Second)
	}
	if n := w.leftovers(); n > 0 {
		w.fail("I10", "%d rows of live sessions are left although nobody holds anything", n)
	}
}

// leftovers counts the lease rows that name a session of a node that is alive.
func (w *world) leftovers() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, row := range w.rows {
		if row.live && row.session != "" {
			if s := w.rows["session/"+row.session]; s != nil && s.owner != nil && !s.dead() {
				n++
			}
		}
	}
	return n
}

// takeover bounds how long a waiter needs for the key of a node with this ttl
// that has crashed (I5).
func takeover(ttl time.Duration) time.Duration {
	return (ttl+ttl/16+ttl/3)*100/97 + 1200*time.Millisecond
}

// everyoneAsks lets each node ask for each key: each gets it.
func (w *world) everyoneAsks() {
	var all sync.WaitGroup
	for _, n := range w.alive() {
		all.Go(func() {
			a := &actor{node: n, w: w, rng: w.rng("quiet " + n.name)}
			for _, key := range w.keys {
				w.gets(a, key, takeover(8*time.Second)+5*time.Second)
			}
		})
	}
	all.Wait()
}

// gets lets an actor get a key, which must not take longer than bound.
func (w *world) gets(a *actor, key string, bound time.Duration) {
	began := w.elapsed()
	bound += w.absent(key)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	g := a.acquire(ctx, key)
	if took := w.elapsed() - began; g == nil || took > bound {
		w.fail("I5", "%s asked for %s without any fault: granted %t, after %v, bound %v",
			a.node.name, key, g != nil, took, bound)
	}
	if g != nil {
		a.release(g)
	}
}

// lostAnswers: on a free key, answers that are lost cost attempts, never a TTL (I6).
func (w *world) lostAnswers() {
	rng := w.rng("lost answers")
	ttl := w.ttls[0]
	n := w.start("lost", ttl, rng)
	n.link.set(func(l *link) { l.clear = true })
	a := &actor{node: n, w: w, rng: rng}
	w.gets(a, "lost", time.Second) // opens the session
	k := 1 + rng.IntN(2)
	n.link.set(func(l *link) { l.mute = k })
	w.gets(a, "lost", time.Duration(k)*(ttl/6+100*time.Millisecond)*100/97+time.Second)
}

// cleanCrash: the holder of a key crashes, without other faults, and a waiter gets it in time (I5).
func (w *world) cleanCrash() {
	rng := w.rng("clean crash")
	ttl := w.ttls[len(w.ttls)-1]
	holder, waiter := w.start("holder", ttl, rng), w.start("waiter", w.ttls[0], rng)
	for _, n := range []*node{holder, waiter} {
		n.link.set(func(l *link) { l.clear = true })
	}
	if (&actor{node: holder, w: w, rng: rng}).acquire(holder.ctx, "crash") == nil {
		w.fail("I5", "a free key is not granted")
		return
	}
	var asking sync.WaitGroup
	bound := takeover(ttl) + 2*ttl // it waits for at most that long before the crash
	asking.Go(func() { w.gets(&actor{node: waiter, w: w, rng: rng}, "crash", bound) })
	w.sleep(context.Background(), latency(rng, 0, 2*ttl))
	holder.crash()
	crashed := w.elapsed()
	asking.Wait()
	if took := w.elapsed() - crashed; took > takeover(ttl)+100*time.Millisecond {
		w.fail("I5", "after the crash of a holder with ttl %v a waiter was granted the key after %v", ttl, took)
	}
}

// end closes every node, and lets the goroutines of those that crashed run out:
// a bubble must not be left with any.
func (w *world) end() {
	var all sync.WaitGroup
	for _, n := range w.alive() {
		all.Go(func() {
			n.link.set(func(l *link) { l.clear = true })
			n.close(true, 30*time.Second)
		})
	}
	all.Wait()
	for _, n := range w.nodes {
		if n.gone {
			all.Go(n.bury)
		}
	}
	all.Wait()
	w.sleep(context.Background(), time.Minute) // whatever is left shows
}
