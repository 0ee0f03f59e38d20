package lease

import (
	"context"
	"fmt"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/retry"
	"github.com/dynalock/dynalock/internal/session"
)

// openSession writes a session row under a new id (R1).
func (c *Client) openSession(ctx context.Context) (*session.Session, error) {
	s, unlanded, err := session.Open(ctx, session.Config{
		Store: c.store, Heartbeats: c.heartbeats, Attempts: c.attempts, Clock: c.clock,
		TTL: c.ttl, Margin: c.margin, Interval: c.heartbeat, Timeout: c.sessionTimeout(),
		Owner: c.owner, Metadata: c.metadata, Groups: &c.groups,
		Cause: func(reason string) error { return &LostError{Reason: Reason(reason)} },
		Start: c.life.Start, Beaten: c.sessionBeaten, Lost: c.sessionLost, Revoked: c.sessionRevoked,
	})
	if unlanded != nil {
		c.endUnlanded(unlanded)
	}
	if err == nil {
		c.emit(Event{Type: EventSessionOpened, Session: s.ID(), TTL: c.ttl, Remaining: s.Remaining()})
	}
	return s, err
}

// endUnlanded ends a session row that may have been created, or may be, in the
// background. Others would count it as a member until somebody proved it dead.
// All such rows are ended in turn: each attempt to open a session in an outage
// leaves one, and they must not be more of a load with every one.
func (c *Client) endUnlanded(u *session.Unlanded) {
	c.mu.Lock()
	c.unlanded[u] = struct{}{}
	first := len(c.unlanded) == 1
	c.mu.Unlock()
	if !first {
		return // whoever ends the others ends it
	}
	c.life.Start(func(ctx context.Context) {
		// Only ctx's end stops it: then Close goes on with the rest.
		_ = retry.UntilKnown(ctx, c.clock, func() error { return c.tryEndUnlanded(ctx) })
	})
}

// tryEndUnlanded ends such rows until there is none, or one cannot be ended now.
// The next call begins with any of them, so that none keeps the others for long.
func (c *Client) tryEndUnlanded(ctx context.Context) error {
	for {
		c.mu.Lock()
		var next *session.Unlanded
		for next = range c.unlanded {
			break
		}
		c.mu.Unlock()
		if err := next.TryEnd(ctx); err != nil {
			return err
		}
		c.mu.Lock()
		delete(c.unlanded, next)
		left := len(c.unlanded)
		c.mu.Unlock()
		if left == 0 {
			return nil
		}
	}
}

// sessionBeaten tells of a heartbeat.
func (c *Client) sessionBeaten(s *session.Session, left, took time.Duration, err error, again bool) {
	e := Event{Type: EventHeartbeat, Session: s.ID(), Remaining: left, Took: took, Err: err}
	if err != nil {
		e.Type, e.quiet = EventJeopardy, again
	}
	c.emit(e)
}

// sessionLost takes note of a loss. The next acquire opens a new session. The old
// one is ended, so that nobody waits for its row, but not before its TTL (R8).
func (c *Client) sessionLost(s *session.Session, why string) {
	reason, latched := Reason(why), c.clock.Now()
	c.mu.Lock()
	if c.session == s {
		c.session = nil
	}
	if reason != ReasonClosed {
		c.ending[s] = latched
	}
	c.mu.Unlock()
	if reason != ReasonClosed {
		c.emit(Event{Type: EventSessionLost, Session: s.ID(), Reason: reason})
	}
	if c.observer != nil {
		for _, l := range c.leasesOf(s) {
			l.emitEnd(reason, false)
		}
	}
	if reason == ReasonClosed {
		return
	}
	c.rejoin()
	c.life.Start(func(ctx context.Context) {
		if c.waitOutTTL(ctx, s, latched) != nil || s.End(ctx) != nil {
			return // only ctx's end stops it: then Close goes on with it
		}
		c.mu.Lock()
		delete(c.ending, s)
		c.mu.Unlock()
		if s.IsDeleted() {
			c.markDead(s)
		}
	})
}

// waitOutTTL waits until the TTL has passed since s was last renewed, by the
// monotonic clock alone, and the margin since the loss was noticed. A clock that
// stepped may have brought the loss early, and holders need their time to stop.
func (c *Client) waitOutTTL(ctx context.Context, s *session.Session, latched clock.Reading) error {
	renewed := s.Renewed()
	for {
		now := c.clock.Now()
		wait := max(c.ttl-now.MonotonicSince(renewed), c.margin-now.MonotonicSince(latched))
		if wait <= 0 {
			return nil
		}
		if err := clock.Sleep(ctx, c.clock, wait); err != nil {
			return err
		}
	}
}

// markDead spares the client's own waiters the wait for its own old session.
func (c *Client) markDead(s *session.Session) {
	c.others.MarkDead(s.ID())
	c.keys.mu.Lock()
	defer c.keys.mu.Unlock()
	for _, g := range c.keys.states {
		g.wake()
	}
}

// revocation is the name of an acquisition in its session's row (R17).
func revocation(key string, token uint64) string { return fmt.Sprintf("%s@%d", key, token) }

// sessionRevoked ends the leases that operators have taken from s, and gives
// their keys back once their holders have had their margin to stop (R17).
func (c *Client) sessionRevoked(s *session.Session, entries map[string]struct{}) {
	for _, l := range c.leasesOf(s) {
		if _, ok := entries[revocation(l.key, l.token)]; ok {
			l.lose(ReasonRevoked)
			c.life.Start(func(ctx context.Context) { l.releaseAfterMargin(ctx) })
		}
	}
}
