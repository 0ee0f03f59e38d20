package lease

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/kv"
)

// beat is the goroutine that heartbeats the session until it is lost (R2, R7). One
// heartbeat at a time is under way.
func (s *session) beat() {
	defer close(s.beating)
	interval := s.client.heartbeat
	pause := clock.Spread(s.client.clock, interval, 0.1) - s.age()
	failing := false
	for s.rest(pause) {
		again, err := s.renew()
		switch {
		case again:
			pause = 0
		case err != nil:
			if left := s.remaining(); left > 0 {
				s.client.emit(Event{Type: EventJeopardy, Session: s.id, Remaining: left, Err: err, quiet: failing})
			}
			s.mu.Lock()
			s.failure = err
			s.mu.Unlock()
			failing = true
			pause = min(interval, max(50*time.Millisecond, s.client.ttl/30))
		default:
			failing = false
			s.client.emit(Event{Type: EventHeartbeat, Session: s.id, Remaining: s.remaining()})
			pause = clock.Spread(s.client.clock, interval, 0.1) - s.age()
		}
	}
}

// age is the time since the session was last renewed. The next heartbeat is
// due an interval after that, however long the answer took: the trust does not
// last longer for it.
func (s *session) age() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.client.clock.Now().MonotonicSince(s.renewed)
}

// rest waits until the next heartbeat is due, or asked for. It reports whether the
// session still wants one.
func (s *session) rest(pause time.Duration) bool {
	t := s.client.clock.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C():
	case <-s.nudged:
	case <-s.ctx.Done():
	}
	return s.ctx.Err() == nil
}

// nudge asks for a heartbeat at once.
func (s *session) nudge() {
	select {
	case s.nudged <- struct{}{}:
	default:
	}
}

// refresh asks for heartbeats until one is acknowledged that satisfies enough,
// the session is lost, ctx ends, or the time that a call waits for it is over.
func (s *session) refresh(ctx context.Context, enough func() bool) error {
	timeout := s.client.sessionTimeout()
	t := s.client.clock.NewTimer(timeout)
	defer t.Stop()
	for {
		s.mu.Lock()
		news := s.news
		s.mu.Unlock()
		if lost := s.err(); lost != nil {
			return lost
		}
		if enough() {
			return nil
		}
		s.nudge()
		select {
		case <-news:
		case <-s.ctx.Done():
		case <-t.C():
			return fmt.Errorf("lease: no heartbeat was acknowledged within %v: %w", timeout, s.trouble())
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// trouble is why the last heartbeat failed. While the first that fails is on
// its way, its outcome is unknown.
func (s *session) trouble() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure == nil {
		return kv.ErrUncertain
	}
	return s.failure
}

// renew sends one heartbeat. again: the row was at a version of ours that was not
// known here, so beat at once (R2).
func (s *session) renew() (again bool, err error) {
	if lost := s.err(); lost != nil {
		return false, lost // a heartbeat now would only make others wait
	}
	c := s.client
	beat := rows.RandomID(8)
	joined, joinings := c.groups()
	s.mu.Lock()
	t0 := c.clock.Now() // before the first attempt is on the wire (R3)
	s.record.Nonce, s.record.RenewedAt, s.record.Joined = beat, t0.Wall, joined
	record, previous := s.record, s.pair
	record.Revoked = s.unreceiptedLocked(t0)
	s.unresolved = append(s.unresolved, beat)
	budget := min(c.heartbeat, s.remainingLocked())
	s.mu.Unlock()

	ctx, cancel := c.clock.WithTimeout(s.ctx, max(budget, time.Millisecond))
	defer cancel()
	pair, err := c.heartbeats.AtomicPut(ctx, previous.Key, record.Options(previous, c.attempts)...)
	if err == nil {
		s.acknowledge(pair, record, joinings, t0)
		return false, nil
	}
	current, conflict := rows.CurrentPair(err)
	switch {
	case current != nil && s.adopt(current):
		return true, nil
	case conflict, current != nil && current.Version != previous.Version:
		s.lose(ReasonKilled, conflict && current == nil)
	}
	return false, err
}

// acknowledge extends the trust by a heartbeat that is known to be applied, unless
// the old deadline has passed meanwhile (H21).
func (s *session) acknowledge(pair *kv.KVPair, record rows.Session, joinings uint64, t0 clock.Reading) {
	if s.err() != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost != nil || s.remainingLocked() <= 0 {
		return // the timer or the next question latches it
	}
	s.pair, s.renewed, s.acked, s.unresolved = pair, t0, record.Nonce, nil
	s.record.Revoked, s.joinings, s.failure = record.Revoked, joinings, nil
	close(s.news)
	s.news = make(chan struct{})
}

// adopt takes over the version of a row that a heartbeat of ours of unknown outcome
// has written (R2). It reports whether current is such a row. Any other row is not
// ours: it is a clone's, a restored table's, or was edited.
func (s *session) adopt(current *kv.KVPair) bool {
	record, err := rows.DecodeSession(current)
	if err != nil {
		return false
	}
	s.mu.Lock()
	if current.Version <= s.pair.Version || (record.Nonce != s.acked && !slices.Contains(s.unresolved, record.Nonce)) {
		s.mu.Unlock()
		return false
	}
	s.pair, s.record.Revoked = current, record.Revoked
	s.mu.Unlock()
	s.revoke(record.Revoked)
	return true
}
