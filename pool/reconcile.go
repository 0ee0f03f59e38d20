package pool

import (
	"slices"
	"strings"
)

// maxWaits is for how many partitions a member waits at the same time that a
// session which is no member gives back: one that is leaving.
const maxWaits = 32

// todo is what a plan leaves to do, in the order of the names. A member does it
// bit by bit as claims end, and never goes over all partitions again.
type todo struct {
	// wanted are the partitions that the plan gives to this member and that it does
	// not try to get yet, by the live session that has them, "" if there is none.
	wanted map[string][]*row
	// surplus are the claims on what the plan gives to others.
	surplus []*claim
	// spare are this member's share of what the plan gives to nobody, since all are
	// full.
	spare []*row
}

// reconcile begins and ends claims, so that this member comes to have what the
// plan gives it. It sends nothing itself.
func (m *member) reconcile() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.todo = todo{wanted: map[string][]*row{}}
	listed := 0
	for _, r := range m.view.rows {
		c := m.claims[r.name]
		switch wanted := m.self != "" && m.owner[r.name] == m.self; {
		case c == nil && wanted:
			m.want(r)
		case c != nil:
			listed++
			if !wanted {
				m.end(c, r)
			}
		}
	}
	if listed < len(m.claims) {
		m.endUnlisted()
	}
	m.todo.spare = m.spares()
	m.proceed()
}

// endUnlisted ends the claims on rows that are gone: removed.
func (m *member) endUnlisted() {
	for name, c := range m.claims {
		_, listed := slices.BinarySearchFunc(m.view.rows, name, func(r *row, name string) int {
			return strings.Compare(r.name, name)
		})
		if c.lease != nil && !listed {
			c.drain(false)
		}
	}
}

// want notes a partition that the plan gives to this member, unless its claim has
// only just ended.
func (m *member) want(r *row) {
	if _, ok := m.released[r.name]; ok {
		return
	}
	owner := r.Session
	if owner == m.self || !m.view.sessions[owner] {
		// Nobody's: free, an orphan of our own, or of a session that is dead or was
		// not listed.
		owner = ""
	}
	m.todo.wanted[owner] = append(m.todo.wanted[owner], r)
}

// end ends a claim on what the plan gives to another, or notes it as one to end.
func (m *member) end(c *claim, r *row) {
	switch {
	case r.idle(), c.lease == nil && c.currentOwner != "":
		c.drain(false)
	case c.lease == nil:
		// Unowned: keep trying. If two members with different plans both gave way,
		// nobody would have the partition.
	case c.draining, m.self == "", m.clock.Now().MonotonicSince(c.began) < m.residency:
	default:
		m.todo.surplus = append(m.todo.surplus, c)
	}
}

// proceed does as much of what is left to do as may be done at the same time.
// The caller holds m.mu.
func (m *member) proceed() {
	for len(m.todo.surplus) > 0 && m.moving < m.maxMoves {
		if c := m.todo.surplus[0]; m.claims[c.name] == c && !c.draining {
			c.drain(true)
		}
		m.todo.surplus = m.todo.surplus[1:]
	}
	for owner, rows := range m.todo.wanted {
		for len(rows) > 0 && m.mayBegin(owner) {
			m.claim(rows[0], owner)
			rows = rows[1:]
		}
		m.todo.wanted[owner] = rows
	}
	for len(m.todo.spare) > 0 && m.finished && len(m.claims) < m.maxPartitions && m.warmingUp() <= 0 {
		r := m.todo.spare[0]
		m.owner[r.name] = m.self
		m.claim(r, "")
		m.todo.spare = m.todo.spare[1:]
	}
}

// mayBegin reports whether one more claim may begin on what owner has. What a
// live session has is waited for, up to as many at a time as that session may be
// giving back.
func (m *member) mayBegin(owner string) bool {
	switch {
	case owner == "":
		return m.warmingUp() <= 0 || len(m.claims) < m.maxMoves
	case m.view.has(owner):
		return m.waits[owner] < m.maxMoves
	}
	return m.waits[owner] < maxWaits
}

// spares are this member's share of what the plan gives to nobody. Each member
// that may take more has one, so that they do not try to get the same.
func (m *member) spares() []*row {
	var takers []string
	for _, other := range m.view.members {
		if !other.cordoned {
			takers = append(takers, other.id)
		}
	}
	slices.Sort(takers)
	turn, ok := slices.BinarySearch(takers, m.self)
	if m.maxPartitions == 0 || !ok {
		return nil
	}
	var share []*row
	n := 0
	for _, r := range m.view.rows {
		if owner, planned := m.owner[r.name]; !planned || owner != "" || m.view.sessions[r.Session] {
			continue
		}
		_, released := m.released[r.name]
		if n%len(takers) == turn && m.claims[r.name] == nil && !released {
			share = append(share, r)
		}
		n++
	}
	return share
}
