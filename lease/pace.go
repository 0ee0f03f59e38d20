package lease

import (
	"errors"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
)

// maxFailurePause is the longest pause of a waiter while the store fails (I13).
const maxFailurePause = 5 * time.Second

// pace keeps the rounds of one waiting acquire apart. A round is a read or a
// write of the key's row and, when it is due, a read of its holder's session.
type pace struct {
	// holder is the acquisition that the row was last seen held by, or the entry that
	// it was reserved for, since when.
	holder string
	since  clock.Reading
	// failures are the pauses while rounds fail, nil while they succeed.
	failures *clock.Pauses
	// refused is since when the store refuses what is asked, with no round that
	// found the key held.
	refused clock.Reading
}

// note takes what a round has found: who holds the key, or nothing if it
// failed.
func (p *pace) note(c *Client, b *heldRow) {
	switch {
	case b == nil || b.err != nil:
		p.failed(c)
	default:
		p.succeeded()
	}
	if b == nil {
		return
	}
	holder := b.Record.Acq
	if e := b.Record.Reserved(); e != nil {
		holder = e.ID
	}
	if holder != p.holder || p.since.IsZero() {
		p.holder, p.since = holder, c.clock.Now()
	}
}

// succeeded notes that a round found the key held.
func (p *pace) succeeded() { p.failures, p.refused = nil, clock.Reading{} }

// outlasts reports whether err is a refusal, and the store has refused for
// longer than WithRefusedLimit allows.
func (p *pace) outlasts(c *Client, err error) bool {
	if !errors.Is(err, kv.ErrRefused) {
		return false
	}
	now := c.clock.Now()
	if p.refused.IsZero() {
		p.refused = now
	}
	return now.MonotonicSince(p.refused) >= c.refusedLimit
}

// failed notes that a round failed: the pauses double until one succeeds.
func (p *pace) failed(c *Client) {
	if p.failures == nil {
		p.failures = clock.Jitter(c.clock, backoff.NewExponentialBackOff(
			backoff.WithInitialInterval(c.pollMin), backoff.WithMultiplier(2),
			backoff.WithMaxInterval(max(maxFailurePause, c.pollMax)), backoff.WithMaxElapsedTime(0)))
	}
}

// pause is how long to wait for the next round: a tenth of the time since the
// row was last seen to change, within the bounds of WithPoll, but not longer
// than until the holder's session is worth a look. looked is when the last
// round ended. With a watch only the session counts; while rounds fail,
// neither does.
func (p *pace) pause(c *Client, b *heldRow, looked clock.Reading, watch *watch) time.Duration {
	if p.failures != nil {
		return max(p.failures.NextBackOff(), c.pollMin)
	}
	now := c.clock.Now()
	var unchanged time.Duration
	if !p.since.IsZero() {
		unchanged = now.MonotonicSince(p.since)
	}
	pause := min(max(unchanged/10, c.pollMin), c.pollMax)
	if b != nil && b.Found != nil {
		pause = c.queuedPause(b.Record, pause)
	}
	pause = clock.Spread(c.clock, pause*9/10, 1.0/9)
	if b == nil {
		return pause
	}
	recheck := b.recheck - now.MonotonicSince(looked)
	if watch.changed == nil {
		recheck = min(recheck, pause)
	}
	return max(recheck, c.pollMin)
}
