package pool

// maxWaits is for how many partitions a member waits at the same time that a
// session which is no member gives back: one that is leaving.
const maxWaits = 32

// reconcile begins and ends claims, so that this member comes to have what the
// plan gives it. It sends nothing itself.
func (m *member) reconcile() {
	m.mu.Lock()
	defer m.mu.Unlock()
	moving, waits := 0, map[string]int{}
	for _, c := range m.claims {
		if c.moving {
			moving++
		}
		if c.lease == nil {
			waits[c.currentOwner]++
		}
	}
	listed := make(map[string]bool, len(m.claims))
	for _, r := range m.view.rows {
		c := m.claims[r.name]
		switch wanted := m.self != "" && m.owner[r.name] == m.self; {
		case c == nil && wanted:
			m.begin(r, waits)
		case c != nil:
			listed[r.name] = true
			if !wanted && m.end(c, r, moving) {
				moving++
			}
		}
	}
	if len(listed) == len(m.claims) {
		return
	}
	for name, c := range m.claims {
		if c.lease != nil && !listed[name] {
			c.drain(false) // the row is gone: removed
		}
	}
}

// end ends a claim on what the plan gives to another. It reports whether that is
// one more move, of which moving go on already.
func (m *member) end(c *claim, r *row, moving int) bool {
	switch {
	case r.idle(), c.lease == nil && c.currentOwner != "":
		c.drain(false)
	case c.lease == nil:
		// Unowned: keep trying. If two members with different plans both gave way,
		// nobody would have the partition.
	case c.draining, m.self == "", moving >= m.maxMoves, m.clock.Now().MonotonicSince(c.began) < m.residency:
	default:
		c.drain(true)
		return true
	}
	return false
}

// begin starts a claim on what the plan gives to this member. What a live session
// has is waited for, up to as many at a time as that session may be giving back.
// Both go by the order of the names.
func (m *member) begin(r *row, waits map[string]int) {
	if _, ok := m.released[r.name]; ok {
		return
	}
	owner := r.Session
	switch {
	case owner == m.self || !m.view.sessions[owner]:
		// Nobody's: free, an orphan of our own, or of a session that is dead or was
		// not listed.
		owner = ""
		if m.warmingUp() > 0 && len(m.claims) >= m.maxMoves {
			return
		}
	case waits[owner] >= m.waitsFor(owner):
		return
	}
	waits[owner]++
	m.claim(r, owner)
}

// waitsFor is how many partitions are waited for at the same time that a session
// has.
func (m *member) waitsFor(session string) int {
	if m.view.has(session) {
		return m.maxMoves
	}
	return maxWaits
}
