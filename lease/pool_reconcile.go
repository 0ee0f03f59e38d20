package lease

// maxWaits is for how many partitions a member waits at the same time that a session which is no member gives back: one that is leaving.
const maxWaits = 32

// reconcile begins and ends claims, so that this member comes to have what the plan gives it. It sends nothing itself.
func (m *poolMember) reconcile() {
	m.mu.Lock()
	defer m.mu.Unlock()
	moving, waits := 0, map[string]int{}
	for _, c := range m.claims {
		if c.moving {
			moving++
		}
		if c.lease == nil {
			waits[c.donor]++
		}
	}
	listed := make(map[string]bool, len(m.claims))
	for i := range m.view.rows {
		r := &m.view.rows[i]
		c := m.claims[r.name]
		switch wanted := m.self != "" && m.owner[r.name] == m.self; {
		case c == nil && wanted:
			m.begin(r, waits)
		case c != nil:
			listed[r.name] = true
			if !wanted && m.leave(c, r, moving) {
				moving++
			}
		}
	}
	if len(listed) == len(m.claims) {
		return
	}
	for name, c := range m.claims {
		if c.lease != nil && !listed[name] {
			c.quit(false) // the row is gone: removed
		}
	}
}

// leave ends a claim on what the plan gives to another. It reports whether that is one more move, of which moving go on already.
func (m *poolMember) leave(c *claim, r *partitionRow, moving int) bool {
	switch {
	case r.record.Partition.idle(), c.lease == nil && c.donor != "":
		c.quit(false)
	case c.lease == nil: // nobody's: its only attempt may be under way, and if members whose plans differ gave way to each other, nobody would have it
	case c.quitting || m.self == "" || moving >= m.moves || m.client.clock.Now().MonotonicSince(c.began) < m.residency:
	default:
		c.quit(true)
		return true
	}
	return false
}

// begin starts a claim on what the plan gives to this member. What a live session has is waited for, up to as many at a time as that
// session may be giving back; both go by the order of the names.
func (m *poolMember) begin(r *partitionRow, waits map[string]int) {
	if _, ok := m.settled[r.name]; ok {
		return
	}
	donor := r.record.Session
	switch {
	case donor == m.self || !m.view.sessions[donor]:
		donor = "" // nobody's: free, an orphan of our own, or of a session that is dead or was not listed
		if m.settling() > 0 && len(m.claims) >= m.moves {
			return
		}
	case waits[donor] >= m.waitsFor(donor):
		return
	}
	waits[donor]++
	m.claim(r, donor)
}

// waitsFor is how many partitions are waited for at the same time that a session has.
func (m *poolMember) waitsFor(session string) int {
	for _, member := range m.view.members {
		if member.id == session {
			return m.moves
		}
	}
	return maxWaits
}
