package session

import (
	"maps"
	"slices"
	"sync"
)

// Groups are those that a client has joined, which its heartbeats tell. The zero
// value has none.
type Groups struct {
	mu sync.Mutex
	// joined counts, by group, how often the client has joined it. changes counts
	// the changes of what heartbeats tell.
	joined  map[string]int
	changes uint64
}

// Join joins a group once more, unless that would make more than limit. want is
// what Knows has to be asked for.
func (g *Groups) Join(group string, limit int) (want uint64, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.joined) >= limit && g.joined[group] == 0 {
		return 0, false
	}
	if g.joined == nil {
		g.joined = map[string]int{}
	}
	g.joined[group]++
	if g.joined[group] == 1 {
		g.changes++
	}
	return g.changes, true
}

// Leave leaves a group as often as it was joined.
func (g *Groups) Leave(group string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.joined[group]--; g.joined[group] == 0 {
		delete(g.joined, group)
		g.changes++
	}
}

// Len is how many groups the client has joined.
func (g *Groups) Len() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.joined)
}

// names returns the groups, sorted, and how often they changed.
func (g *Groups) names() (joined []string, changes uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Sorted(maps.Keys(g.joined)), g.changes
}

// Knows reports whether the last acknowledged heartbeat was made after so many
// changes of the groups.
func (s *Session) Knows(changes uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.joinings >= changes
}
