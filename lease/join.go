package lease

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"unicode/utf8"

	"github.com/dynalock/dynalock/internal/clock"
)

// maxGroups bounds what a heartbeat has to write.
const maxGroups = 100

// Join makes this client known as a member of a group, such as "pool/mail" or "election/scheduler": Members tells others of it, until
// leave is called or the client is closed or dies. A member keeps a session, also when it holds nothing, and opens a new one when
// one was lost. Joining twice takes leaving twice.
//
// It costs one write: the first heartbeat, or one that is sent at once. On failure the client is not a member. leave does not wait.
func (c *Client) Join(ctx context.Context, group string) (leave func(), err error) {
	if group == "" || len(group) > 256 || !utf8.ValidString(group) {
		return nil, fmt.Errorf("lease: Join(%.40q): want 1 to 256 bytes of UTF-8: %w", group, ErrInvalid)
	}
	if err := c.enter(); err != nil {
		return nil, err
	}
	defer c.leave()
	c.mu.Lock()
	if len(c.joined) >= maxGroups && c.joined[group] == 0 {
		c.mu.Unlock()
		return nil, fmt.Errorf("lease: Join(%q): already in %d groups, more do not fit: %w", group, maxGroups, ErrInvalid)
	}
	c.joined[group]++
	c.mu.Unlock()
	leave = sync.OnceFunc(func() { c.leaveGroup(group) })

	ctx, cancel := c.untilClosing(ctx)
	defer cancel()
	for {
		s, err := c.current(ctx)
		if err == nil {
			err = s.refresh(ctx, func() bool { return s.isIn(group) })
		}
		switch {
		case err == nil:
			return leave, nil
		case ctx.Err() == nil && errors.Is(err, ErrLost):
			continue // with a new session
		}
		leave()
		return nil, c.explain(fmt.Errorf("lease: joining %q: %w", group, err))
	}
}

func (c *Client) leaveGroup(group string) {
	c.mu.Lock()
	if c.joined[group]--; c.joined[group] == 0 {
		delete(c.joined, group)
	}
	s := c.session
	c.mu.Unlock()
	if s != nil {
		s.nudge()
	}
}

// groups returns what the client has joined, sorted.
func (c *Client) groups() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.joined))
}

// isIn reports whether the last heartbeat acknowledged said that the client is in group.
func (s *session) isIn(group string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.joined, group)
}

// rejoin opens a new session for a client that lost its own and is a member of something.
func (c *Client) rejoin() {
	if len(c.groups()) == 0 {
		return
	}
	c.start(func(ctx context.Context) {
		pauses := c.newPauses()
		for c.open.Err() == nil && len(c.groups()) > 0 {
			if _, err := c.current(ctx); err == nil || clock.Sleep(ctx, c.clock, pauses.NextBackOff()) != nil {
				return
			}
		}
	})
}
