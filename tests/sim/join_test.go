package sim_test

import (
	"slices"
	"strings"
	"time"
)

var groups = []string{"group/0", "group/1"}

// joins is a member of a group for a while.
func joins(a *actor, _ string) {
	group := groups[a.rng.IntN(len(groups))]
	ctx, cancel := a.node.clock.WithTimeout(a.node.ctx, latency(a.rng, 0, 4*a.node.ttl))
	defer cancel()
	leave, err := a.node.client.Join(a.node.asks(ctx, "Join", "", 1), group)
	if err != nil {
		a.w.refused(a.node, group, err)
		return
	}
	a.w.joined(a.node, group)
	a.pause(latency(a.rng, 0, 2*a.node.ttl))
	a.w.leaves(a.node, group)
	leave()
}

// membership is how often a node has joined a group, since when it is known to
// be a member.
type membership struct {
	count int
	since time.Duration
}

// joined checks that a session of a new member says so.
func (w *world) joined(n *node, group string) {
	w.mu.Lock()
	m := n.member(group)
	if m.count++; m.count == 1 {
		m.since = w.elapsed()
	}
	w.recordLocked(n, "joined", group, 0)
	w.mu.Unlock()
	w.isMember(n, group, false)
}

// isMember checks that a session of a node says so of a group, one that lives if it matters.
func (w *world) isMember(n *node, group string, lives bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, row := range w.rows {
		if strings.HasPrefix(name, "session/") && row.owner == n && (row.live || !lives) && slices.Contains(row.joined, group) {
			return
		}
	}
	if !n.gone {
		w.failLocked("join", "%s is a member of %s, but no session of it says so", n.name, group)
	}
}

// leaves notes that a node is about to leave a group.
func (w *world) leaves(n *node, group string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n.member(group).count--
	w.recordLocked(n, "left", group, 0)
}

func (n *node) member(group string) *membership {
	if n.memberships == nil {
		n.memberships = map[string]*membership{}
	}
	if n.memberships[group] == nil {
		n.memberships[group] = &membership{}
	}
	return n.memberships[group]
}

// tells checks that a heartbeat, sent at a time, names the groups of its node.
func (w *world) tells(n *node, joined []string, sent time.Duration) {
	for group, m := range n.memberships {
		if m.count > 0 && sent > m.since && !slices.Contains(joined, group) {
			w.failLocked("join", "%s is a member of %s, and heartbeats without it", n.name, group)
		}
	}
}
