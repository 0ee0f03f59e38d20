package lease

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/internal/session"
	"github.com/dynalock/dynalock/kv"
)

// update is the body of Update. What an earlier one of unknown outcome has written
// is found by its acquisition id, and adopted.
func (l *Lease) update(ctx context.Context, value []byte) error {
	l.mu.Lock()
	record, version := l.record, l.version
	l.mu.Unlock()
	record.Value, record.Token = value, l.token
	for {
		if lost := l.lost(); lost != nil {
			return lost
		}
		previous := kv.NewPair(l.row, version, nil, time.Time{}, nil)
		pair, err := l.client.store.AtomicPut(ctx, previous.Key, record.Options(previous, l.client.attempts)...)
		if err == nil {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.record, l.version = record, pair.Version
			return nil
		}
		current, _ := rows.CurrentPair(err)
		if current == nil || current.Version <= version {
			return l.updateFailed(version, err)
		}
		found, decodeErr := rows.DecodeLease(current)
		if decodeErr != nil || found.Acq != record.Acq {
			return l.updateFailed(version, err)
		}
		version, record.Note, record.Queue = current.Version, found.Note, found.Queue
	}
}

// updateFailed is why an update over version failed. Where the row is another's,
// the lease is lost.
func (l *Lease) updateFailed(version uint64, err error) error {
	current, conflict := rows.CurrentPair(err)
	if conflict || (current != nil && current.Version != version) {
		l.lose(ReasonBroken)
		l.client.wake(l.key)
	}
	if conflict {
		return l.Err()
	}
	return fmt.Errorf("lease: updating %q: %w", l.key, err)
}

// Release gives the key back. The lease ends before anything is sent, so stop the
// work first. It costs one write, and one more if others have begun to wait for
// their turn since the lease last wrote its row (see WithTurnAfter). It works
// after ctx has ended too: it bounds itself to a third of the TTL, 2 to 10 s.
// Releasing again returns what the first call returned.
//
//   - nil: the key is free, or another has it by now. While Close goes on: the
//     key is free when Close succeeds. With WithMinHold: it will be free.
//   - An error that matches ErrLost: the lease had been lost before. Others may
//     hold the key.
//   - Any other error: the outcome is unknown. Where answers are lost, Release
//     asks twice before it says so. It goes on in the background until it knows.
func (l *Lease) Release(ctx context.Context) error {
	if l == nil {
		return nil
	}
	return l.releaseOnce(ctx, nil)
}

// ReleaseWith is Release that leaves value behind, in the same write, for the
// next holder. The key must keep its value (KeepValue). For any other key the
// error matches ErrInvalid, and the lease is still held. Where the lease was
// released before, it returns what that call returned.
//
//   - nil: value is written, also while Close waits for this call.
//   - An error that matches ErrLost: the lease had been lost before. value is
//     written only if WithMaxHold or Break had ended the lease and the row was
//     still this acquisition's.
//   - Any other error: it is unknown whether value is written. The release goes
//     on in the background until it knows, also beyond the end of the session. It
//     stops when somebody else has the key, or the client is closed.
func (l *Lease) ReleaseWith(ctx context.Context, value []byte) error {
	if err := checkValue("ReleaseWith", value); err != nil {
		return err
	}
	if l == nil {
		return l.Err()
	}
	if !l.keeps() {
		return fmt.Errorf("lease: ReleaseWith: %q does not keep its value, acquire it with KeepValue: %w",
			l.key, ErrInvalid)
	}
	return l.releaseOnce(ctx, append([]byte{}, value...))
}

// keeps reports whether the key keeps its value, which never changes.
func (l *Lease) keeps() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.record.Keep
}

