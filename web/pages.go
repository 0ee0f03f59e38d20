package web

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dynalock/dynalock/internal/rows"
)

// How many rows a page has.
const (
	rowsOfLocks      = 1000
	rowsOfPartitions = 200
)

// newView begins a page that shows what r has.
func newView[T any](h *handler, name, title string, query url.Values, r reading[T]) *view {
	v := &view{Name: name, Nav: name, Title: title, Query: query, Acts: h.authorize != nil, status: http.StatusOK,
		next: r.next}
	v.Every = r.next + h.clock.Now().MonotonicSince(r.tried)
	if r.err != nil {
		v.Late = r.err.Error()
		v.status = http.StatusServiceUnavailable
	}
	if !r.at.IsZero() {
		v.Read = r.at.Wall.UTC().Format("15:04:05 UTC")
		v.status = http.StatusOK
	}
	return v
}

// also makes v a page that shows what another reading has, too.
func also[T any](v *view, r reading[T]) {
	v.next = min(v.next, r.next)
	if r.err != nil {
		v.Late = r.err.Error()
	}
	if r.at.IsZero() {
		v.status = http.StatusServiceUnavailable
	}
}

// snapshotView begins a page that shows a snapshot. k is never nil.
func (h *handler) snapshotView(ctx context.Context, name, title string, query url.Values) (*view, *snapshot, error) {
	r, err := h.snapshots.current(ctx)
	if err != nil {
		return nil, nil, err
	}
	k := r.value
	if k == nil {
		k = &snapshot{}
	}
	v := newView(h, name, title, query, r)
	v.Trouble = k.trouble()
	return v, k, nil
}

// trouble counts the sessions that are overdue or expired, and the locks whose
// holders are gone.
func (k *snapshot) trouble() (n int) {
	for _, s := range k.sessions {
		if s.State.troubled() {
			n++
		}
	}
	for _, row := range k.locks {
		if row.State == stateGone {
			n++
		}
	}
	return n
}

// matches reports whether one of the texts has what was searched for.
func matches(query url.Values, texts ...string) bool {
	want := strings.ToLower(query.Get("q"))
	return slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(strings.ToLower(text), want) })
}

// paged returns the rows of the page that the query asks for, and links to the others.
func paged[T any](v *view, all []T, per int) []T {
	pages := max(1, (len(all)+per-1)/per)
	number, _ := strconv.Atoi(v.Query.Get("page")) // what is no number is the first
	number = min(max(number, 1), pages)
	for n := 1; n <= pages && pages > 1; n++ {
		query := url.Values{}
		for _, name := range []string{"q", "state", "session", "name"} {
			if v.Query.Get(name) != "" {
				query.Set(name, v.Query.Get(name))
			}
		}
		query.Set("page", strconv.Itoa(n))
		v.Pages = append(v.Pages, pageLink{Number: n, Address: "?" + query.Encode(), Current: n == number})
	}
	return all[(number-1)*per : min(number*per, len(all))]
}

// choice is a state by which a table can be narrowed.
type choice struct {
	Name    string
	Count   int
	Address string
	Current bool
}

// narrow returns the rows that match what was searched for and have the state that
// was chosen, and the states that there are to choose from.
func narrow[T any](
	v *view, all []T, states []string, state func(T) string, match func(T) bool,
) (chosen []T, choices []choice) {
	keep := url.Values{}
	for _, name := range []string{"q", "session", "name"} {
		if v.Query.Get(name) != "" {
			keep.Set(name, v.Query.Get(name))
		}
	}
	counts, want, total := map[string]int{}, v.Query.Get("state"), 0
	for _, row := range all {
		if !match(row) {
			continue
		}
		total++
		counts[state(row)]++
		if want == "" || want == state(row) {
			chosen = append(chosen, row)
		}
	}
	choices = []choice{{"all", total, "?" + keep.Encode(), want == ""}}
	for _, name := range states {
		if counts[name] > 0 || want == name {
			keep.Set("state", name)
			choices = append(choices, choice{name, counts[name], "?" + keep.Encode(), want == name})
		}
	}
	return chosen, choices
}

// ofSession reports whether a row of a session is to be shown.
func ofSession(query url.Values, session string) bool {
	return query.Get("session") == "" || query.Get("session") == session
}

// lockStates are what state returns, in the order in which they are shown.
var lockStates = []string{
	string(stateLive), string(stateWatched), string(stateOverdue), string(stateExpired), string(stateGone), "free",
	"unread",
}

// state says how it stands with a key: that of its holder, or "free".
func (row *lockRow) state() string {
	switch {
	case row.Problem != "":
		return "unread"
	case row.Held():
		return string(row.State)
	}
	return "free"
}

