package lock

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/lease"
)

// MaxResultSize bounds the value of an outcome, in bytes.
const MaxResultSize = 64 << 10

// Run is a slot that was claimed and that its claimer is running, from Once.Claim.
// Finish ends it. It is safe for concurrent use.
type Run struct {
	lease   *lease.Lease
	outcome Outcome
	// value is what execute leaves as the outcome's.
	value []byte

	mu       sync.Mutex
	finished bool
	err      error
}

// Claim claims the slot for a caller that runs the work by itself, such as a
// scheduler that locks and unlocks. It is Do in two halves: on success the slot is
// running, and the caller works until the context of the Run's lease ends, and
// then calls Finish. If it never does, the slot stays running for as long as the
// client lives, and is abandoned then.
//
// On failure nothing is claimed:
//
//   - An error that matches ErrDone, as a *FinishedError: the slot is done. Its
//     Outcome has the value.
//   - An error that matches lease.ErrHeld: the slot runs elsewhere.
//   - ErrFailed or ErrAbandoned, as a *FinishedError: the slot is settled so.
//   - Any other error: as with Do.
//
// It costs what Do costs but the last write, which is Finish's.
func (o *Once) Claim(ctx context.Context, slot string) (*Run, error) {
	key, err := o.key("Claim", slot)
	if err != nil {
		return nil, err
	}
	return o.begin(ctx, key, slot)
}

// Lease returns the lease under which the slot runs. Its value is the outcome's:
// leave it alone. Its Release leaves the slot abandoned.
func (r *Run) Lease() *lease.Lease { return r.lease }

// Attempt counts the runs of the slot, from 1.
func (r *Run) Attempt() int { return r.outcome.Attempt }

// Finish gives the slot back and records how it went: as done if failure is nil,
// else as failed, with the failure's text up to 1 KiB. value is kept with it, for
// Outcome.Value, at most MaxResultSize bytes. It works after ctx has ended too. It
// costs one write. Finishing again returns what the first call returned.
//
//   - nil: the outcome is recorded.
//   - An error that matches lease.ErrInvalid: value is too large. The slot still
//     runs, so finish it with another value.
//   - An error that matches lease.ErrLost: the lease ended before. The outcome is
//     not recorded. The slot may be abandoned or taken over.
//   - An error that matches kv.ErrUncertain: recording goes on in the background.
func (r *Run) Finish(ctx context.Context, value []byte, failure error) error {
	if len(value) > MaxResultSize {
		return fmt.Errorf("lock: Finish: a value of %d bytes, want at most %d: %w",
			len(value), MaxResultSize, lease.ErrInvalid)
	}
	if failure != nil {
		return r.record(ctx, StateFailed, value, failure.Error())
	}
	return r.record(ctx, StateDone, value, "")
}

// record records the outcome, the first time.
func (r *Run) record(ctx context.Context, state State, value []byte, text string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.finished {
		return r.err
	}
	outcome := r.outcome
	outcome.State, outcome.Value, outcome.Error, outcome.Ended = state, value, text, clock.System.Now().Wall
	r.finished, r.err = true, leave(ctx, r.lease, outcome)
	return r.err
}

// OnceValue returns the value that fn computes for the slot, the same one to every
// caller, however many ask and however late. The first call runs fn as Once.Do
// does, and keeps the value in the slot's outcome. So it is a guard for what must
// not be done twice: the slot is the id of a request, the value its answer.
//
// The value is kept as JSON of at most MaxResultSize bytes. The caller that
// computed it gets the value that fn returned, the others one decoded from that.
// It is kept for as long as the outcome: see WithRetention.
//
// The error is nil if fn's value is kept, or was kept before. If fn did not run in
// this call, nor was a value kept, the error is that of Do, and the value zero:
//
//   - An error that matches lease.ErrHeld: another call is at it. With the option
//     Wait, OnceValue waits for that.
//   - ErrFailed or ErrAbandoned, as a *FinishedError. See RetryFailed and TakeOver.
//   - An error that matches kv.ErrFormat: the slot is done, and what it keeps
//     is no T.
//
// If fn ran and returned nil, the value comes with every error, since what fn did
// is done: lease.ErrLost and kv.ErrUncertain say that it may not be kept. A value
// that cannot be kept, by its type or its size, makes the slot a failed one.
//
// It costs what Do costs: one read if the value is there, and a read and three
// writes for who computes it.
func OnceValue[T any](
	ctx context.Context, once *Once, slot string, fn func(ctx context.Context, l *lease.Lease) (T, error),
) (T, error) {
	var value, none T
	if once == nil {
		return none, errNoClient("OnceValue")
	}
	if fn == nil {
		return none, errNoFunc("OnceValue")
	}
	key, err := once.key("OnceValue", slot)
	if err != nil {
		return none, err
	}
	run, err := once.begin(ctx, key, slot)
	if err != nil {
		return keptValue[T](key, err)
	}
	computed := false
	err = execute(ctx, run, func(ctx context.Context, l *lease.Lease) (err error) {
		if value, err = fn(ctx, l); err != nil {
			return err
		}
		computed = true
		run.value, err = encodeValue(key, value)
		return err
	})
	if !computed {
		return none, err
	}
	return value, err
}

// encodeValue is what a slot keeps of a value.
func encodeValue(key string, value any) ([]byte, error) {
	text, err := json.Marshal(value)
	switch {
	case err != nil:
		return nil, fmt.Errorf("lock: the value of %q cannot be kept: %w", key, err)
	case len(text) > MaxResultSize:
		return nil, fmt.Errorf("lock: the value of %q takes %d bytes of JSON, want at most %d: %w",
			key, len(text), MaxResultSize, lease.ErrInvalid)
	}
	return text, nil
}

// keptValue is the value of a slot that err says is done. Otherwise it returns
// err.
func keptValue[T any](key string, err error) (T, error) {
	var value, none T
	var finished *FinishedError
	if !errors.As(err, &finished) || finished.Outcome.State != StateDone {
		return none, err
	}
	if err := json.Unmarshal(finished.Outcome.Value, &value); err != nil {
		return none, formatError(key, fmt.Sprintf("its value of %d bytes is no %T: %v",
			len(finished.Outcome.Value), value, err))
	}
	return value, nil
}
