package sim_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// actor is one goroutine of a node that uses its client.
type actor struct {
	node *node
	w    *world
	rng  *rand.Rand
	err  error // why the last acquire failed
}

// workload is one thing that actors do, again and again.
type workload struct {
	name   string
	weight int
	do     func(a *actor, key string)
	// later: it came later, and is drawn from numbers of its own, as trouble is.
	later bool
}

// workloads are all of them: to add one, write its function in a file of its own and name it here.
var workloads = []workload{
	{"mutex", 5, holdMutex, false},
	{"try", 3, tryMutex, false},
	{"abandon", 2, abandonAcquire, false},
	{"fenced", 3, writeFenced, false},
	{"value", 2, keepValue, false},
	{"break", 1, breakHolder, false},
	{"once", 2, runStrict, false},
	{"again", 2, runAgain, false},
	{"lead", 2, leads, false},
	{"observe", 1, observes, false},
	{"pool", 2, joinPool, false},
	{"mark", 1, markPool, false},
	{"clone", 1, cloneSession, false},
	{"any", 2, takeAny, false},
	{"share", 3, share, false},
	{"bounded", 2, holdBounded, false},
	{"sweep", 1, sweepLeftovers, false},
	{"join", 2, joins, true},
	{"checked", 2, holdChecked, true},
}

// work goes on until the node's time is over, or its client is closed.
func (a *actor) work() {
	total := 0
	for _, weight := range a.w.mix {
		total += weight
	}
	for a.pause(latency(a.rng, 0, 1500*time.Millisecond)); a.node.ctx.Err() == nil; a.pause(latency(a.rng,
		time.Millisecond, 1500*time.Millisecond)) {
		pick := a.rng.IntN(total)
		for i, l := range workloads {
			if pick -= a.w.mix[i]; pick < 0 {
				l.do(a, a.w.keys[a.rng.IntN(len(a.w.keys))])
				break
			}
		}
	}
}

// pause sleeps on the node's clock, for less if the node's time is over.
func (a *actor) pause(d time.Duration) { _ = clock.Sleep(a.node.ctx, a.node.clock, d) }

// acquire waits for key; nil if it is not to be had.
func (a *actor) acquire(ctx context.Context, key string, options ...lease.AcquireOption) *grant {
	return a.get(key, func() (*lease.Lease, error) {
		a.w.mu.Lock()
		met := a.node.met
		a.w.mu.Unlock()
		l, err := a.node.client.Acquire(a.node.asks(ctx, "Acquire", "lease/"+key, 1), key, options...)
		a.w.waitedOut(ctx, a.node, key, met, err)
		return l, err
	})
}

func (a *actor) get(key string, acquire func() (*lease.Lease, error)) *grant {
	done := a.w.acquiring(a.node, key)
	defer done()
	l, err := acquire()
	if err != nil {
		a.err = err
		a.w.refused(a.node, key, err)
		return nil
	}
	return a.w.granted(a.node, key, l)
}

// refused checks that an acquire fails for a reason that there is.
func (w *world) refused(n *node, key string, err error) {
	switch {
	case errors.Is(err, lease.ErrHeld):
		w.record(n, "held", key, 0)
	case errors.Is(err, lease.ErrClosed):
		w.record(n, "refused: closed", key, 0)
	case errors.Is(err, kv.ErrFormat), errors.Is(err, lease.ErrInvalid):
		w.fail("R18", "%s: acquiring %s: %v", n.name, key, err)
	default:
		w.record(n, "refused", key, 0)
	}
}

// hold keeps a lease for d, or until it is lost, and asks after it meanwhile.
func (a *actor) hold(g *grant, d time.Duration) {
	until := a.node.clock.Now()
	for a.w.held(g) && a.node.ctx.Err() == nil {
		left := d - a.node.clock.Now().MonotonicSince(until)
		if left <= 0 {
			return
		}
		t := a.node.clock.NewTimer(min(left, latency(a.rng, time.Millisecond, time.Second)))
		select {
		case <-t.C():
			a.w.signalled(g)
		case <-g.lease.Context().Done():
			t.Stop()
			a.node.clock.await()
		}
	}
}

// release gives a lease back.
func (a *actor) release(g *grant) {
	a.releaseBy(g, func(ctx context.Context) error { return g.lease.(*lease.Lease).Release(ctx) })
}

func (a *actor) releaseBy(g *grant, release func(context.Context) error) {
	a.node.clock.await()
	a.w.ending(g)
	err := release(a.node.ctx)
	a.w.mu.Lock()
	a.node.freed++
	a.w.mu.Unlock()
	switch {
	case err == nil:
		a.w.record(a.node, "released", g.key, g.token)
	case errors.Is(err, lease.ErrLost):
		a.w.record(a.node, "released: lost", g.key, g.token)
	default:
		a.w.record(a.node, "released: unknown", g.key, g.token)
	}
	if g.lease.Held() {
		a.w.fail("I7", "%s was released by %s and is held", g.key, a.node.name)
	}
}