// releaseOnce gives the key back, leaving value unless it is nil. Who comes later
// waits and gets the same outcome.
func (l *Lease) releaseOnce(ctx context.Context, value []byte) error {
	l.mu.Lock()
	if !l.releasing {
		l.releasing = true
		l.mu.Unlock()
		_, err := l.client.traced(ctx, Call{"Release", l.key}, func(ctx context.Context) (*Lease, error) {
			return l, l.release(ctx, value)
		})
		l.mu.Lock()
		defer l.mu.Unlock()
		l.done, l.outcome = true, err
		if l.released != nil {
			close(l.released)
		}
		return err
	}
	if l.done {
		defer l.mu.Unlock()
		return l.outcome
	}
	if l.released == nil {
		l.released = make(chan struct{})
	}
	l.mu.Unlock()
	<-l.released
	return l.outcome
}

// releaseAfterMargin gives a lease back that was taken from its holder, after the
// margin that the holder has to stop.
func (l *Lease) releaseAfterMargin(ctx context.Context) {
	if clock.Sleep(ctx, l.client.clock, l.client.margin) != nil || l.isReleasing() {
		return
	}
	_ = l.releaseOnce(ctx, nil) // what fails goes on in the background
}

// isReleasing reports whether the first Release has begun, or the lease was never
// granted.
func (l *Lease) isReleasing() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.releasing
}

// release is the body of Release (R13).
func (l *Lease) release(ctx context.Context, value []byte) error {
	if l.lost() == nil {
		l.lose(ReasonReleased)
	}
	reason := l.reason() // another loss may have come first
	l.stopHold()
	l.emitEnd(reason, reason == ReasonClosed)
	if left := l.minHoldLeft(reason); left > 0 {
		return l.releaseLater(ctx, left, reason, value)
	}
	defer l.client.life.Leave()
	return l.releaseNow(ctx, reason, value)
}

// releaseNow gives a lease back that has ended for that reason.
func (l *Lease) releaseNow(ctx context.Context, reason Reason, value []byte) error {
	c := l.client
	ctx, cancel := c.clock.WithTimeout(context.WithoutCancel(ctx), c.cleanupTimeout())
	defer cancel()
	l.mu.Lock()
	r := &row{key: l.key, row: l.row, acq: l.record.Acq, version: l.version, record: l.record, leave: value}
	l.mu.Unlock()
	switch reason {
	case ReasonReleased:
		if c.handOver(ctx, l, r) {
			return nil
		}
		return l.free(ctx, r, reason)
	case ReasonRevoked, ReasonMaxHold:
		return l.free(ctx, r, reason)
	case ReasonClosed:
		return l.freeClosing(ctx, r)
	}
	c.untrack(r.acq)
	c.wake(l.key)
	return &LostError{Key: l.key, Reason: reason}
}

// freeClosing gives the row of a lease back that Close has ended.
func (l *Lease) freeClosing(ctx context.Context, r *row) error {
	end := Reason(l.session.Reason())
	if (r.leave != nil || r.record.Delay > 0) && end == "" {
		return l.free(ctx, r, ReasonReleased) // else the value is lost, or others wait for the lock-delay
	}
	l.client.untrack(r.acq)
	if r.leave == nil && (end == "" || end == ReasonClosed) {
		return nil // Close waits for this call and then frees the row with the session
	}
	return &LostError{Key: l.key, Reason: ReasonClosed}
}

// free gives the row of a latched lease back.
func (l *Lease) free(ctx context.Context, r *row, reason Reason) error {
	foreign, err := l.client.freeOrGoOn(ctx, l.session, r)
	switch {
	case err != nil:
		return fmt.Errorf("lease: releasing %q goes on in the background: %w", l.key, err)
	case reason != ReasonReleased:
		return &LostError{Key: l.key, Reason: reason}
	case foreign && !r.unknown:
		return &LostError{Key: l.key, Reason: ReasonBroken}
	case foreign && r.leave != nil:
		return fmt.Errorf("lease: %q was released, perhaps without its value: %w", l.key, kv.ErrUncertain)
	}
	return nil
}

