package lease

import (
	"context"
	"errors"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
)

// latestAttempt is S6's bound on how long after its start an operation may send its last attempt.
const latestAttempt = time.Minute

// resolve looks after an acquiring write of s whose outcome is not known (R14): until it cannot land any more, a row that
// carries its acquisition id is given back. Without that such a row would be held for as long as the session lives.
// version is what the write would give the row, 0 if that is not known.
func (c *Client) resolve(s *session, key, acq string, version uint64) {
	began := c.clock.Now()
	last := c.writeDelay
	if last > 0 {
		last += latestAttempt
	}
	c.start(func(ctx context.Context) {
		pauses := newPauses()
		for !s.isGone() && !c.resolved(ctx, key, acq, version, began, last) {
			if clock.Sleep(ctx, c.clock, pauses.NextBackOff()) != nil {
				return
			}
		}
	})
}

// resolved reads the row once, and gives it back if it carries acq. It reports whether nothing is left to do.
func (c *Client) resolved(ctx context.Context, key, acq string, version uint64, began clock.Reading, last time.Duration) bool {
	tooLate := c.clock.Now().MonotonicSince(began) >= last // before the read: a landing between the two is not seen
	pair, err := c.store.Get(ctx, leasePrefix+key, kv.WithAttemptTimeout(c.attemptTimeout()))
	var notFound *kv.NotFoundError
	switch {
	case errors.As(err, &notFound):
		return tooLate || (version != 0 && notFound.Version >= version)
	case err != nil:
		return false
	}
	record, err := decodeLease(pair)
	if err != nil || record.Acq != acq {
		return tooLate || (version != 0 && pair.Version >= version)
	}
	_, err = c.free(ctx, &row{key: key, acq: acq, version: pair.Version, record: *record})
	if err == nil {
		c.wake(key)
	}
	return err == nil // applied once, and a write is applied at most once (S3)
}
