package lease

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/session"
)

// closeTimeout is how long Close waits without a deadline, beyond the margin.
const closeTimeout = 10 * time.Second

// lostPoll is how often Close looks whether all but the lost leases were released.
const lostPoll = 50 * time.Millisecond

// Close ends the client, in three steps:
//
//  1. Every lease ends, with ReasonClosed as its context's cause. New acquires
//     are refused.
//  2. Close waits for Release of every lease: its holder may still be stopping its
//     work. For a lease that was lost it waits no longer than a margin after the
//     loss. After a second it logs which keys it waits for. Give ctx a deadline.
//     Without one Close waits for the margin, what is left of the longest
//     WithMinHold, and 10 s.
//  3. It deletes the session, which frees whatever is left. That is one write.
//     While the store does not answer, Close tries for a third of the TTL, 2 to
//     10 s, whether or not ctx has ended. A session that is being opened is
//     waited for as long, and deleted too.
//
// On success nothing of this client is held and nothing of it runs. An error
// means one of these, and says which:
//
//   - Leases were not released in time: it names up to ten keys. They are free
//     all the same, if the holders have had their margin since Close began. Else
//     the session is left to its TTL, after which others get the keys.
//   - The session could not be deleted. Then the keys pass on after the TTL.
//   - An Observer has not returned.
//
// Closing again returns what the first Close did.
func (c *Client) Close(ctx context.Context) error {
	if !c.life.BeginClose() {
		return c.life.AwaitClosed(ctx)
	}
	began := c.clock.Now()
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = c.clock.WithTimeout(ctx, c.margin+c.longestMinHold()+closeTimeout)
		defer cancel()
	}
	c.mu.Lock()
	if c.session != nil {
		c.session.EndLeases(&LostError{Reason: ReasonClosed})
	}
	c.mu.Unlock()

	err := c.awaitReleases(ctx, began)
	detached, cancel := c.clock.WithTimeout(context.WithoutCancel(ctx), c.cleanupTimeout())
	defer cancel()
	sessions, o := c.lastSessions(err == nil, began)
	err = errors.Join(err, c.endAll(detached, sessions), o.wait(detached), c.endAllUnlanded(detached))
	last, cancel := c.clock.WithTimeout(context.WithoutCancel(ctx), c.cleanupTimeout())
	defer cancel()
	if !c.life.StopBackground(ctx, last) {
		err = errors.Join(err, errors.New("lease: closed while an Observer had not returned"))
	}
	c.life.EndClose(err)
	return err
}

// awaitReleases waits for the calls under way and for the release of every lease,
// but for those that were lost a margin ago, until ctx ends.
func (c *Client) awaitReleases(ctx context.Context, began clock.Reading) error {
	const soon = time.Second
	logged := false
	for {
		open, next := c.unreleased(began)
		waited := c.clock.Now().MonotonicSince(began)
		users, _ := c.life.Count()
		if users <= open.lost {
			return nil
		}
		if waited >= soon && !logged {
			logged = true
			c.logWaiting(open, users)
		}
		if !logged {
			next = min(next, soon-waited)
		}
		if open.lost > 0 {
			next = min(next, lostPoll) // Idle does not tell that the others were released
		}
		t := c.clock.NewTimer(next)
		select {
		case <-c.life.Idle():
			t.Stop()
			return nil
		case <-t.C():
		case <-ctx.Done():
			t.Stop()
			c.awaitCalls(ctx)
			return c.notReleased(ctx, began)
		}
	}
}

// logWaiting tells for what Close waits.
func (c *Client) logWaiting(open openLeases, users int) {
	if len(open.keys) > 0 {
		c.log.Warn("lease: Close waits for leases to be released", "keys", open.names())
		return
	}
	c.log.Warn("lease: Close waits for calls and releases under way", "number", users-open.lost)
}

// longestMinHold is how long Close has to wait for leases that may not be given
// back before (WithMinHold).
func (c *Client) longestMinHold() (left time.Duration) {
	for _, l := range c.leases() {
		left = max(left, l.keptFromOthers())
	}
	return left
}

// awaitCalls gives the calls under way, which Close has interrupted, a second to
// end.
func (c *Client) awaitCalls(ctx context.Context) {
	ctx, cancel := c.clock.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	for {
		if _, calls := c.life.Count(); calls == 0 || clock.Sleep(ctx, c.clock, time.Millisecond) != nil {
			return
		}
	}
}

