package pool

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// getsOnAfter is for how long a handler runs until its attempt has got on, also
// if it saves nothing.
const getsOnAfter = time.Minute

// Why an attempt failed, and why a partition is not acquired.
var (
	errDied     = errors.New("its member died, or lost it")
	errEnded    = errors.New("pool: the partition has ended")
	errNotAlone = errors.New("pool: the last attempt at another partition goes on")
)

// begun is the state of a partition whose next attempt begins. died says that who
// had it has died with it.
func (p *Pool) begun(s state, died bool) state {
	if p.maxAttempts == 0 {
		return s
	}
	if died && s.Trying {
		s.Failures++
		s.Error = errDied.Error()
	}
	s.Failed = s.Failures >= p.maxAttempts
	s.Trying = !s.Failed
	return s
}

// isLast reports whether a partition that has failed before has one attempt left.
func (p *Pool) isLast(s state) bool { return s.Failures > 0 && s.Failures == p.maxAttempts-1 }

// next is what an acquire makes of the value of its partition.
func (c *claim) next(kept []byte, died bool) ([]byte, error) {
	s, checkpoint, err := decodeState(kept)
	switch {
	case err != nil:
		return nil, err
	case s.ended():
		return nil, errEnded // the listing was old
	}
	s = c.member.begun(s, died)
	if c.member.isLast(s) && !c.isAlone() {
		return nil, errNotAlone // so was that
	}
	return s.encode(checkpoint), nil
}

// waitAlone waits, before a partition's last attempt, until that of no other goes
// on here. Several that run side by side would all count as failed when one of
// them ends the process.
func (c *claim) waitAlone(r *row) error {
	m := c.member
	if !m.isLast(m.begun(r.state, r.Session != "" && r.Session != m.client.Session())) {
		return nil
	}
	select {
	case m.lastAttempt <- struct{}{}:
	case <-c.trying.Done():
		return context.Cause(c.trying)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	c.alone = true
	return nil
}

func (c *claim) isAlone() bool {
	c.member.mu.Lock()
	defer c.member.mu.Unlock()
	return c.alone
}

// endAlone lets the last attempt at another partition begin.
func (c *claim) endAlone() {
	c.member.mu.Lock()
	defer c.member.mu.Unlock()
	if c.alone {
		c.alone = false
		<-c.member.lastAttempt
	}
}

// getOn notes that the attempt has got on: what failed before does not count.
func (c *claim) getOn() {
	c.setFailures(0)
	c.endAlone()
}

func (c *claim) setFailures(n int) {
	c.member.mu.Lock()
	defer c.member.mu.Unlock()
	c.failures = n
}

// countFailure counts a failed attempt, and returns how many there have been.
func (c *claim) countFailure() int {
	c.member.mu.Lock()
	defer c.member.mu.Unlock()
	c.failures++
	return c.failures
}

// attempts is the number of the attempt that begins.
func (c *claim) attempts() int {
	c.member.mu.Lock()
	defer c.member.mu.Unlock()
	return c.failures + 1
}

// rewrite makes the partition's state s, unless it is so already. It leaves the
// checkpoint as it is. What cannot be written counts for nobody but this member.
func (c *claim) rewrite(l *lease.Lease, s state) {
	m := c.member
	err := c.inTurn(c.trying, func() error {
		old, checkpoint, err := decodeState(c.value(l))
		if err != nil || s.of(old) == old {
			return err
		}
		done, err := m.slots.take(c.trying)
		if err != nil {
			return err
		}
		defer done()
		return c.write(c.trying, l, s.of(old), checkpoint)
	})
	if err != nil && c.trying.Err() == nil && !errors.Is(err, lease.ErrLost) {
		m.report(slog.LevelWarn, "an attempt is not counted", "partition", c.name, "error", err)
	}
}

// inTurn calls do when no other write of the partition's value is under way.
func (c *claim) inTurn(ctx context.Context, do func() error) error {
	select {
	case c.writing <- struct{}{}:
		defer func() { <-c.writing }()
		return do()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// write writes the partition's value. The caller has the turn.
func (c *claim) write(ctx context.Context, l *lease.Lease, s state, checkpoint []byte) error {
	value := s.encode(checkpoint)
	err := l.Update(ctx, value)
	c.member.mu.Lock()
	defer c.member.mu.Unlock()
	switch {
	case err == nil:
		c.unknown = nil
	case errors.Is(err, kv.ErrUncertain):
		c.unknown = value
	}
	return err
}
