package pool

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// listing are the rows of a pool.
type listing struct {
	// rows are the partitions, in the order of their names.
	rows []*row
	// unread is how many rows could not be read: what they say is not known.
	unread int
}

// longestLook bounds a look at the pool, unless the plan interval is longer: a
// request that hangs must not end the planning.
const longestLook = 10 * time.Second

// view is what a member sees of its pool. It comes from listings that may be a
// little old, so it proves nothing (R10).
type view struct {
	began   clock.Reading
	members []planMember
	// sessions are the ids of all sessions that were listed and are not known to be
	// dead, of this pool or not.
	sessions map[string]bool
	listing
	// recheck is how soon the next session may turn out to be dead, if it is not
	// seen to beat.
	recheck time.Duration
}

// look makes a view of the pool. known are the rows of an earlier one, to spare
// the decoding of those that have not changed. It ends the sessions of members
// that it has seen dead for long enough (R10), so that an idle member that
// crashed does not keep its share.
func (m *member) survey(ctx context.Context, known []*row) (*view, error) {
	ctx, cancel := m.clock.WithTimeout(ctx, max(m.interval, longestLook))
	defer cancel()
	v := &view{began: m.clock.Now(), sessions: map[string]bool{}, recheck: 2 * m.interval}
	var err error
	if v.listing, err = m.list(ctx, known, kv.EventuallyConsistent()); err != nil {
		return nil, err
	}
	for other, err := range m.client.Alive(ctx, m.group(), kv.EventuallyConsistent()) {
		if other == nil {
			return nil, err
		}
		v.sessions[other.Session] = true // also one that cannot be read, which is never dead (R18)
		if err != nil {
			continue
		}
		if other.DeadIn > 0 {
			v.recheck = min(v.recheck, other.DeadIn)
		}
		if slices.Contains(other.Joined, m.group()) {
			v.members = append(v.members, m.planMember(other))
		}
	}
	return v, nil
}

// planMember is a member as the planner sees it.
func (p *Pool) planMember(m *lease.Member) planMember {
	member := planMember{id: m.Session, cordoned: slices.Contains(m.Joined, p.cordonGroup())}
	for _, group := range m.Joined {
		if bound, ok := strings.CutPrefix(group, p.maxGroup()); ok {
			member.max, _ = strconv.Atoi(bound) // what is no number is no bound
		}
	}
	return member
}

// has reports whether a session was listed as a member's.
func (v *view) has(session string) bool {
	return slices.ContainsFunc(v.members, func(m planMember) bool { return m.id == session })
}

// list returns the rows of the pool's partitions. What is not a partition is left
// out.
func (m *member) list(ctx context.Context, known []*row, options ...kv.ReadOption) (listing, error) {
	prefix := m.key("")
	l := listing{rows: make([]*row, 0, len(known))}
	unread := func(err error) {
		m.report(slog.LevelWarn, "a row of the pool cannot be read", "error", err)
		l.unread++
	}
	for h, err := range m.client.Keys(ctx, prefix, options...) {
		switch {
		case h == nil:
			return listing{}, err
		case err != nil:
			unread(err)
			continue
		case !h.Kept:
			continue
		}
		name := strings.TrimPrefix(h.Key, prefix)
		for len(known) > 0 && known[0].name < name {
			known = known[1:]
		}
		if len(known) > 0 && known[0].name == name && known[0].Version == h.Version {
			l.rows = append(l.rows, known[0])
			continue
		}
		r, err := decode(name, h)
		if err != nil {
			unread(err)
			continue
		}
		l.rows = append(l.rows, r)
	}
	return l, nil
}

// ended reports whether there are partitions and all of them are known to be done
// or failed.
func (l *listing) ended() bool {
	for _, r := range l.rows {
		if !r.state.ended() {
			return false
		}
	}
	return len(l.rows) > 0 && l.unread == 0
}
