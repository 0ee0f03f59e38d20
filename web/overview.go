package web

import (
	"cmp"
	"context"
	"net/url"
	"slices"
	"strings"
)

// How much of a long list the overview shows.
const (
	maxConcerns = 12
	maxLongest  = 8
)

// concern is something that somebody should look at.
type concern struct {
	// State decides how it is shown.
	State string
	// What it is about, and what is the matter.
	What, Says string
	Address    string
}

// concerns are the overdue sessions, vacancies, and locks without holders, the worst
// first.
func (k *snapshot) concerns() []concern {
	var found []concern
	for _, s := range k.sessions {
		address := "sessions?" + url.Values{"q": {s.Session}}.Encode()
		says := "silent for " + duration(s.Silent) + " of its TTL of " + duration(s.TTL) + "; " + s.holds()
		switch s.State {
		case stateExpired:
			found = append(found, concern{s.Name(), s.Owner, says + "; all of it passes to whoever asks", address})
		case stateOverdue:
			found = append(found, concern{s.Name(), s.Owner, says, address})
		}
	}
	orphaned := 0
	for _, row := range k.locks {
		if row.State == stateGone {
			orphaned++
		}
	}
	if orphaned > 0 {
		found = append(found, concern{string(stateGone), plural(orphaned, "lock"),
			"of holders that are gone: free for whoever asks",
			"locks?state=" + string(stateGone)})
	}
	for _, e := range k.elections {
		if e.Leader == nil && len(e.Candidates) > 0 {
			found = append(found, concern{"vacant", e.Name, "nobody leads; " + plural(len(e.Candidates), "candidate"),
				"elections"})
		}
	}
	if k.unread > 0 {
		found = append(found, concern{"unread", plural(k.unread, "row"),
			"of a format that this version cannot read: left alone",
			"locks?state=unread"})
	}
	order := []string{string(stateExpired), string(stateOverdue), string(stateGone)}
	slices.SortStableFunc(found, func(a, b concern) int {
		rank := func(c concern) int { return (slices.Index(order, c.State) + len(order) + 1) % (len(order) + 1) }
		return cmp.Compare(rank(a), rank(b))
	})
	return found
}

// holds says what depends on a session.
func (s *session) holds() string {
	text := "holds no locks"
	if s.Locks > 0 {
		text = "holds " + plural(s.Locks, "lock")
	}
	if len(s.Leads) > 0 {
		text += ", leads " + strings.Join(s.Leads, ", ")
	}
	return text
}

// plural is "1 lock" or "2 locks".
func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return count(n) + " " + what + "s"
}

func (h *handler) overview(ctx context.Context, query url.Values) (*view, error) {
	names, err := h.names.current(ctx)
	if err != nil {
		return nil, err
	}
	v, k, err := h.snapshotView(ctx, "overview", "Overview", query)
	if err != nil {
		return nil, err
	}
	also(v, names)
	concerns := k.concerns()
	var longest []lockCell
	for _, row := range k.locks {
		if row.Held() {
			longest = append(longest, h.lockCell(row))
		}
	}
	slices.SortStableFunc(longest, func(a, b lockCell) int { return cmp.Compare(b.For, a.For) })
	counts := map[string]int{}
	for _, s := range k.sessions {
		counts[s.Name()]++
	}
	vacant := 0
	for _, e := range k.elections {
		if e.Leader == nil {
			vacant++
		}
	}
	var elections []electionCell
	for _, e := range k.elections[:min(len(k.elections), maxLongest)] {
		elections = append(elections, h.electionCell(e))
	}
	pools := k.pools(names.value)
	v.Data = map[string]any{
		"Concerns": concerns[:min(len(concerns), maxConcerns)], "More": max(0, len(concerns)-maxConcerns),
		"Sessions": len(k.sessions), "Counts": counts, "Locks": k.held, "Free": len(k.locks) - k.held,
		"Elections": len(k.elections), "Vacant": vacant, "Pools": len(pools),
		"Longest": longest[:min(len(longest), maxLongest)], "Leaders": elections,
		"Members": pools[:min(len(pools), maxLongest)],
	}
	return v, nil
}

// poolRow is a pool in the list of pools.
type poolRow struct {
	Name    string
	Members int
}

// pools are those of the names, and those that have members.
func (k *snapshot) pools(names []string) []poolRow {
	found := make([]poolRow, 0, len(names))
	for _, name := range names {
		found = append(found, poolRow{name, k.members[name]})
	}
	for name, members := range k.members {
		if !slices.Contains(names, name) {
			found = append(found, poolRow{name, members})
		}
	}
	slices.SortFunc(found, func(a, b poolRow) int { return cmp.Compare(a.Name, b.Name) })
	return found
}

func (h *handler) poolList(ctx context.Context, query url.Values) (*view, error) {
	names, err := h.names.current(ctx)
	if err != nil {
		return nil, err
	}
	v, k, err := h.snapshotView(ctx, "pools", "Pools", query)
	if err != nil {
		return nil, err
	}
	also(v, names)
	v.Search = "pool"
	pools := k.pools(names.value)
	for _, p := range pools {
		if matches(query, p.Name) {
			v.add("pool", p.Name, p)
		}
	}
	v.Data = map[string]any{"Count": len(pools)}
	return v, nil
}
