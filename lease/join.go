package lease

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"unicode/utf8"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/retry"
)

// maxGroups bounds what a heartbeat has to write.
const maxGroups = 100

// Join makes this client known as a member of a group, such as "pool/mail" or
// "election/scheduler". Members tells others of it, until leave is called, or the
// client is closed or dies. A member keeps a session also when it holds nothing,
// and opens a new one when it lost one. Joining twice takes leaving twice. leave
// does not wait.
//
// On failure the client is no member. Where the store does not answer, Join fails
// within 10 s for the session, if there is none, and 10 s for the heartbeat. It
// costs one write: the first heartbeat, or one that is sent at once.
func (c *Client) Join(ctx context.Context, group string) (leave func(), err error) {
	if group == "" || len(group) > 256 || !utf8.ValidString(group) {
		return nil, fmt.Errorf("lease: Join(%.40q): want 1 to 256 bytes of UTF-8: %w", group, ErrInvalid)
	}
	ctx, use, err := c.life.Begin(ctx)
	if err != nil {
		return nil, err
	}
	defer use.End()
	want, ok := c.groups.Join(group, maxGroups)
	if !ok {
		return nil, fmt.Errorf("lease: Join(%q): already in %d groups, more do not fit: %w",
			group, maxGroups, ErrInvalid)
	}
	leave = sync.OnceFunc(func() { c.leaveGroup(group) })
	if err := c.announce(ctx, want); err != nil {
		leave()
		return nil, c.life.Explain(fmt.Errorf("lease: joining %q: %w", group, err))
	}
	return leave, nil
}

// announce waits until a heartbeat has told of so many changes of the groups.
func (c *Client) announce(ctx context.Context, changes uint64) error {
	for {
		s, err := c.current(ctx)
		if err == nil {
			err = s.Refresh(ctx, func() bool { return s.Knows(changes) })
		}
		if err == nil || ctx.Err() != nil || !errors.Is(err, ErrLost) {
			return err // else with a new session
		}
	}
}

func (c *Client) leaveGroup(group string) {
	c.groups.Leave(group)
	c.mu.Lock()
	s := c.session
	c.mu.Unlock()
	if s != nil {
		s.HeartbeatNow()
	}
}

// isMember reports whether the client has joined anything.
func (c *Client) isMember() bool { return c.groups.Len() > 0 }

// rejoin opens a new session for a client that lost its own and is a member of
// something.
func (c *Client) rejoin() {
	if !c.isMember() {
		return
	}
	c.life.Start(func(ctx context.Context) {
		pauses := retry.Pauses(c.clock)
		for c.life.Open().Err() == nil && c.isMember() {
			if _, err := c.current(ctx); err == nil || clock.Sleep(ctx, c.clock, pauses.NextBackOff()) != nil {
				return
			}
		}
	})
}
