package lease

import (
	"context"
	"fmt"
	"time"

	"github.com/dynalock/dynalock/internal/session"
)

// sessionTimeout bounds an attempt to open a session, which would be born lost
// if it took longer than its trust lasts, and how long a call waits for a
// heartbeat that it needs.
func (s *settings) sessionTimeout() time.Duration { return min(10*time.Second, s.ttl-s.margin) }

// opening is an attempt to open a session (R1). Every call that needs one
// meanwhile waits for it and shares its outcome; it depends on none of them.
type opening struct {
	done    chan struct{} // closed when the attempt has ended
	session *session.Session
	err     error
}

// current returns the client's session, opening one if there is none to trust
// (R8). That costs one write, for all who wait for it.
func (c *Client) current(ctx context.Context) (*session.Session, error) {
	if s := c.trusted(); s != nil && c.life.Open().Err() == nil {
		return s, nil
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	o := c.beginOpening()
	if o == nil {
		return nil, ErrClosed
	}
	select {
	case <-o.done:
		return o.session, o.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// trusted returns the client's session, nil if it has none to trust.
func (c *Client) trusted() *session.Session {
	c.mu.Lock()
	s := c.session
	c.mu.Unlock()
	if s == nil || s.Reason() != "" {
		return nil
	}
	return s
}

// beginOpening returns the attempt that is under way, or begins one. nil: the
// client is closed, and opens no session any more.
func (c *Client) beginOpening() *opening {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.life.IsClosed() || c.opening != nil {
		return c.opening
	}
	o := &opening{done: make(chan struct{})}
	c.opening = o
	c.life.Start(func(ctx context.Context) {
		o.session, o.err = c.reopen(ctx)
		c.mu.Lock()
		c.opening = nil // who comes now makes an attempt of its own
		c.mu.Unlock()
		close(o.done)
	})
	return o
}

// reopen is the body of an attempt. A session that is open when Close has
// begun is ended again, for as long as that takes: Close waits for it.
func (c *Client) reopen(background context.Context) (*session.Session, error) {
	if s := c.trusted(); s != nil {
		return s, nil // an attempt that has just ended has opened it
	}
	ctx, cancel := c.clock.WithTimeout(background, c.sessionTimeout())
	defer cancel()
	s, err := c.openSession(ctx)
	if err != nil {
		return nil, fmt.Errorf("lease: opening a session: %w", err)
	}
	c.mu.Lock()
	closed := c.life.IsClosed()
	if !closed {
		c.session = s
	}
	c.mu.Unlock()
	if !closed {
		return s, nil
	}
	s.Lose(string(ReasonClosed), false)
	if background.Err() != nil { // Close has given up waiting, but for the end of this goroutine
		var cancel context.CancelFunc
		background, cancel = c.clock.WithTimeout(context.WithoutCancel(background), c.cleanupTimeout())
		defer cancel()
	}
	_ = s.End(background) // else Close has said that the row may remain
	return nil, ErrClosed
}

// wait waits for the end of the attempt, if there is one, until ctx ends.
func (o *opening) wait(ctx context.Context) error {
	if o == nil {
		return nil
	}
	select {
	case <-o.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("lease: a session is still being opened, its row may remain: %w", context.Cause(ctx))
	}
}
