package sim_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/dynalock/dynalock/lease"
)

// holding is a lease or an election's term.
type holding interface {
	Token() uint64
	Held() bool
	Err() error
	Context() context.Context
}

// grant is a lease that a node was given, for as long as it may believe in it.
type grant struct {
	node    *node
	key     string
	lease   holding
	token   uint64
	session string
	// lost: it was seen not to be held; ended: its holder has begun to release it.
	lost, ended bool
}

func failedItem(err error) map[string]types.AttributeValue {
	var failed *types.ConditionalCheckFailedException
	if errors.As(err, &failed) {
		return failed.Item
	}
	return nil
}

// acquiring counts an acquire of a node that is in flight; the caller calls
// what it returns at the end.
func (w *world) acquiring(n *node, key string) (done func()) {
	id := n.name + "/" + key
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting[id]++
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.waiting[id]--
	}
}

// granted checks what an acquire has returned (I2, I3, I8), and watches over it from now on.
func (w *world) granted(n *node, key string, l holding) *grant {
	w.mu.Lock()
	defer w.mu.Unlock()
	g := &grant{node: n, key: key, lease: l, token: l.Token()}
	row := w.rows["lease/"+key]
	if row != nil {
		g.session = row.sessions[g.token]
	}
	w.recordLocked(n, "GRANTED", key, g.token)
	if n.gone {
		return g
	}
	if !w.heldLocked(g) {
		var lost *lease.LostError
		if !errors.As(l.Err(), &lost) || lost.Reason != lease.ReasonClosed { // Close may have begun this very moment
			w.failLocked("I8", "%s is granted %s (token %d, handed over: %t), which is not held: %v", n.name, key, g.token,
				row != nil && row.handed[g.token], l.Err())
		}
		return g
	}
	if w.excused(g) {
		return g
	}
	if g.token <= w.greatest[key] {
		w.failLocked("I2", "%s is granted %s with token %d after %d", n.name, key, g.token, w.greatest[key])
	}
	w.greatest[key] = max(w.greatest[key], g.token)
	w.checkKeptLocked(g)
	if row == nil || row.version < g.token {
		w.failLocked("I2", "%s is granted %s with token %d, which no write gave", n.name, key, g.token)
	}
	var others []*grant
	for _, o := range w.grants[key] {
		if w.believed(o) {
			w.failLocked("I3", "%s is granted %s (token %d) while %s believes in it (token %d)", n.name, key, g.token,
				o.node.name, o.token)
		}
		if !o.ended && !o.lost {
			others = append(others, o)
		}
	}
	w.grants[key] = append(others, g)
	return g
}

// held asks a lease, on behalf of its holder, whether it is held, and checks
// the answer (I3, I7, R3).
func (w *world) held(g *grant) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.heldLocked(g)
}

func (w *world) heldLocked(g *grant) bool {
	held := g.lease.Held()
	switch {
	case !held:
		g.lost = true
		return false
	case g.lost:
		w.failLocked("I7", "%s of %s (token %d) is held again", g.key, g.node.name, g.token)
	case w.greatest[g.key] > g.token && !g.node.gone && !w.excused(g):
		w.failLocked("I3", "%s believes in %s (token %d), which was granted meanwhile (token %d)", g.node.name, g.key,
			g.token, w.greatest[g.key])
	}
	if left, known := w.trust(g); known && left <= 0 && !g.node.gone {
		w.failLocked("R3", "%s believes in %s (token %d) although its trust ended %v ago", g.node.name, g.key, g.token, -left)
	}
	return true
}

func margin(ttl time.Duration) time.Duration { return max(ttl/10, 500*time.Millisecond) }

// trust is how much of it a lease has left by its holder's clocks, counted from
// outside: from before the first attempt of the last heartbeat that its node
// was told of.
func (w *world) trust(g *grant) (left time.Duration, known bool) {
	row := w.rows["session/"+g.session]
	if row == nil || row.renewed.IsZero() {
		return 0, false
	}
	return row.ttl - margin(row.ttl) - g.node.clock.Now().Since(row.renewed), true
}