// lockCell is a row of the table of locks.
type lockCell struct {
	*lockRow
	// Name is State, and says "free" of what nobody holds.
	Name string
	// For is how long it is held, by the clock of its holder.
	For time.Duration
	// Acts: the page offers actions.
	Acts bool
}

func (h *handler) lockCell(row *lockRow) lockCell {
	c := lockCell{lockRow: row, Name: row.state(), Acts: h.authorize != nil}
	if row.Held() {
		c.For = h.clock.Now().Wall.Sub(row.Acquired)
	}
	return c
}

func (h *handler) locks(ctx context.Context, query url.Values) (*view, error) {
	v, k, err := h.snapshotView(ctx, "locks", "Locks", query)
	if err != nil {
		return nil, err
	}
	v.Search = "key, owner or host"
	chosen, choices := narrow(v, k.locks, lockStates, (*lockRow).state, func(row *lockRow) bool {
		return matches(query, row.Key, row.Owner, row.Host) && ofSession(query, row.Session)
	})
	for _, row := range paged(v, chosen, rowsOfLocks) {
		v.add("lock", row.Key, h.lockCell(row))
	}
	v.Data = map[string]any{"Choices": choices, "Session": k.byID[query.Get("session")]}
	return v, nil
}

var sessionStates = []string{string(stateLive), string(stateWatched), string(stateOverdue), string(stateExpired),
	"unread"}

func (h *handler) sessions(ctx context.Context, query url.Values) (*view, error) {
	v, k, err := h.snapshotView(ctx, "sessions", "Sessions", query)
	if err != nil {
		return nil, err
	}
	v.Search = "owner or host"
	chosen, choices := narrow(v, k.sessions, sessionStates, (*session).Name, func(s *session) bool {
		return matches(query, s.Owner, s.Host, s.Session)
	})
	for _, s := range paged(v, chosen, rowsOfLocks) {
		v.add("session", s.Session, h.sessionCell(s))
	}
	v.Data = map[string]any{"Choices": choices}
	return v, nil
}

// sessionCell is a row of the table of sessions.
type sessionCell struct {
	*session
	// Age is how old it is, by its own clock.
	Age time.Duration
	// Groups lead to what it takes part in.
	Groups []link
}

func (h *handler) sessionCell(s *session) sessionCell {
	c := sessionCell{session: s, Age: h.clock.Now().Wall.Sub(s.Since)}
	for _, group := range s.Joined {
		if name, ok := strings.CutPrefix(group, rows.ElectionKeys); ok {
			c.Groups = append(c.Groups, link{Title: group, Address: "elections?" + url.Values{"q": {name}}.Encode()})
		} else if name, ok := strings.CutPrefix(group, rows.PoolKeys); ok {
			c.Groups = append(c.Groups, link{Title: group, Address: "pool?" + url.Values{"name": {name}}.Encode()})
		}
	}
	return c
}

// Name is State, and says "unread" of what cannot be read.
func (s *session) Name() string {
	if s.Problem != "" {
		return "unread"
	}
	return string(s.State)
}

// Width is how much of the TTL the session was silent, in percent, for a bar.
func (s *session) Width() int {
	if s.TTL <= 0 {
		return 0
	}
	return int(min(s.Silent*100/s.TTL, 100))
}

// electionCell is a row of the table of elections.
type electionCell struct {
	*electionRow
	Leads *lockCell
	// Value is what the leader proclaims, Hidden how many bytes of it are not shown.
	Value  string
	Hidden int
	Acts   bool
}

func (h *handler) electionCell(e *electionRow) electionCell {
	c := electionCell{electionRow: e, Acts: h.authorize != nil}
	if e.Leader != nil {
		leads := h.lockCell(e.Leader)
		c.Leads = &leads
		c.Hidden = len(e.Leader.Value)
		if h.values {
			c.Value = printable(e.Leader.Value)
		}
	}
	return c
}

func (h *handler) elections(ctx context.Context, query url.Values) (*view, error) {
	v, k, err := h.snapshotView(ctx, "elections", "Elections", query)
	if err != nil {
		return nil, err
	}
	v.Search = "election or leader"
	for _, e := range k.elections {
		owner := ""
		if e.Leader != nil {
			owner = e.Leader.Owner
		}
		if matches(query, e.Name, owner) {
			v.add("election", e.Name, h.electionCell(e))
		}
	}
	v.Data = map[string]any{"Count": len(k.elections), "Key": rows.ElectionKeys}
	return v, nil
}
