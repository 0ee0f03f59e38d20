package web

import (
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/lease"
)

// state says what is known of a session, from watching it.
type state string

// The states, from best to worst.
const (
	// stateLive: its last heartbeat was seen, and the next is not due for long.
	stateLive state = "live"
	// stateWatched: it was not watched for long enough to have seen a heartbeat.
	stateWatched state = "watched"
	// stateOverdue: no heartbeat was seen for two thirds of the TTL. Two were due.
	stateOverdue state = "overdue"
	// stateExpired: none was seen for the TTL and a sixteenth. Whoever wants its
	// locks ends it (R10).
	stateExpired state = "expired"
	// stateGone: it has no row any more. Its locks are free for whoever asks.
	stateGone state = "gone"
)

// troubled reports whether somebody should look.
func (s state) troubled() bool { return s == stateOverdue || s == stateExpired || s == stateGone }

// observation is what was seen of one session.
type observation struct {
	// version was received first at first.
	version uint64
	first   clock.Reading
	// beaten: another version was seen before.
	beaten bool
}

// watcher watches sessions as a contender does (R10), and ends none. It compares no
// clocks: silence counts from the receipt of the first reading that showed the
// version, by the monotonic clock.
type watcher struct {
	byID map[string]observation
	// missing are sessions that leases name and the last listing did not show. It
	// may have been a stale one.
	missing map[string]bool
}

// session is a session as the page shows it.
type session struct {
	*lease.Member
	State state
	// Silent is for how long no heartbeat was seen.
	Silent time.Duration
	// Locks is how many it holds, and Leads are the elections whose leader it is.
	Locks int
	Leads []string
	// Problem is why its row cannot be read.
	Problem string
}

// observe notes what a listing showed that was received at now, and forgets all
// others.
func (w *watcher) observe(listed []*session, now clock.Reading) {
	byID := make(map[string]observation, len(listed))
	for _, s := range listed {
		if s.Problem != "" {
			s.State = stateWatched // it may be alive (R18)
			continue
		}
		previous, known := w.byID[s.Session]
		if s.Version > previous.version { // a stale listing shows an older one
			previous = observation{version: s.Version, first: now, beaten: known}
		}
		byID[s.Session] = previous
		s.Silent = now.MonotonicSince(previous.first)
		s.State = judge(s.Member, s.Silent, previous.beaten)
	}
	w.byID = byID
}

// judge says what silence means.
func judge(m *lease.Member, silent time.Duration, beaten bool) state {
	switch {
	case silent >= m.DeadAfter():
		return stateExpired
	case silent >= m.OverdueAfter():
		return stateOverdue
	case beaten:
		return stateLive
	}
	return stateWatched
}

// absent says what it means that sessions which leases name were not listed. One that
// was missing the time before, too, is gone.
func (w *watcher) absent(ids map[string]bool) map[string]state {
	states := make(map[string]state, len(ids))
	for id := range ids {
		states[id] = stateWatched
		if w.missing[id] {
			states[id] = stateGone
		}
	}
	w.missing = ids
	return states
}
