package lease

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/dynalock/dynalock/internal/session"
)

// Close ends the client, in three steps:
//
//  1. Every lease ends, with ReasonClosed as its context's cause. New acquires
//     are refused.
//  2. Close waits, until ctx ends, for Release of every lease: its holder may
//     still be stopping its work. Give ctx a deadline.
//  3. It deletes the session, which frees whatever is left. That is one write.
//     While the store does not answer, Close tries for a third of the TTL, 2 to
//     10 s, whether or not ctx has ended. A session that is being opened is
//     waited for as long, and deleted too.
//
// On success nothing of this client is held and nothing of it runs. An error
// means one of two things. Either ctx ended before every lease was released: they
// are free all the same. Or the session could not be deleted: then the leases
// releaseSoon on after the TTL. Closing again returns nil.
func (c *Client) Close(ctx context.Context) error {
	if !c.life.BeginClose() {
		return c.life.AwaitClosed(ctx)
	}
	defer c.life.EndClose()
	c.mu.Lock()
	if c.session != nil {
		c.session.EndLeases(&LostError{Reason: ReasonClosed})
	}
	c.mu.Unlock()

	err := c.life.AwaitIdle(ctx)
	detached, cancel := c.clock.WithTimeout(context.WithoutCancel(ctx), c.cleanupTimeout())
	defer cancel()
	sessions, o := c.lastSessions()
	return errors.Join(err, c.endAll(detached, sessions), o.wait(detached))
}

// endAll ends sessions, all at once: the row of one must not use up the time of
// another.
func (c *Client) endAll(ctx context.Context, sessions []*session.Session) error {
	errs := make([]error, len(sessions))
	var wait sync.WaitGroup
	for i, s := range sessions {
		s.Lose(string(ReasonClosed), false)
		wait.Go(func() {
			if err := s.End(ctx); err != nil {
				errs[i] = fmt.Errorf("lease: a session could not be deleted, its leases pass on %v after its last heartbeat: %w",
					c.ttl, err)
				return
			}
			c.emit(Event{Type: EventSessionClosed, Session: s.ID()})
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}

// lastSessions returns the sessions whose rows may still be there, and the
// attempt to open one that is still under way, which ends what it opens by
// itself. No other begins any more.
func (c *Client) lastSessions() ([]*session.Session, *opening) {
	c.mu.Lock()
	defer c.mu.Unlock()
	sessions := slices.Collect(maps.Keys(c.ending))
	if c.session != nil {
		sessions = append(sessions, c.session)
	}
	return sessions, c.opening
}
