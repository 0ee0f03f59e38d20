package lease

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/dynalock/dynalock/kv"
)

// Lease is one acquisition of one key. It is held until Release, Close of its client, or the loss of the client's
// session, whichever is first; once it is not held it never is again. It is safe for concurrent use.
//
// A Lease is not proof of exclusion for the resource it stands for: between a check of Held and the
// act that follows, the process may be paused for longer than the lease lasts. Pass Token to the resource and let it refuse older ones.
type Lease struct {
	client  *Client
	session *session
	key     string
	acq     string
	token   uint64
	taken   bool
	record  leaseRecord
	ctx     context.Context
	cancel  context.CancelCauseFunc

	release  sync.Once
	released error
	done     chan struct{}
}

// Key returns the key that was acquired.
func (l *Lease) Key() string { return l.key }

// Token returns the fencing token: of any two acquisitions of a key the later has the greater token, across
// crashes, releases and restarts. A resource that refuses tokens smaller than one it has seen is safe even from a holder that was paused.
func (l *Lease) Token() uint64 { return l.token }

// TakenOver reports whether this acquisition took the key from a session that had died, so
// that the predecessor's work may be half done.
func (l *Lease) TakenOver() bool { return l.taken }

// Context returns a context that ends when the lease does; context.Cause is then a *LostError that says why. A loss
// is signalled by the trust deadline at the latest, whether or not the store answers.
func (l *Lease) Context() context.Context { return l.ctx }

// Held reports whether the lease is held, computed from the clocks now: no I/O, and no waiting for a timer that may be late.
func (l *Lease) Held() bool { return l.Err() == nil }

// Err returns nil while the lease is held, and then for ever the *LostError that says why it is not.
func (l *Lease) Err() error {
	if l.ctx.Err() == nil {
		if l.session.err() == nil {
			return nil
		}
	}
	return l.lostError()
}

// lostError is why the lease is not held, with its key.
func (l *Lease) lostError() *LostError {
	lost := &LostError{Key: l.key, Reason: ReasonExpired}
	var cause *LostError
	switch {
	case errors.As(context.Cause(l.ctx), &cause):
		lost.Reason = cause.Reason
	default: // the session is latched, its contexts are about to be cancelled
		if cause := l.session.err(); cause != nil {
			lost.Reason = cause.Reason
		}
	}
	return lost
}

// Remaining returns for how long the lease is held if no further heartbeat succeeds, 0 if it is not held. No I/O.
func (l *Lease) Remaining() time.Duration {
	if l.ctx.Err() != nil {
		return 0
	}
	return l.session.remaining()
}

// Release gives the key back. The lease ends before anything is sent, so stop the work first. It does not depend on ctx,
// which may have ended, but bounds itself to a third of the TTL, 2 to 10 s. It costs one write.
//
// nil: the key is free, or will be when Close, which has begun, succeeds. An error that matches ErrLost: the lease had ended before, by loss, and others
// may hold the key. Any other error: the outcome is not known yet, and the release goes on in the background until it is. Releasing
// again returns what the first call returned.
func (l *Lease) Release(ctx context.Context) error {
	l.release.Do(func() {
		defer close(l.done)
		l.released = l.giveBack(ctx)
	})
	<-l.done
	return l.released
}

// giveBack is the body of Release (R13).
func (l *Lease) giveBack(ctx context.Context) error {
	c := l.client
	defer c.leave()
	l.latch()
	if lost := l.lostError(); lost.Reason != ReasonReleased {
		c.uncover(l.acq)
		c.wake(l.key)
		if end := l.session.err(); lost.Reason == ReasonClosed && (end == nil || end.Reason == ReasonClosed) {
			return nil // Close waits for this call and then frees the row with the session
		}
		return lost
	}
	row := &row{key: l.key, acq: l.acq, version: l.token, record: l.record}
	gone, err := c.freeOrGoOn(ctx, l.session, row, c.farewell())
	switch {
	case err != nil:
		return fmt.Errorf("lease: releasing %q goes on in the background: %w", l.key, err)
	case gone:
		return &LostError{Key: l.key, Reason: ReasonKilled}
	}
	return nil
}

// latch ends the lease, as released unless it has ended already. The session is asked first, so that a loss
// that no timer has told of yet keeps its reason.
func (l *Lease) latch() {
	if lost := l.session.err(); lost != nil {
		l.cancel(lost)
		return
	}
	l.cancel(&LostError{Key: l.key, Reason: ReasonReleased})
}

// freeOrGoOn frees a row of session s. What it cannot get known within limit, which does not depend on the caller's ctx, it goes on
// with in the background, until it is known or the session is dead. The acquisition stays covered until then.
func (c *Client) freeOrGoOn(ctx context.Context, s *session, r *row, limit time.Duration) (gone bool, err error) {
	ctx, cancel := c.clock.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	if gone, err = c.free(ctx, r); err == nil {
		c.uncover(r.acq)
		c.wake(r.key)
		return gone, nil
	}
	c.start(func(ctx context.Context) {
		defer c.wake(r.key)
		defer c.uncover(r.acq)
		_ = c.untilKnown(ctx, func() error {
			if s.isGone() {
				return nil
			}
			_, err := c.free(ctx, r)
			return err
		})
	})
	return false, err
}

// row is a lease row of ours that is being freed.
type row struct {
	key, acq string
	version  uint64
	record   leaseRecord
	// unknown: an earlier attempt may have freed it already.
	unknown bool
}

// free deletes a row of ours, or for a row that keeps its value writes it unowned (R19), whatever version
// our own updates have given it. gone: the row was no longer ours, and that was not our own doing. An error: not known yet, ask again.
func (c *Client) free(ctx context.Context, r *row) (gone bool, err error) {
	for {
		err := c.freeVersion(ctx, r)
		if err == nil {
			return false, nil
		}
		current, conflict := currentPair(err)
		if current != nil {
			record, decodeErr := decodeLease(current)
			if decodeErr == nil && record.Acq == r.acq && current.Version > r.version {
				r.version, r.record = current.Version, *record
				continue
			}
		}
		if conflict {
			return !r.unknown, nil
		}
		r.unknown = r.unknown || errors.Is(err, kv.ErrUncertain)
		return false, err
	}
}

func (c *Client) freeVersion(ctx context.Context, r *row) error {
	key := leasePrefix + r.key
	previous := kv.NewPair(key, r.version, nil, time.Time{}, kv.Fields{acqField: r.acq})
	if !r.record.Keep {
		return c.store.AtomicDelete(ctx, key, previous, kv.WithAttemptTimeout(c.attemptTimeout()))
	}
	_, err := c.store.AtomicPut(ctx, key, kv.WithPrevious(previous), kv.WithJSON(r.record.unowned()), kv.WithAttemptTimeout(c.attemptTimeout()))
	return err
}
