package sim_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

// slot is what has become of a slot of a job that runs once: starts and
// failures as its functions know it, done as its row says.
type slot struct {
	starts, failures int
	done             bool
	// byHand: somebody has deleted its row, so that it is not remembered.
	byHand bool
}

var errJob = errors.New("sim: the job failed")

// runStrict runs the present slot or a recent one, like every node does, of a
// job that is started at most once whatever happens.
func runStrict(a *actor, _ string) { runOnce(a, "strict") }

// runAgain does so with one whose abandoned and failed slots are run again, but
// never after they are done.
func runAgain(a *actor, _ string) {
	options := []lock.OnceOption{lock.TakeOver(), lock.RetryFailed()}
	if a.rng.IntN(2) == 0 {
		options = append(options, lock.Wait())
	}
	runOnce(a, "again", options...)
}

func runOnce(a *actor, job string, options ...lock.OnceOption) {
	once := lock.NewOnce(a.node.client, job, options...)
	name := fmt.Sprint(int(a.w.elapsed()/(6*time.Second)) - a.rng.IntN(5)) // an earlier one may have been abandoned
	key := once.Key(name)
	defer a.w.acquiring(a.node, key)()
	ctx, cancel := a.node.clock.WithTimeout(a.node.ctx, latency(a.rng, 0, 4*a.node.ttl))
	defer cancel()
	ran, err := once.Do(a.node.asks(ctx, "Once", "", 1), name, func(_ context.Context, l *lease.Lease) error { return a.runSlot(key, l) })
	a.node.clock.await()
	a.w.record(a.node, fmt.Sprintf("once, ran: %t, error: %t", ran, err != nil), key, 0)
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	s := a.w.slotLocked(key)
	switch {
	case s.byHand:
	case err == nil && !s.done:
		a.w.failLocked("once", "%s is told that %s is done, which it is not", a.node.name, key)
	case errors.Is(err, lock.ErrFailed) && s.failures == 0:
		a.w.failLocked("once", "%s is told that %s has failed, which it has not", a.node.name, key)
	}
}

// runSlot is the function of a slot.
func (a *actor) runSlot(key string, l *lease.Lease) error {
	a.w.mu.Lock()
	s := a.w.slotLocked(key)
	if !s.byHand && (s.done || strings.HasPrefix(key, "once/strict/") && s.starts > 0) {
		a.w.failLocked("once", "%s starts %s, which was started %d times, done: %t", a.node.name, key, s.starts, s.done)
	}
	s.starts++
	a.w.mu.Unlock()
	g := a.w.granted(a.node, key, l)
	most := 400 * time.Millisecond
	if a.rng.IntN(4) == 0 {
		most = 2 * a.node.ttl
	}
	a.hold(g, latency(a.rng, 0, most))
	a.node.clock.await()
	fails := a.rng.IntN(4) == 0
	a.w.ending(g)
	if !fails {
		return nil
	}
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	s.failures++
	return errJob
}

// slotWritten: a slot that is done stays so.
func (w *world) slotWritten(n *node, key string, rec record) {
	value, err := base64.StdEncoding.DecodeString(rec.Value)
	if err != nil {
		w.failLocked("harness", "value of %s: %v", key, err)
	}
	s, done := w.slotLocked(key), strings.Contains(string(value), `"state":"done"`)
	if s.done && !done && !s.byHand {
		w.failLocked("once", "%s writes %s, which was done", n.name, key)
	}
	s.done = s.done || done
}

func (w *world) slotLocked(key string) *slot {
	if w.slots[key] == nil {
		w.slots[key] = &slot{}
	}
	return w.slots[key]
}
