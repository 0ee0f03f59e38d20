package lease

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
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
	row     string // its key in the store
	token   uint64
	hold    *hold // nil without a max-hold
	ctx     context.Context
	cancel  context.CancelCauseFunc
	told    atomic.Bool // the observer knows how it ended

	mu sync.Mutex
	// record is the row as this lease last wrote it, version the one it then had.
	record  leaseRecord
	version uint64
	// updating is held during an Update; made by the first.
	updating chan struct{}
	// releasing: the first Release has begun; done: and ended, with outcome; released, made by the second, is closed then.
	releasing, done bool
	released        chan struct{}
	outcome         error
	// granted is when the lease was granted, stint since when this client has
	// the key in one go (R15), both by the monotonic clock.
	granted, stint time.Duration
}

// hold is the bound that WithMaxHold sets.
type hold struct {
	began clock.Reading
	limit time.Duration
}

// Key returns the key that was acquired.
func (l *Lease) Key() string { return l.key }

// Token returns the fencing token: of any two acquisitions of a key the later has the greater token, across
// crashes, releases and restarts. A resource that refuses tokens smaller than one it has seen is safe even from a holder that was paused.
func (l *Lease) Token() uint64 { return l.token }

// TakenOver reports whether this acquisition took the key from a session that had ended with the lease unreleased, so that the predecessor's
// work may be half done: it died, or its client was closed. false is not proof of the contrary, where the client that took it over died in its turn.
func (l *Lease) TakenOver() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.record.Taken
}

// Value returns the value of the lease: the last one that Update is known to have written, else what the last holder left where the key keeps its
// value, else that of WithValue, else nil. It is the caller's to keep. No I/O.
func (l *Lease) Value() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.record.Value)
}

// Condition returns the condition that the lease's row is still that of this acquisition. Put into the transaction that
// writes the guarded data (for DynamoDB: (*dynamokv.Store).ConditionCheck) it closes the gap that no lock can: who has lost the lease to another cannot
// write. It is in terms of the driver's keys, whatever wrappers the client's store has.
func (l *Lease) Condition() kv.Condition {
	return kv.ResolveCondition(l.client.store, kv.Condition{Key: l.row, Field: acqField, Value: l.acq()})
}

// acq is the acquisition id, which never changes.
func (l *Lease) acq() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.record.Acq
}

// Context returns a context that ends when the lease does; context.Cause is then a *LostError that says why. A loss
// is signalled by the trust deadline at the latest, whether or not the store answers.
func (l *Lease) Context() context.Context { return l.ctx }

// Held reports whether the lease is held, computed from the clocks now: no I/O, and no waiting for a timer that may be late.
func (l *Lease) Held() bool { return l.Err() == nil }

// Err returns nil while the lease is held, and then for ever the *LostError that says why it is not.
func (l *Lease) Err() error {
	if lost := l.lost(); lost != nil {
		return lost
	}
	return nil
}

// lost is why the lease is not held, nil if it is. What the clocks tell is latched (R5).
func (l *Lease) lost() *LostError {
	if l.ctx.Err() == nil {
		switch lost := l.session.err(); {
		case lost != nil:
			l.cancel(lost)
		case l.holdLeft() <= 0:
			l.lose(ReasonMaxHold)
		default:
			return nil
		}
	}
	return &LostError{Key: l.key, Reason: l.reason()}
}

// reason is why the context of the lease ended.
func (l *Lease) reason() Reason {
	if cause, ok := context.Cause(l.ctx).(*LostError); ok { //nolint:errorlint // every cause is made here
		return cause.Reason
	}
	return ReasonExpired
}

// lose ends the lease, unless it has ended already.
func (l *Lease) lose(reason Reason) {
	l.cancel(&LostError{Key: l.key, Reason: reason})
	l.tellEnd(l.reason(), reason == ReasonReleased)
}

// holdLeft is for how long the max-hold lets the lease be held, by the holder's clocks (R4).
func (l *Lease) holdLeft() time.Duration {
	if l.hold == nil {
		return MaxTTL // longer than any trust
	}
	return l.hold.limit - l.client.clock.Now().Since(l.hold.began)
}

// Remaining returns for how long the lease is held if no further heartbeat succeeds, 0 if it is not held. No I/O.
func (l *Lease) Remaining() time.Duration {
	if l.lost() != nil {
		return 0
	}
	return max(0, min(l.session.remaining(), l.holdLeft()))
}

// Update changes the lease's value, at most MaxValueSize bytes: a checkpoint, or what a leader proclaims. It costs one write, conditional on
// this acquisition: nobody else's row is ever changed.
//
// nil: the value is written, and Value returns it. An error that matches ErrLost or ErrNotHeld: it is not, the lease has ended. One that matches
// kv.ErrUncertain: it may be, or may be still until the next Update or Release; Value returns the old one. Any other: it is not.
// An Update ends with the lease, then with both errors where a request was on its way. Updates of one lease wait for each other.
func (l *Lease) Update(ctx context.Context, value []byte) error {
	if err := checkValue("Update", value); err != nil {
		return err
	}
	slot := l.updateSlot()
	select {
	case slot <- struct{}{}:
		defer func() { <-slot }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(l.ctx, func() { cancel(l.Err()) })()
	err := l.update(ctx, bytes.Clone(value))
	if lost := l.lost(); lost != nil && errors.Is(err, kv.ErrUncertain) {
		return errors.Join(lost, err)
	}
	return err
}

func (l *Lease) updateSlot() chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.updating == nil {
		l.updating = make(chan struct{}, 1)
	}
	return l.updating
}
