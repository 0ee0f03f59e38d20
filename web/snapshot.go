package web

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// snapshot is what there is but for partitions and slots, of which there may be many.
type snapshot struct {
	sessions []*session
	byID     map[string]*session
	// locks are the keys that are held or keep a value, in their order, without
	// those of elections, pools and slots.
	locks     []*lockRow
	elections []*electionRow
	// members are how many members each pool has that has any.
	members map[string]int
	// held is how many of the locks somebody holds, unread how many rows could not
	// be read.
	held, unread int
	// shortest is the least TTL of a session, 0: there is none.
	shortest time.Duration
}

// lockRow is a key.
type lockRow struct {
	*lease.Holder
	// State is that of the holder's session, "" if nobody holds the key.
	State state
	// Host is the holder's.
	Host string
	// Problem is why the row cannot be read.
	Problem string
}

// electionRow is an election.
type electionRow struct {
	Name string
	// Leader is its lease, nil: nobody leads.
	Leader     *lockRow
	Candidates []*session
}

// skipped are what the keys begin with that a snapshot leaves out, in order.
var skipped = []string{rows.OnceKeys, rows.PoolKeys}

// beyond is behind all keys that begin with prefix, but for such as nobody makes.
func beyond(prefix string) string { return rows.LeasePrefix + prefix + "\U0010ffff" }

// spare is how many rows more than last time a page of a listing has room for. So
// the page that ends where skipped keys begin reads few of them.
const spare = 50

// reader makes snapshots, one at a time.
type reader struct {
	client  *lease.Client
	clock   clock.Clock
	watcher watcher
	// counts are how many keys there were in the latest snapshot before, between and
	// behind the skipped ones.
	counts []int
}

// read makes a snapshot: a listing of the sessions, and one for each stretch of
// keys between the skipped ones.
func (r *reader) read(ctx context.Context) (*snapshot, error) {
	k := &snapshot{byID: map[string]*session{}, members: map[string]int{}}
	elections := map[string]*electionRow{}
	// Sessions after what names them: who is missing was not only too late.
	if err := r.keys(ctx, func(row *lockRow) { k.addKey(row, elections) }); err != nil {
		return nil, err
	}
	if err := k.readSessions(ctx, r.client); err != nil {
		return nil, err
	}
	r.watcher.observe(k.sessions, r.clock.Now())
	k.join(elections)
	r.judge(k)
	return k, nil
}

// keys reads the keys but for the skipped ones. One that cannot be read has its key
// and a problem.
func (r *reader) keys(ctx context.Context, add func(*lockRow)) error {
	if r.counts == nil {
		r.counts = make([]int, len(skipped)+1)
	}
	after := ""
	for i := range r.counts {
		options := []kv.ReadOption{kv.EventuallyConsistent(), kv.WithLimit(r.counts[i] + spare)}
		if i > 0 {
			after = skipped[i-1]
			options = append(options, kv.WithStartAfter(beyond(after)))
		}
		n := 0
		for h, err := range r.client.Keys(ctx, "", options...) {
			if h == nil {
				return err
			}
			if i < len(skipped) && h.Key >= skipped[i] {
				break
			}
			if n++; after == "" || !strings.HasPrefix(h.Key, after) {
				add(newLockRow(h, err))
			}
		}
		r.counts[i] = n
	}
	return nil
}

func newLockRow(h *lease.Holder, err error) *lockRow {
	row := &lockRow{Holder: h}
	if err != nil {
		row.Problem = err.Error()
	}
	return row
}

// addKey adds a key to the locks or to the elections.
func (k *snapshot) addKey(row *lockRow, elections map[string]*electionRow) {
	if row.Problem != "" {
		k.unread++
	}
	name, ok := strings.CutPrefix(row.Key, rows.ElectionKeys)
	switch {
	case ok && name != "":
		e := electionOf(elections, name)
		if row.Held() || row.Problem != "" {
			e.Leader = row
		}
	default:
		if k.locks = append(k.locks, row); row.Held() {
			k.held++
		}
	}
}

func electionOf(elections map[string]*electionRow, name string) *electionRow {
	if elections[name] == nil {
		elections[name] = &electionRow{Name: name}
	}
	return elections[name]
}

// readSessions reads the sessions, in the order of their owners.
func (k *snapshot) readSessions(ctx context.Context, client *lease.Client) error {
	for m, err := range client.Members(ctx, kv.EventuallyConsistent()) {
		if m == nil {
			return err
		}
		s := &session{Member: m}
		if err != nil {
			s.Problem = err.Error()
			k.unread++
		} else if k.shortest == 0 || m.TTL < k.shortest {
			k.shortest = m.TTL
		}
		k.sessions = append(k.sessions, s)
		k.byID[m.Session] = s
	}
	slices.SortFunc(k.sessions, func(a, b *session) int {
		return cmp.Or(cmp.Compare(a.Owner, b.Owner), cmp.Compare(a.Session, b.Session))
	})
	return nil
}

// join adds the candidates to the elections, and counts the members of pools.
func (k *snapshot) join(elections map[string]*electionRow) {
	for _, s := range k.sessions {
		for _, group := range s.Joined {
			if name, ok := strings.CutPrefix(group, rows.ElectionKeys); ok && name != "" {
				e := electionOf(elections, name)
				e.Candidates = append(e.Candidates, s)
			}
			if name, ok := strings.CutPrefix(group, rows.PoolKeys); ok && name != "" {
				k.members[name]++
			}
		}
	}
	for _, e := range elections {
		k.elections = append(k.elections, e)
	}
	slices.SortFunc(k.elections, func(a, b *electionRow) int { return cmp.Compare(a.Name, b.Name) })
}

// judge says of each holder what is known of its session.
func (r *reader) judge(k *snapshot) {
	held := slices.Clone(k.locks)
	for _, e := range k.elections {
		if e.Leader == nil {
			continue
		}
		held = append(held, e.Leader)
		if s := k.byID[e.Leader.Session]; s != nil {
			s.Leads = append(s.Leads, e.Name)
		}
	}
	absent := map[string]bool{}
	for _, row := range held {
		if row.Held() && k.byID[row.Session] == nil {
			absent[row.Session] = true
		}
	}
	states := r.watcher.absent(absent)
	for _, row := range held {
		if s := k.byID[row.Session]; s != nil {
			row.State, row.Host = s.State, s.Host
		} else {
			row.State = states[row.Session]
		}
	}
	for _, row := range k.locks {
		if s := k.byID[row.Session]; s != nil {
			s.Locks++
		}
	}
}
