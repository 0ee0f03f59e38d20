package lease

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/kv"
)

// maxSightings bounds the memory of other clients' sessions (R11). What is forgotten
// is waited for again.
const maxSightings = 10_000

// sightings is what the client has seen of other sessions. All its keys and calls
// share it (R11).
type sightings struct {
	mu   sync.Mutex
	byID map[string]*sighting
}

// sighting is what the client has seen of one session. Its fields belong to whoever
// has the slot, so that one goroutine at a time reads a session and kills it.
type sighting struct {
	slot chan struct{}
	// dead: a strong read found no live row. Ids are random and never used again,
	// so that is for ever.
	dead bool
	// version was first seen at first, and last at last, by receipt of the
	// answers.
	version     uint64
	first, last clock.Reading
	// failure is why a look failed at failed. Who waited for it shares it, and
	// does not repeat it in turn.
	failure       error
	failed        clock.Reading
	ttl, patience time.Duration // of the row; patience is ttl + d
}

// of returns the sighting of a session, forgetting another one if there are too many.
func (s *sightings) of(id string) *sighting {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen, ok := s.byID[id]
	if !ok {
		for old := range s.byID {
			if len(s.byID) < maxSightings {
				break
			}
			delete(s.byID, old)
		}
		seen = &sighting{slot: make(chan struct{}, 1)}
		s.byID[id] = seen
	}
	return seen
}

// isDead decides whether a session that a row just read names is dead (R10). If it is
// not, next is when it is worth asking again. It costs a strong read, unless one less
// than a third of the session's ttl old showed it alive, and a write to kill it.
func (c *Client) isDead(ctx context.Context, id string) (dead bool, next time.Duration, err error) {
	seen, asked := c.sightings.of(id), c.clock.Now()
	select {
	case seen.slot <- struct{}{}:
		defer func() { <-seen.slot }()
	case <-ctx.Done():
		return false, 0, context.Cause(ctx)
	}
	switch {
	case seen.dead:
		return true, 0, nil
	case seen.failure != nil && seen.failed.MonotonicSince(asked) > 0:
		return false, 0, seen.failure
	}
	if next := seen.due(c.clock.Now()); next > 0 {
		return false, next, nil
	}
	pair, err := c.store.Get(ctx, rows.SessionPrefix+id, c.attempts)
	now := c.clock.Now()
	switch {
	case errors.Is(err, kv.ErrKeyNotFound):
		seen.dead = true
		return true, 0, nil
	case err != nil:
		if ctx.Err() == nil { // else it says something of this caller alone
			seen.failure, seen.failed = err, now
		}
		return false, 0, err
	}
	record, err := rows.DecodeSession(pair)
	if err != nil {
		return false, 0, err
	}
	seen.saw(pair, record, now)
	if now.MonotonicSince(seen.first) < seen.patience && !c.longDead(record, now) {
		return false, seen.due(now), nil
	}
	if err := c.kill(ctx, pair, record, seen); err != nil {
		return false, 0, err
	}
	return seen.dead, max(seen.due(c.clock.Now()), c.pollMin), nil
}

// longDead reports whether the wall clocks alone show that the session may be killed
// at once. They are off by no more than WithMaxClockSkew says (R12).
func (c *Client) longDead(record *rows.Session, now clock.Reading) bool {
	if c.maxSkew == 0 || record.RenewedAt.IsZero() {
		return false
	}
	age := now.Wall.Sub(record.RenewedAt)
	return age > record.Lifetime()+record.DriftMargin()+c.maxSkew
}

// saw notes a pair that was received at now. Patience counts from the receipt of the
// first read that showed its version.
func (s *sighting) saw(pair *kv.KVPair, record *rows.Session, now clock.Reading) {
	if pair.Version != s.version {
		s.version, s.first = pair.Version, now
	}
	s.last = now
	s.ttl, s.patience = record.Lifetime(), record.Lifetime()+record.DriftMargin()
}

// due is how long the session need not be looked at: a third of its ttl after the
// last look, but not longer than patience lasts.
func (s *sighting) due(now clock.Reading) time.Duration {
	if s.last.IsZero() {
		return 0
	}
	return min(s.ttl/3-now.MonotonicSince(s.last), s.patience-now.MonotonicSince(s.first))
}

// kill deletes a session whose version did not change for ttl + d (R10). Observation
// alone proves nothing. This write, on the version observed, proves that no
// heartbeat came since, and prevents any that is late.
func (c *Client) kill(ctx context.Context, pair *kv.KVPair, record *rows.Session, seen *sighting) error {
	err := c.store.AtomicDelete(ctx, pair.Key, pair, c.attempts)
	current, conflict := rows.CurrentPair(err)
	switch {
	case err == nil:
		c.emit(Event{Type: EventSessionKilled, Session: pair.Key[len(rows.SessionPrefix):], Owner: record.Owner})
		seen.dead = true
	case conflict && current == nil:
		seen.dead = true
	case current != nil:
		alive, err := rows.DecodeSession(current)
		if err != nil {
			return err
		}
		seen.saw(current, alive, c.clock.Now())
	default:
		return err
	}
	return nil
}
