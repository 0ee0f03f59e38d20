package lease

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/internal/session"
	"github.com/dynalock/dynalock/kv"
)

// Lease is one acquisition of one key. It is held until Release, Close of its
// client, or the loss of the client's session, whichever is first. Once it is
// not held it never is again. It is safe for concurrent use.
//
// A Lease is not proof of exclusion for its resource. Between a check of Held and
// the act that follows, the process may be paused for longer than the lease
// lasts. Pass Token to the resource and let it refuse older ones.
//
// A nil Lease, as comes with an error, is one that is not held: Release returns
// nil, Err matches ErrNotHeld, and the context has ended.
type Lease struct {
	client  *Client
	session *session.Session
	key     string
	row     string // its key in the store
	token   uint64
	hold    *hold // nil without a max-hold
	minHold time.Duration
	ctx     context.Context
	cancel  context.CancelCauseFunc
	emitted atomic.Bool // that it ended is an event already

	mu sync.Mutex
	// record is the row as this lease last wrote it, with that version.
	record  rows.Lease
	version uint64
	// updating is held during an Update; made by the first.
	updating chan struct{}
	// releasing: the first Release has begun. done: it has ended, with outcome.
	// released is made by the second one, and closed then.
	releasing, done bool
	released        chan struct{}
	outcome         error
	// granted is when the lease was granted, stint since when this client has had
	// the key in one go, and rested when it last left the key free for a minimum
	// poll (R15). All are by the monotonic clock.
	granted, stint, rested time.Duration
}

// hold is the bound that WithMaxHold sets.
type hold struct {
	began clock.Reading
	limit time.Duration
	timer clock.Timer // guarded by Lease.mu
}

// Key returns the key that was acquired.
func (l *Lease) Key() string {
	if l == nil {
		return ""
	}
	return l.key
}

// Token returns the fencing token. Of any two acquisitions of a key the later
// one has the greater token, across crashes, releases and restarts. A resource
// that refuses tokens smaller than one it has seen is safe from a holder that
// was paused.
func (l *Lease) Token() uint64 {
	if l == nil {
		return 0
	}
	return l.token
}

// TakenOver reports whether this acquisition took the key from a session that
// ended without releasing it: it died, or its client was closed. The
// predecessor's work may be half done. False is no proof that it is whole: a
// client may take a key over and die in its turn.
func (l *Lease) TakenOver() bool {
	if l == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.record.Taken
}

// Value returns the value of the lease, the first of these that there is:
//
//   - the last one that Update is known to have written;
//   - that of WithReplaceValue;
//   - what the last holder left, where the key keeps its value;
//   - that of WithValue;
//   - nil.
//
// The slice is the caller's to keep. No I/O.
func (l *Lease) Value() []byte {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.record.Value)
}

// Version returns the version that the lease's row had when this lease last wrote
// it, for whoever compares rows: see Holder.Version. No I/O.
func (l *Lease) Version() uint64 {
	if l == nil {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.version
}

// Condition returns the condition that the lease's row is still that of this
// acquisition. Put it into the transaction that writes the guarded data (for
// DynamoDB: (*dynamokv.Store).ConditionCheck). Then whoever has lost the lease to
// another cannot write, which no lock can promise by itself. The condition is in
// terms of the driver's keys, whatever wrappers the client's store has. That of a nil
// Lease has no key, which no store takes for true.
func (l *Lease) Condition() kv.Condition {
	if l == nil {
		return kv.Condition{Field: rows.AcqField}
	}
	return kv.ResolveCondition(l.client.store, kv.Condition{Key: l.row, Field: rows.AcqField, Value: l.acq()})
}

// acq is the acquisition id, which never changes.
func (l *Lease) acq() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.record.Acq
}

// Context returns a context that ends when the lease does. context.Cause is then
// a *LostError that says why. The context ends by the trust deadline at the
// latest, whether or not the store answers.
func (l *Lease) Context() context.Context {
	if l == nil {
		return ended
	}
	return l.ctx
}

