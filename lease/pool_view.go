package lease

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
)

// partitionRow is the row of a partition as it was listed.
type partitionRow struct {
	name   string
	pair   *kv.KVPair
	record *leaseRecord
}

// listing are the rows of a pool.
type listing struct {
	// rows are the partitions, in the order of their names.
	rows []partitionRow
	// unread is how many rows could not be read: what they say is not known.
	unread int
}

// longestLook bounds a look at the pool, unless the plan interval is longer: a request that hangs must not end the planning.
const longestLook = 10 * time.Second

// view is what a member sees of its pool: by listings that may be a little old, so that it proves nothing (R10).
type view struct {
	began   clock.Reading
	members []planMember
	// sessions are the ids of all sessions that were listed and are not known to be dead, of this pool or not.
	sessions map[string]bool
	listing
	// patience is how soon the next session may turn out to be dead, if it is not seen to beat.
	patience time.Duration
}

// look makes a view of the pool. known are the rows of an earlier one, to spare the decoding of those that have not changed. It kills
// the sessions of members that it has seen dead for long enough (R10), so that an idle member that crashed does not keep its share.
func (p *Pool) look(ctx context.Context, known []partitionRow) (*view, error) {
	ctx, cancel := p.client.clock.WithTimeout(ctx, max(p.interval, longestLook))
	defer cancel()
	v := &view{began: p.client.clock.Now(), sessions: map[string]bool{}, patience: 2 * p.interval}
	var err error
	if v.listing, err = p.listRows(ctx, known, kv.EventuallyConsistent()); err != nil {
		return nil, err
	}
	for pair, err := range kv.All(ctx, p.client.store, sessionPrefix, kv.EventuallyConsistent(), p.client.attempts) {
		if err != nil {
			return nil, err
		}
		p.lookAt(ctx, v, pair)
	}
	return v, nil
}

// has reports whether a session was listed as a member's.
func (v *view) has(session string) bool {
	return slices.ContainsFunc(v.members, func(m planMember) bool { return m.id == session })
}

// listRows returns the rows of the pool's partitions. What is not a partition is left out.
func (p *Pool) listRows(ctx context.Context, known []partitionRow, options ...kv.ReadOption) (listing, error) {
	c, prefix := p.client, leasePrefix+p.key("")
	options = append(options, c.attempts)
	l := listing{rows: make([]partitionRow, 0, len(known))}
	for pair, err := range kv.All(ctx, c.store, prefix, options...) {
		if err != nil {
			return listing{}, err
		}
		name := strings.TrimPrefix(pair.Key, prefix)
		for len(known) > 0 && known[0].name < name {
			known = known[1:]
		}
		if len(known) > 0 && known[0].name == name && known[0].pair.Version == pair.Version {
			l.rows = append(l.rows, known[0])
			continue
		}
		record, err := decodeLease(pair)
		if err != nil {
			p.report(slog.LevelWarn, "a row of the pool cannot be read", "error", err)
			l.unread++
			continue
		}
		if record.Partition != nil {
			l.rows = append(l.rows, partitionRow{name: name, pair: pair, record: record})
		}
	}
	return l, nil
}

// lookAt adds a listed session to the view, unless it is dead.
func (p *Pool) lookAt(ctx context.Context, v *view, pair *kv.KVPair) {
	c, id := p.client, strings.TrimPrefix(pair.Key, sessionPrefix)
	record, err := decodeSession(pair)
	if err != nil {
		v.sessions[id] = true // R18: never dead
		return
	}
	joined := slices.Contains(record.Joined, p.group())
	if joined && id != c.sessionID() {
		patience := c.noticed(id, pair, record)
		if patience <= 0 {
			dead, next, err := c.isDead(ctx, id)
			if dead {
				return
			}
			if err != nil {
				p.report(slog.LevelDebug, "a silent member cannot be asked after", "session", id, "error", err)
			}
			patience = max(next, c.pollMin)
		}
		v.patience = min(v.patience, max(patience, c.pollMin))
	}
	if c.isBuried(id) {
		return
	}
	v.sessions[id] = true
	if !joined {
		return
	}
	member := planMember{id: id, cordoned: slices.Contains(record.Joined, p.cordonGroup())}
	for _, group := range record.Joined {
		if most, ok := strings.CutPrefix(group, p.mostGroup()); ok {
			member.most, _ = strconv.Atoi(most) // what is no number is no bound
		}
	}
	v.members = append(v.members, member)
}

// done reports whether there are partitions and all of them are known to be done.
func (l *listing) done() bool {
	for _, r := range l.rows {
		if !r.record.Partition.Done {
			return false
		}
	}
	return len(l.rows) > 0 && l.unread == 0
}

// sessionID is the id of the client's session, "" if it has none now.
func (c *Client) sessionID() string {
	c.mu.Lock()
	s := c.session
	c.mu.Unlock()
	if s == nil || s.err() != nil {
		return ""
	}
	return s.id
}

// noticed notes a session row that a listing showed, and returns how long it has to stay as it is to be dead: R10's patience counts from the receipt
// of the first read that showed its version, whatever read. That it is alive, a listing does not tell as a strong read does.
func (c *Client) noticed(id string, pair *kv.KVPair, record *sessionRecord) time.Duration {
	seen := c.sightings.of(id)
	select {
	case seen.slot <- struct{}{}:
		defer func() { <-seen.slot }()
	default:
		return record.ttl() // somebody is just asking
	}
	now := c.clock.Now()
	if pair.Version > seen.version {
		seen.version, seen.first = pair.Version, now
		seen.ttl, seen.patience = record.ttl(), record.ttl()+record.driftMargin()
	}
	if c.longDead(record, now) {
		return 0
	}
	return seen.patience - now.MonotonicSince(seen.first)
}

// isBuried reports whether a session is known to be dead, which a listing may not show yet.
func (c *Client) isBuried(id string) bool {
	c.sightings.mu.Lock()
	seen, ok := c.sightings.byID[id]
	c.sightings.mu.Unlock()
	if !ok {
		return false
	}
	select {
	case seen.slot <- struct{}{}:
		defer func() { <-seen.slot }()
		return seen.dead
	default:
		return false
	}
}
