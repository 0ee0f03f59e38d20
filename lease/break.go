package lease

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/retry"
	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/kv"
)

type breakSettings struct{ force bool }

// BreakOption is an option of Break.
type BreakOption func(*breakSettings)

// BreakForce makes Break free the key at once, without waiting for its holder to
// stop. For up to the holder's TTL two processes may both believe in their leases
// of the key. Only the fencing token keeps them apart then.
func BreakForce() BreakOption { return func(b *breakSettings) { b.force = true } }

// Break takes a key away from its holder: for operators, when a holder is alive
// but stuck. h names the acquisition by Key, Session and Token, as Inspect,
// Holders or a HeldError returned it.
//
// The holder is told through its session's row. Its lease ends with
// ReasonRevoked, it has its margin to stop, and then it confirms. A holder that
// does not confirm within its TTL has lost its trust in the lease by itself. Its
// other leases go on.
//
// nil: that acquisition no longer holds the key. It was broken now, or it ended
// before, and somebody else may hold the key. On failure Break may still have
// broken it.
//
// Break waits for one to two heartbeats and the margin of a live holder, and for
// no longer than its TTL and a sixteenth. With BreakForce it does not wait. It
// costs a read and a write of the session, a read per poll until the holder
// confirms, and a read and a write of the key.
func (c *Client) Break(ctx context.Context, h *Holder, options ...BreakOption) error {
	if h == nil || h.Session == "" || h.Token == 0 || checkKey(h.Key) != nil {
		return fmt.Errorf("lease: Break: want a holder with its Key, Session and Token, "+
			"as Inspect, Holders or a HeldError names it: %w", ErrInvalid)
	}
	for _, option := range options {
		if option == nil {
			return fmt.Errorf("lease: Break: a nil option: %w", ErrInvalid)
		}
	}
	var b breakSettings
	for _, option := range options {
		option(&b)
	}
	ctx, use, err := c.life.Begin(ctx)
	if err != nil {
		return err
	}
	defer use.End()
	if err := c.breakLease(ctx, h, b); err != nil {
		return c.life.Explain(fmt.Errorf("lease: breaking %q: %w", h.Key, err))
	}
	return nil
}

// breakLease follows R17, in its order: revoke, wait, free.
func (c *Client) breakLease(ctx context.Context, h *Holder, b breakSettings) error {
	entry := revocation(h.Key, h.Token)
	revokeTimeout, err := c.revokeRemote(ctx, h.Session, entry)
	if err != nil {
		return err
	}
	if revokeTimeout > 0 && !b.force {
		if err := c.awaitReceipt(ctx, h.Session, entry, revokeTimeout); err != nil {
			return err
		}
	}
	pair, err := c.store.Get(ctx, rows.LeasePrefix+h.Key, c.attempts)
	switch {
	case errors.Is(err, kv.ErrKeyNotFound):
		return nil
	case err != nil:
		return err
	}
	record, err := rows.DecodeLease(pair)
	if err != nil {
		return err
	}
	if record.Session != h.Session || record.TokenIn(pair) != h.Token {
		return nil
	}
	_, err = c.free(ctx, &row{key: h.Key, row: pair.Key, acq: record.Acq, version: pair.Version, record: *record})
	return err
}

// revokeRemote adds the entry to the session's row until it is known to be there, or
// the session to be dead. It returns how long the holder may go on without having
// seen the entry, 0 if the session is dead.
func (c *Client) revokeRemote(ctx context.Context, session, entry string) (revokeTimeout time.Duration, err error) {
	err = c.untilKnown(ctx, func() error {
		pair, err := c.store.Get(ctx, rows.SessionPrefix+session, c.attempts)
		switch {
		case errors.Is(err, kv.ErrKeyNotFound):
			revokeTimeout = 0
			return nil
		case permanent(err):
			return retry.Stop(err)
		case err != nil:
			return err
		}
		record, err := rows.DecodeSession(pair)
		if err != nil {
			return retry.Stop(err)
		}
		revokeTimeout = record.DeadAfter()
		if slices.Contains(record.Revoked, entry) {
			return nil // another operator's
		}
		record.Revoked = append(record.Revoked, entry)
		_, err = c.store.AtomicPut(ctx, pair.Key, record.Options(pair, c.attempts)...)
		if _, conflict := rows.CurrentPair(err); conflict {
			return retry.ErrAgain
		}
		if permanent(err) {
			return retry.Stop(err)
		}
		return err
	})
	return revokeTimeout, err
}

// awaitReceipt waits until the session's row has lost the entry, or until
// revokeTimeout is over, which counts from now.
func (c *Client) awaitReceipt(ctx context.Context, session, entry string, revokeTimeout time.Duration) error {
	began := c.clock.Now()
	for {
		left := revokeTimeout - c.clock.Now().MonotonicSince(began)
		if left <= 0 {
			return nil
		}
		waited := revokeTimeout - left
		if err := clock.Sleep(ctx, c.clock, min(left, max(waited/10, c.pollMin), max(c.pollMax, c.pollMin))); err != nil {
			return err
		}
		pair, err := c.store.Get(ctx, rows.SessionPrefix+session, c.attempts)
		if errors.Is(err, kv.ErrKeyNotFound) {
			return nil
		}
		if err != nil {
			continue // revokeTimeout is enough
		}
		record, err := rows.DecodeSession(pair)
		if err == nil && !slices.Contains(record.Revoked, entry) {
			return nil
		}
	}
}