// freeOrGoOn frees a row of session s. Where the outcome is unknown when ctx ends,
// it goes on in the background until the outcome is known. If no value is to be
// left, the session's death is enough. The acquisition stays tracked until then.
func (c *Client) freeOrGoOn(ctx context.Context, s *session.Session, r *row) (foreign bool, err error) {
	if foreign, err = c.free(ctx, r); err == nil {
		c.turnEnded(r.key)
		c.untrack(r.acq)
		c.wake(r.key)
		return foreign, nil
	}
	c.life.Start(func(ctx context.Context) {
		defer c.wake(r.key)
		defer c.untrack(r.acq)
		err := c.untilKnown(ctx, func() error {
			if r.leave == nil && r.record.Delay == 0 && s.IsDeleted() { // a value is left only by a write
				return nil
			}
			_, err := c.free(ctx, r)
			return err
		})
		if err != nil && r.record.Delay > 0 { // Close is done, and others would wait
			ctx, cancel := c.clock.WithTimeout(context.WithoutCancel(ctx), c.attemptTimeout())
			defer cancel()
			_, _ = c.free(ctx, r)
		}
	})
	return false, err
}

// row is a lease row of ours that is being freed.
type row struct {
	key, row string // row is its key in the store
	acq      string
	version  uint64
	record   rows.Lease
	// leave is the value to leave behind in a row that keeps one. nil: the one that
	// it has.
	leave []byte
	// unknown: an attempt of ours may have freed it.
	unknown bool
}

// pair is the row as the previous pair of a conditional write.
func (r *row) pair() *kv.KVPair {
	return kv.NewPair(r.row, r.version, nil, time.Time{}, nil)
}

// free deletes a row of ours. One that keeps its value is written unowned (R19),
// and so is one that somebody waits for (R20). Its version may have risen since
// r.version. foreign: the row is not ours any more; if r.unknown that may have been
// our own doing. An error: not known yet, ask again.
func (c *Client) free(ctx context.Context, r *row) (foreign bool, err error) {
	for {
		err := c.freeVersion(ctx, r)
		if err == nil {
			return false, nil
		}
		asked := r.unknown
		r.unknown = asked || errors.Is(err, kv.ErrUncertain)
		current, conflict := rows.CurrentPair(err)
		switch {
		case current != nil && r.adopt(current):
		case conflict, current != nil && current.Version != r.version:
			return !r.left(current), nil // no attempt of ours can be applied any more
		case asked || !r.unknown || ctx.Err() != nil:
			return false, err
		}
	}
}

// adopt takes over what the row says by now, if it is still ours. Then no attempt to
// free it was applied.
func (r *row) adopt(current *kv.KVPair) bool {
	record, err := rows.DecodeLease(current)
	if err != nil || record.Acq != r.acq || current.Version <= r.version { // what cannot be read is not ours
		return false
	}
	r.version, r.record, r.unknown = current.Version, *record, false
	return true
}

// left reports whether the row that was found in the place of ours has the
// value that an attempt of ours may have left.
func (r *row) left(current *kv.KVPair) bool {
	if !r.unknown || r.leave == nil || current == nil {
		return false
	}
	found, err := rows.DecodeLease(current)
	return err == nil && found.Keep && bytes.Equal(found.Value, r.leave)
}

func (c *Client) freeVersion(ctx context.Context, r *row) error {
	previous := r.pair()
	if !r.record.Keep && len(r.record.Queue) == 0 {
		return c.store.AtomicDelete(ctx, previous.Key, previous, c.attempts)
	}
	free := r.record.Freed(c.clock.Now().Wall)
	if r.leave != nil {
		free.Value = bytes.Clone(r.leave)
	}
	linedUp := c.lineUpAgain(r.key, &free)
	pair, err := c.store.AtomicPut(ctx, previous.Key, free.Options(previous, c.attempts)...)
	if linedUp && err == nil {
		c.noteLinedUp(r.key, &rows.Found{Pair: pair, Record: &free})
	}
	return err
}