// notReleased says for what Close has waited in vain.
func (c *Client) notReleased(ctx context.Context, began clock.Reading) error {
	open, _ := c.unreleased(began)
	users, calls := c.life.Count()
	if users <= open.lost {
		return nil
	}
	var parts []string
	if len(open.keys) > 0 {
		parts = append(parts, fmt.Sprintf("%d leases not released (%s)", len(open.keys), open.names()))
	}
	if calls > 0 {
		parts = append(parts, fmt.Sprintf("%d calls under way", calls))
	}
	if n := users - calls - len(open.keys) - open.lost; n > 0 {
		parts = append(parts, fmt.Sprintf("%d releases under way", n))
	}
	text := strings.Join(parts, " and ")
	if c.clock.Now().MonotonicSince(began) < c.margin {
		text += fmt.Sprintf("; others get the keys %v after the last heartbeat", c.ttl)
	}
	return fmt.Errorf("lease: closed with %s: %w", text, context.Cause(ctx))
}

// openLeases are those that Close finds.
type openLeases struct {
	// keys are those of the leases that it waits for.
	keys []string
	// lost is how many leases were lost so long ago that it does not.
	lost int
}

// names are the first ten keys.
func (o openLeases) names() string {
	const shown = 10
	slices.Sort(o.keys)
	quoted := make([]string, 0, shown+1)
	for _, key := range o.keys[:min(shown, len(o.keys))] {
		quoted = append(quoted, strconv.Quote(key))
	}
	if more := len(o.keys) - shown; more > 0 {
		quoted = append(quoted, fmt.Sprintf("%d more", more))
	}
	return strings.Join(quoted, ", ")
}

// unreleased returns the leases that are not released, and in how long Close
// should look again. Holders of lost leases have their margin, from the loss of
// the session, or from the beginning of Close.
func (c *Client) unreleased(began clock.Reading) (open openLeases, next time.Duration) {
	now := c.clock.Now()
	next = MaxTTL
	for _, l := range c.leases() {
		lost := l.lost()
		if l.isReleasing() {
			if l.keptFromOthers() > 0 {
				open.keys = append(open.keys, l.key)
			}
			continue // its end is under way
		}
		if lost == nil || lost.Reason == ReasonReleased {
			continue // it is being released just now
		}
		since, waits := began, lost.Reason != ReasonClosed
		if l.session.Reason() != "" {
			since, waits = c.latchedAt(l.session, now), true
		}
		left := c.margin - now.MonotonicSince(since)
		if waits && left <= 0 {
			open.lost++
			continue
		}
		open.keys = append(open.keys, l.key)
		if waits {
			next = min(next, left)
		}
	}
	return open, next
}

// latchedAt is when the loss of s was noticed: now, if it is only just being
// noted.
func (c *Client) latchedAt(s *session.Session, now clock.Reading) clock.Reading {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at, ok := c.ending[s]; ok {
		return at
	}
	if s.IsDeleted() {
		return clock.Reading{Wall: now.Wall, Mono: now.Mono - c.margin}
	}
	return now
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

// unlandedAtOnce is how many rows of sessions that were never opened Close ends at
// a time.
const unlandedAtOnce = 10

// endAllUnlanded ends the rows of sessions that were never opened, beside what the
// background does.
func (c *Client) endAllUnlanded(ctx context.Context) error {
	c.mu.Lock()
	unlanded := slices.Collect(maps.Keys(c.unlanded))
	c.mu.Unlock()
	errs := make([]error, unlandedAtOnce)
	var wait sync.WaitGroup
	for i := range errs {
		wait.Go(func() {
			for j := i; j < len(unlanded) && errs[i] == nil; j += unlandedAtOnce {
				errs[i] = unlanded[j].End(ctx)
			}
		})
	}
	wait.Wait()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("lease: the row of a session that could not be opened may remain: %w", err)
	}
	return nil
}

// lastSessions returns the sessions to be ended now, and the attempt to open one
// that is still under way, which ends what it opens by itself. No other begins
// any more. The heartbeats of the others end. released: all leases are. Else
// sessions whose holders have not had their margin to stop are left to their
// TTLs.
func (c *Client) lastSessions(released bool, began clock.Reading) ([]*session.Session, *opening) {
	now := c.clock.Now()
	c.mu.Lock()
	last, o := c.session, c.opening
	var sessions []*session.Session
	for s, latched := range c.ending {
		if released || now.MonotonicSince(latched) >= c.margin {
			sessions = append(sessions, s)
		}
	}
	c.mu.Unlock()
	switch {
	case last == nil:
	case released || now.MonotonicSince(began) >= c.margin:
		sessions = append(sessions, last)
	default:
		last.Lose(string(ReasonClosed), false)
	}
	return sessions, o
}