// signalled checks that a lease whose trust has ended says so by itself,
// without being asked: the library looks every half margin, since clocks may
// step or go on while its timer stands still (I7).
func (w *world) signalled(g *grant) {
	w.mu.Lock()
	defer w.mu.Unlock()
	left, known := w.trust(g)
	late := margin(g.node.ttl)*52/100 + 30*time.Millisecond
	if known && -left > late && g.node.clock.quiet() > late && g.lease.Context().Err() == nil && !g.node.gone {
		w.failLocked("I7", "the trust of %s in %s (token %d) ended %v ago, which was not signalled", g.node.name, g.key,
			g.token, -left)
	}
}

// believed reports whether the holder of a grant may act on it this moment. A
// stopped machine cannot be asked without waking it, so then the trust it had
// is counted from outside.
func (w *world) believed(g *grant) bool {
	if g.ended || g.lost || g.node.gone || g.lease.Context().Err() != nil || w.excused(g) {
		return false
	}
	if g.node.clock.isStopped() {
		left, known := w.trust(g)
		return known && left > 0
	}
	return w.heldLocked(g)
}

// ending notes that the holder gives a lease back.
func (w *world) ending(g *grant) {
	w.mu.Lock()
	defer w.mu.Unlock()
	g.ended = true
	w.recordLocked(g.node, "release", g.key, g.token)
}

// use is the guarded resource of a key: it accepts no token that is smaller
// than one it has accepted (I1).
func (w *world) use(g *grant) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.excused(g) {
		return true
	}
	if g.token < w.fences[g.key] {
		w.recordLocked(g.node, "fenced off", g.key, g.token)
		if !g.node.gone && g.lease.Context().Err() == nil && g.lease.Held() {
			w.failLocked("I1", "%s holds %s with token %d, but the resource has seen %d",
				g.node.name, g.key, g.token, w.fences[g.key])
		}
		return false
	}
	w.fences[g.key] = g.token
	return true
}

// orphans looks for rows that name a live session and that nobody holds, waits
// for, or may still be giving back (I10). What was released while Close waits
// for a slower holder is given back with the session (R16).
func (w *world) orphans() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, row := range w.rows {
		key, ok := strings.CutPrefix(name, "lease/")
		if !ok || !row.live || row.session == "" {
			continue
		}
		s := w.rows["session/"+row.session]
		if s == nil || s.owner == nil || s.owner.troubled || s.owner.closing || s.dead() || w.covered(row, s.owner, key) {
			row.orphaned = w.elapsed()
			continue
		}
		if age := w.elapsed() - row.orphaned; age > w.patience(row, s.owner) {
			w.failLocked("I10", "%s has been an orphan of %s (version %d) for %v; its write landed %v after it was sent", name,
				s.owner.name, row.version, age, row.late)
		}
	}
}

// patience is how long an orphan may live: a resolver's next look is never
// further away than one and a half times as long as the write has been unknown,
// or the store out of reach.
func (w *world) patience(r *row, owner *node) time.Duration {
	patience := 8*time.Second + 2*r.late + 2*owner.trouble
	if w.weather.hostile {
		patience += 45 * time.Second // a resolver whose attempts all fail pauses for 30 s, half of that more or less
	}
	return patience
}

func (w *world) covered(r *row, owner *node, key string) bool {
	if w.waiting[owner.name+"/"+key] > 0 {
		return true
	}
	if strings.HasPrefix(key, rwKeys+"r/") && w.waiting[owner.name+"/"+rwKeys+"r/"] > 0 {
		return true
	}
	for _, g := range w.grants[key] {
		if g.token == r.token && g.node == owner && !g.ended {
			return true
		}
	}
	return false
}

// summary is one line about a run.
func (w *world) summary() string {
	t := w.tally
	return fmt.Sprintf("calls %d, grants %d, takeovers %d, handovers %d, kills %d, fenced off %d, renewed %d, simulated %v",
		w.calls, t["GRANTED"], t["takeovers"], t["handovers"], t["kills"], t["fenced off"], t["renewed"],
		w.lasted.Round(time.Second))
}
