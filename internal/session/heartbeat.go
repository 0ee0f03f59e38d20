package session

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/kv"
)

// heartbeatLoop is the goroutine that heartbeats the session until it is lost (R2,
// R7). One heartbeat at a time is under way.
func (s *Session) heartbeatLoop() {
	defer close(s.beating)
	interval := s.Interval
	pause := s.untilNext()
	failing := false
	for s.waitBeat(pause) {
		began := s.Clock.Now()
		again, err := s.renew()
		took := s.Clock.Now().MonotonicSince(began)
		switch {
		case again:
			pause = 0
		case err != nil:
			if left := s.Remaining(); left > 0 {
				s.Beaten(s, left, took, err, failing)
			}
			s.mu.Lock()
			s.failure = err
			s.mu.Unlock()
			failing = true
			pause = min(interval, max(50*time.Millisecond, s.TTL/30))
		default:
			failing = false
			s.Beaten(s, s.Remaining(), took, nil, false)
			pause = s.untilNext()
		}
	}
}

// untilNext is when the next heartbeat is due: as long after the last one was
// sent as its row says, however long the answer took. The trust does not last
// longer for it.
func (s *Session) untilNext() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.record.NextBeat() - s.Clock.Now().MonotonicSince(s.renewed)
}

// nextBeat draws how long after a heartbeat the next one is due. The row says it,
// so that whoever waits looks when it is there (R10).
func (c *Config) nextBeat() int64 {
	return clock.Spread(c.Clock, c.Interval, 0.1).Milliseconds()
}

// waitBeat waits until the next heartbeat is due, or asked for. It reports whether
// the session still wants one.
func (s *Session) waitBeat(pause time.Duration) bool {
	t := s.Clock.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C():
	case <-s.now:
	case <-s.ctx.Done():
	}
	return s.ctx.Err() == nil
}

// HeartbeatNow asks for a heartbeat at once.
func (s *Session) HeartbeatNow() {
	select {
	case s.now <- struct{}{}:
	default:
	}
}

// Refresh asks for heartbeats until one is acknowledged that satisfies enough,
// the session is lost, ctx ends, or the time that a call waits for it is over.
func (s *Session) Refresh(ctx context.Context, enough func() bool) error {
	timeout := s.Timeout
	t := s.Clock.NewTimer(timeout)
	defer t.Stop()
	for {
		s.mu.Lock()
		news := s.news
		s.mu.Unlock()
		if reason := s.Reason(); reason != "" {
			return s.Cause(reason)
		}
		if enough() {
			return nil
		}
		s.HeartbeatNow()
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
func (s *Session) trouble() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure == nil {
		return kv.ErrUncertain
	}
	return s.failure
}

// renew sends one heartbeat. again: the row was at a version of ours that was not
// known here, so beat at once (R2).
func (s *Session) renew() (again bool, err error) {
	if reason := s.Reason(); reason != "" {
		return false, s.Cause(reason) // a heartbeat now would only make others wait
	}
	nonce := rows.RandomID(8)
	joined, joinings := s.Groups.names()
	s.mu.Lock()
	t0 := s.Clock.Now() // before the first attempt is on the wire (R3)
	s.record.Nonce, s.record.Joined = nonce, joined
	s.record.RenewedAt, s.record.Next = t0.Wall, s.nextBeat()
	record, previous := s.record, s.pair
	record.Revoked = s.unreceiptedLocked(t0)
	s.unresolved = append(s.unresolved, nonce)
	budget := min(s.Interval, s.remainingLocked())
	s.mu.Unlock()

	ctx, cancel := s.Clock.WithTimeout(s.ctx, max(budget, time.Millisecond))
	defer cancel()
	pair, err := s.Heartbeats.AtomicPut(ctx, previous.Key, append(record.Options(previous, s.Attempts), kv.Urgent())...)
	if err == nil {
		s.acknowledge(pair, record, joinings, t0)
		return false, nil
	}
	current, conflict := rows.CurrentPair(err)
	switch {
	case current != nil && s.adopt(current):
		return true, nil
	case conflict, current != nil && current.Version != previous.Version:
		s.Lose(Killed, conflict && current == nil)
	}
	return false, err
}

// acknowledge extends the trust by a heartbeat that is known to be applied, unless
// the old deadline has passed meanwhile (H21).
func (s *Session) acknowledge(pair *kv.KVPair, record rows.Session, joinings uint64, t0 clock.Reading) {
	if s.Reason() != "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost != "" || s.remainingLocked() <= 0 {
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
func (s *Session) adopt(current *kv.KVPair) bool {
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
