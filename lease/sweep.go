package lease

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/retry"
	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/kv"
)

// sweepPause keeps the writes of a Sweep apart: at most a hundred a second.
const sweepPause = 10 * time.Millisecond

// Swept is what a Sweep has done and found.
type Swept struct {
	// Sessions are the sessions that were proven dead, and whose rows are deleted.
	Sessions int
	// Keys are the keys of dead sessions that were freed.
	Keys int
	// Kept are the keys of dead sessions that keep a value, and were left.
	Kept int
	// Delayed are the keys of dead sessions whose lock-delay is not over, and were
	// left.
	Delayed int
	// Unreadable are the rows that cannot be read, and were left (R18).
	Unreadable int
}

// Sweep removes what crashed processes have left and nobody asks for: the rows of
// their sessions, and the rows of those of their keys that begin with prefix. It
// never touches a session or a key of a live process, and may run anywhere at
// any time.
//
// Sessions are proven dead as an acquire does it, all at the same time. One whose
// heartbeats are missing is watched for its TTL and a sixteenth, one that is
// alive until its next heartbeat. Sessions that hold nothing are included. Then
// each key that a dead session holds is freed on the version that was read: who
// takes it over meanwhile has it.
//
// These are left. A key that keeps a value, because only its next holder knows
// what the value means. A key that a live client waits for in its queue. A key
// whose WithLockDelay is not over: it counts from this client's proof, so a later
// Sweep of the same client frees the key. A row that cannot be read.
//
// nil: nothing else of a process that had died before the call is left under
// prefix. After an error Swept says what was done until then, and another Sweep
// of this client goes on with what it has seen. It costs two listings of the
// sessions as a rule, one of the keys, a read and a write for each dead session,
// and a write for each key. It makes at most a hundred writes a second.
func (c *Client) Sweep(ctx context.Context, prefix string) (Swept, error) {
	ctx, use, err := c.life.Begin(ctx)
	if err != nil {
		return Swept{}, err
	}
	defer use.End()
	var swept Swept
	err = c.sweepSessions(ctx, &swept)
	if err == nil {
		err = c.sweepKeys(ctx, prefix, &swept)
	}
	if err != nil {
		return swept, c.life.Explain(fmt.Errorf("lease: sweeping %q: %w", prefix, err))
	}
	return swept, nil
}

// sweepSessions ends the sessions that are dead (R10). It returns when each
// session that there was has shown a heartbeat, or has ended.
func (c *Client) sweepSessions(ctx context.Context, swept *Swept) error {
	suspects, unreadable, err := c.suspects(ctx)
	if err != nil {
		return err
	}
	swept.Unreadable += unreadable
	for {
		next := MaxTTL
		for id, s := range suspects {
			deadIn := c.watchListed(ctx, s)
			if c.others.KnownDead(id) {
				swept.Sessions++
				delete(suspects, id)
				if err := clock.Sleep(ctx, c.clock, sweepPause); err != nil {
					return err
				}
			}
			next = min(next, deadIn)
		}
		if len(suspects) == 0 {
			return nil
		}
		if err := clock.Sleep(ctx, c.clock, max(next, c.pollMax)); err != nil {
			return err
		}
		listed, _, err := c.suspects(ctx)
		if err != nil {
			return err
		}
		for id, s := range suspects {
			if now := listed[id]; now == nil || now.Version != s.Version { // ended, or alive
				delete(suspects, id)
			}
		}
	}
}

// suspects lists the sessions of others by id, and counts those that cannot be
// read.
func (c *Client) suspects(ctx context.Context) (suspects map[string]*listedSession, unreadable int, err error) {
	suspects = map[string]*listedSession{}
	options := c.readOptions(nil)
	for s, err := range listed(ctx, c.store, rows.SessionPrefix, readSession, options) {
		switch {
		case s == nil:
			return nil, 0, err
		case err != nil:
			unreadable++
		case s.Session != c.Session():
			suspects[s.Session] = s
		}
	}
	return suspects, unreadable, nil
}

// sweepKeys frees the keys of dead sessions.
func (c *Client) sweepKeys(ctx context.Context, prefix string, swept *Swept) error {
	for h, err := range c.Keys(ctx, prefix) {
		switch {
		case h == nil:
			return err
		case err != nil:
			swept.Unreadable++
		case h.Held(), h.Reserved() != nil && !h.Kept:
			if err := c.sweepKey(ctx, h, swept); err != nil {
				return err
			}
		}
	}
	return nil
}

// sweepKey frees a key if its holder is dead.
func (c *Client) sweepKey(ctx context.Context, h *Holder, swept *Swept) error {
	free, err := c.Free(ctx, h)
	switch {
	case errors.Is(err, kv.ErrFormat): // the session's row: it may be alive (R18)
		return nil
	case err != nil:
		return err
	case h.Reserved() == nil && !free:
		if c.others.KnownDead(h.Session) {
			swept.Delayed++
		}
		return nil
	case h.Kept:
		swept.Kept++
		return nil
	}
	for _, w := range h.Waiters {
		dead, err := c.Dead(ctx, w.Session)
		if err != nil && !errors.Is(err, kv.ErrFormat) { // that one may be alive (R18)
			return err
		}
		if !dead { // it gets the key, or others pass it over
			return nil
		}
	}
	freed, err := c.deleteListed(ctx, h.row.Pair)
	if err != nil {
		return fmt.Errorf("freeing %q: %w", strings.TrimPrefix(h.row.Pair.Key, rows.LeasePrefix), err)
	}
	if freed {
		swept.Keys++
		c.wake(h.Key)
	}
	return clock.Sleep(ctx, c.clock, sweepPause)
}

// deleteListed deletes a row on the version that was listed, until that is known.
// freed: no row is left.
func (c *Client) deleteListed(ctx context.Context, pair *kv.KVPair) (freed bool, err error) {
	unknown := false
	err = c.untilKnown(ctx, func() error {
		err := c.store.AtomicDelete(ctx, pair.Key, pair, c.attempts)
		current, conflict := rows.CurrentPair(err)
		switch {
		case err == nil:
			freed = true
			return nil
		case conflict:
			freed = unknown && current == nil
			return nil // whoever was faster has it
		case permanent(err):
			return retry.Stop(err)
		}
		unknown = unknown || errors.Is(err, kv.ErrUncertain)
		return err
	})
	return freed, err
}