// ended is the context of a nil Lease.
var ended = func() context.Context {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel((*Lease)(nil).Err())
	return ctx
}()

// Held reports whether the lease is held. It is computed from the clocks now, so
// that no late timer matters. No I/O.
func (l *Lease) Held() bool { return l.Err() == nil }

// Err returns nil while the lease is held. Afterwards it returns the *LostError
// that says why it is not, for ever.
func (l *Lease) Err() error {
	if lost := l.lost(); lost != nil {
		return lost
	}
	return nil
}

// lost is why the lease is not held, nil if it is. What the clocks tell is
// latched (R5).
func (l *Lease) lost() *LostError {
	if l == nil {
		return &LostError{Reason: ReasonReleased}
	}
	if l.ctx.Err() == nil {
		switch reason := l.session.Reason(); {
		case reason != "":
			l.cancel(&LostError{Reason: Reason(reason)})
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
	l.emitEnd(l.reason(), reason == ReasonReleased)
}

// holdLeft is how much of the max-hold is left, by the holder's clocks (R4).
func (l *Lease) holdLeft() time.Duration {
	if l.hold == nil {
		return MaxTTL // longer than any trust
	}
	return l.hold.limit - l.client.clock.Now().Since(l.hold.began)
}

// watchHold ends the lease when it was held for as long as its max-hold allows.
// The timer runs on one clock and the max-hold on three (R4), so it looks several
// times in a margin.
func (l *Lease) watchHold() {
	switch {
	case l.holdLeft() <= 0:
		l.lose(ReasonMaxHold)
		if l.reason() == ReasonMaxHold { // else it was lost before
			l.client.life.Start(func(ctx context.Context) { l.releaseAfterMargin(ctx) })
		}
	case l.ctx.Err() == nil:
		l.mu.Lock()
		defer l.mu.Unlock()
		l.hold.timer.Reset(l.untilHoldCheck())
	}
}

// stopHold ends the watch over the max-hold of a lease that has ended.
func (l *Lease) stopHold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.hold != nil && l.hold.timer != nil {
		l.hold.timer.Stop()
	}
}

// untilHoldCheck is when watchHold should look next.
func (l *Lease) untilHoldCheck() time.Duration {
	return max(min(l.holdLeft(), l.client.margin/2), time.Nanosecond)
}

// Remaining returns how long the lease is held if no further heartbeat succeeds.
// It is 0 if the lease is not held. No I/O.
func (l *Lease) Remaining() time.Duration {
	if l.lost() != nil {
		return 0
	}
	return max(0, min(l.session.Remaining(), l.holdLeft()))
}

// Update changes the lease's value, at most MaxValueSize bytes: a checkpoint, or
// what a leader proclaims. It costs one write, conditional on this acquisition,
// so that it never changes another's row, and one more if others have begun to wait
// for their turn (see WithTurnAfter). Updates of one lease wait for each
// other.
//
//   - nil: the value is written. Value returns it.
//   - An error that matches ErrLost or ErrNotHeld: the lease has ended. The
//     value is not written, unless the error matches kv.ErrUncertain too: then
//     a request was under way.
//   - An error that matches kv.ErrUncertain: the value may be written now, or at
//     any time until the next Update or Release. Value returns the old one.
//   - Any other error: the value is not written.
func (l *Lease) Update(ctx context.Context, value []byte) error {
	if err := checkValue("Update", value); err != nil {
		return err
	}
	if l == nil {
		return l.Err()
	}
	slot := l.updateSlot()
	select {
	case slot <- struct{}{}:
		defer func() { <-slot }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	caller := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(l.ctx, func() { cancel(l.Err()) })()
	err := l.update(ctx, bytes.Clone(value))
	switch lost := l.lost(); {
	case lost != nil && errors.Is(err, kv.ErrUncertain):
		return errors.Join(lost, err)
	case lost != nil && caller.Err() == nil && errors.Is(err, context.Canceled):
		return lost // that was canceled here
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
