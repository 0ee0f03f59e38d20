//go:build unix

package chaos_test

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// fault is what was done to a process. A kill ends when it begins.
type fault struct {
	Kind         string
	PID          int
	Began, Ended time.Duration
}

const (
	killed  = "kill -9"
	stopped = "SIGSTOP"
)

// history is what there is to check.
type history struct {
	// events are those of all processes, each process' in their order.
	events []event
	// writes are those of the resource, by key, in order.
	writes map[string][]write
	faults []fault
	// bound is how long a key may take to be granted again after its holder died.
	bound time.Duration
}

// grant is an acquisition and the time in which its process is known to have believed in it.
type grant struct {
	key         string
	pid         int
	token       uint64
	from, until time.Duration
	// believed: Held was true at least once. ended: it was false, or Release was called.
	believed, ended bool
}

func (g *grant) String() string {
	return fmt.Sprintf("%s@%d of process %d, held from %v to %v", g.key, g.token, g.pid, g.from, g.until)
}

// findings are the violations in a history, and what it was worth.
type findings struct {
	violations []string
	grants     int
	// stale are the writes that the resource refused, lost the leases that
	// ended before they were released.
	stale, lost int
	// takeovers is how long a key whose holder was killed took to be granted
	// again, with no other fault in that time.
	takeovers []time.Duration
}

func (f *findings) violation(format string, args ...any) {
	f.violations = append(f.violations, fmt.Sprintf(format, args...))
}

func check(h history) *findings {
	f := &findings{}
	grants := f.beliefs(h.events)
	byKey := map[string][]*grant{}
	known := map[grant]bool{}
	for _, g := range grants {
		known[grant{key: g.key, pid: g.pid, token: g.token}] = true
		if g.believed {
			f.grants++
			byKey[g.key] = append(byKey[g.key], g)
		}
	}
	for key, grants := range byKey {
		slices.SortStableFunc(grants, func(a, b *grant) int { return cmp.Compare(a.from, b.from) })
		f.order(grants)
		f.recovery(h, key, grants)
	}
	for key, writes := range h.writes {
		f.fencing(key, writes, known)
	}
	return f
}

// beliefs makes grants of events, and checks I7.
func (f *findings) beliefs(events []event) (grants []*grant) {
	type id struct {
		key   string
		pid   int
		token uint64
	}
	byID := map[id]*grant{}
	for _, e := range events {
		if e.What == failed {
			continue
		}
		key := id{e.Key, e.PID, e.Token}
		g := byID[key]
		if g == nil {
			g = &grant{key: e.Key, pid: e.PID, token: e.Token, from: e.At}
			byID[key] = g
			grants = append(grants, g)
		}
		switch e.What {
		case acquired, held:
			if g.ended {
				f.violation("I7: held again at %v: %v", e.At, g)
			}
			g.believed, g.until = true, e.At
		case notHeld:
			if !g.ended && g.believed {
				f.lost++
			}
			g.ended = true
		default:
			g.ended = true
		}
	}
	return grants
}

// order checks I2 and I3 on the grants of one key, in the order in which they began.
func (f *findings) order(grants []*grant) {
	for i, g := range grants[1:] {
		if before := grants[i]; g.token <= before.token {
			f.violation("I2: token of %v, after %v", g, before)
		}
		for _, other := range grants[:i+1] {
			if g.from < other.until {
				f.violation("I3: %v, and %v", other, g)
			}
		}
	}
}

// recovery checks I5 on one key.
func (f *findings) recovery(h history, key string, grants []*grant) {
	for _, kill := range h.faults {
		if kill.Kind != killed {
			continue
		}
		next := slices.IndexFunc(grants, func(g *grant) bool { return g.from > kill.Began })
		last := next - 1
		if next < 0 {
			last = len(grants) - 1
		}
		if last < 0 || grants[last].pid != kill.PID || grants[last].ended {
			continue // it did not hold the key
		}
		limit, alone := h.limit(kill)
		switch {
		case next < 0:
			f.violation("I5: %s was not granted again after process %d was killed at %v", key, kill.PID, kill.Began)
		case grants[next].from > limit:
			f.violation("I5: %s took %v to be granted again after process %d was killed at %v", key,
				grants[next].from-kill.Began, kill.PID, kill.Began)
		case alone:
			f.takeovers = append(f.takeovers, grants[next].from-kill.Began)
		}
	}
}

// limit returns until when a key must be granted after a kill, and whether
// other faults have no part in that: they put the limit off, since a process
// that is stopped or cut off may have got the key next, unknown to itself and
// to its log.
func (h history) limit(kill fault) (limit time.Duration, alone bool) {
	limit, alone = kill.Began+h.bound, true
	for again := true; again; {
		again = false
		for _, other := range h.faults {
			if other != kill && other.Began < limit && other.Ended >= kill.Began && other.Ended+h.bound > limit {
				limit, again, alone = other.Ended+h.bound, true, false
			}
		}
	}
	return limit, alone
}

// fencing checks I1 on the writes to one key, and that each was made under a
// lease that its process said it had.
func (f *findings) fencing(key string, writes []write, known map[grant]bool) {
	highest := uint64(0)
	for _, w := range writes {
		if !known[grant{key: key, pid: w.PID, token: w.Token}] {
			f.violation("log: process %d wrote to %s under token %d, which it was not granted", w.PID, key, w.Token)
		}
		if !w.accepted() {
			f.stale++
			continue
		}
		if w.Token < highest {
			f.violation("I1: %s accepted token %d after %d", key, w.Token, highest)
		}
		highest = max(highest, w.Token)
	}
}
