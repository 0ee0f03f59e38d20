package sim_test

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/dynalock/dynalock/lease"
)

// entry is one who waits for a key, in the row's queue.
type entry struct {
	ID      string `json:"id"`
	Session string `json:"s"`
	Grace   int64  `json:"g"`
}

// turn is what the observer knows of the queue of a lease row (R20).
type turn struct {
	queue []entry
	// reserved is since when the row is reserved for the first of them, until by
	// which wall clock those who try once leave it to that one.
	reserved time.Duration
	until    time.Time
}

// turns is when the clients of a node queue up: after a second as a rule, sooner, at
// once, or never.
func turns(rng *rand.Rand) lease.Option {
	switch rng.IntN(6) {
	case 0:
		return lease.WithoutTurns()
	case 1:
		return lease.WithTurnAfter(0)
	case 2, 3:
		return lease.WithTurnAfter(latency(rng, 0, time.Second))
	}
	return lease.WithTurnAfter(lease.DefaultTurnAfter)
}

// reserve undoes how a reserved row is stored: it names whom it is reserved for as its
// holder, for those who know no queue.
func (r *record) reserve() {
	if r.Until != 0 {
		r.Session, r.Acq = "", ""
	}
}

// queued checks what a write of node n does to a row's queue (I15, I16). The
// row is as it was before.
func (w *world) queued(n *node, row *row, r request, key string, rec record) {
	old := row.turn
	if row.live {
		w.inOrder(n, row, r, key, rec)
	}
	next := turn{queue: rec.Queue, until: time.UnixMilli(rec.Until)}
	if len(next.queue) > 0 && rec.Session == "" {
		next.reserved = w.elapsed()
		if len(old.queue) > 0 && row.live && row.session == "" && old.queue[0].ID == next.queue[0].ID {
			next.reserved = old.reserved
		}
	}
	for i, e := range next.queue {
		if slices.ContainsFunc(next.queue[:i], func(o entry) bool { return o.Session == e.Session }) {
			w.failLocked("R20", "%s has two places in the queue of %s", w.aliasLocked("session/"+e.Session), key)
		}
	}
	if len(next.queue) > len(old.queue) {
		w.tally["queued up"]++
	}
	row.turn = next
}

// inOrder: whoever takes a place out of the queue is its owner, or has waited for its
// grace; and who takes the key is the first.
func (w *world) inOrder(n *node, row *row, r request, key string, rec record) {
	old := row.turn
	for i, e := range old.queue {
		owner := w.rows["session/"+e.Session]
		switch {
		case slices.ContainsFunc(rec.Queue, func(o entry) bool { return o.ID == e.ID }):
		case owner != nil && (owner.owner == n || owner.ended):
		case w.triesLate(n, row, r):
			w.tally["tried past a queue"]++
		case i > 0 || row.session != "":
			w.failLocked("I16", "%s takes the place of %s in the queue of %s, whose turn it was not", n.name,
				w.aliasLocked("session/"+e.Session), key)
		case w.elapsed()-old.reserved < time.Duration(e.Grace)*time.Millisecond:
			w.failLocked("I16", "%s passes %s over, for whom %s was reserved for %v of %d ms", n.name,
				w.aliasLocked("session/"+e.Session), key, w.elapsed()-old.reserved, e.Grace)
		default:
			w.tally["passed over"]++
		}
	}
	if len(rec.Queue) == 0 || rec.Session == "" || rec.Acq == row.acq {
		return
	}
	// The acquisition leaves others in the queue: those that came after it.
	first := old.queue[0]
	switch {
	case first.Session == rec.Session:
		w.tally["turns"]++
	case !slices.ContainsFunc(rec.Queue, func(o entry) bool { return o.ID == first.ID }): // passed over
	case row.session == rec.Session && !w.wasGranted(key, row.token):
		w.tally["orphans taken past a queue"]++
	default:
		w.failLocked("I15", "%s takes %s, where it was the turn of %s", n.name, key, w.aliasLocked("session/"+first.Session))
	}
}

// absent is for how long those in a key's queue may block it when none of them
// answers: 17/16 of a grace and a poll each.
func (w *world) absent(key string) (longest time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if row := w.rows["lease/"+key]; row != nil && row.live {
		for _, e := range row.turn.queue {
			longest += time.Duration(e.Grace)*time.Millisecond*17/16*100/97 + time.Second
		}
	}
	return longest
}

// triesLate reports whether the write is one that may end a queue: by the wall
// clock of its node when it was sent the key is not reserved any more.
func (w *world) triesLate(n *node, row *row, r request) bool {
	now := n.clock.Now().Wall
	if sent, ok := row.began[text(r.put["writer"])]; ok {
		now = sent.Wall
	}
	left := row.turn.until.Sub(now)
	return row.session == "" && (left <= 0 || left > time.Minute)
}

func (w *world) wasGranted(key string, token uint64) bool {
	return slices.ContainsFunc(w.grants[key], func(g *grant) bool { return g.token == token })
}
