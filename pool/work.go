package pool

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// MaxCheckpointSize bounds a checkpoint, in bytes.
const MaxCheckpointSize = lease.MaxValueSize - maxHead

// Work is one call of a Handler, and what it has to know of its partition. It is
// safe for concurrent use.
type Work struct {
	claim  *claim
	lease  *lease.Lease
	cancel context.CancelCauseFunc

	mu sync.Mutex
	// steps counts the calls of Progress and the checkpoints. seen is what of them
	// the watchdog saw last change, at since.
	steps, lastSteps uint64
	since            clock.Reading
	timer            clock.Timer
	ended            bool
	// attempt is its number. lasting is the timer of getsOnAfter.
	attempt int
	lasting clock.Timer
}

// Name is the partition's name in its pool.
func (w *Work) Name() string { return w.claim.name }

// Key is the key of the partition's lease, for Client.Inspect and logs.
func (w *Work) Key() string { return w.lease.Key() }

// Token is the fencing token. See lease.Lease.Token.
func (w *Work) Token() uint64 { return w.lease.Token() }

// Attempt is 1, or one more than the attempts in a row that have failed. See
// WithMaxAttempts. Without that it counts those of this member alone.
func (w *Work) Attempt() int { return w.attempt }

// TakenOver reports whether the partition was taken from a member that died. See
// lease.Lease.TakenOver.
func (w *Work) TakenOver() bool { return w.lease.TakenOver() }

// Held reports whether the partition is this member's now. See lease.Lease.Held.
func (w *Work) Held() bool { return w.lease.Held() }

// Err returns nil while the partition is this member's, and why it is not
// afterwards. See lease.Lease.Err.
func (w *Work) Err() error { return w.lease.Err() }

// Remaining returns for how long the partition is this member's if no further
// heartbeat succeeds. See lease.Lease.Remaining.
func (w *Work) Remaining() time.Duration { return w.lease.Remaining() }

// Condition is the condition that the partition is still this member's, for the
// transaction that writes. See lease.Lease.Condition.
func (w *Work) Condition() kv.Condition { return w.lease.Condition() }

// Checkpoint returns what Save wrote last: in this call, an earlier one, or that
// of a predecessor. nil: nothing. The slice is the caller's. No I/O.
func (w *Work) Checkpoint() []byte {
	_, checkpoint, _ := decodeState(w.lease.Value()) // it was read before
	return checkpoint
}

// Save writes a checkpoint of at most MaxCheckpointSize bytes, from which whoever
// has the partition next goes on. It counts as Progress. It costs one write. On
// success Checkpoint returns it. Its errors are those of lease.Lease.Update.
func (w *Work) Save(ctx context.Context, checkpoint []byte) error {
	if len(checkpoint) > MaxCheckpointSize {
		return fmt.Errorf("pool: Save: a checkpoint of %d bytes, want at most %d: %w",
			len(checkpoint), MaxCheckpointSize, lease.ErrInvalid)
	}
	c := w.claim
	err := c.inTurn(ctx, func() error {
		return c.write(ctx, w.lease, state{Saved: c.member.clock.Now().Wall}, checkpoint)
	})
	if err == nil {
		w.Progress()
		c.getOn()
	}
	return err
}

// Draining returns a channel that is closed when the handler should finish its
// current piece of work, save a checkpoint and return: the partition moves, is
// paused or removed, or Run ends. The handler's context ends WithDrainTimeout
// later.
func (w *Work) Draining() <-chan struct{} { return w.claim.drained }

// Progress tells that the handler is getting on. See WithProgressTimeout. No I/O.
func (w *Work) Progress() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.steps++
}

// call calls the handler once. A panic is an error, with its stack.
func (c *claim) call(l *lease.Lease) (err error) {
	m := c.member
	ctx, cancel := context.WithCancelCause(m.values)
	defer cancel(nil)
	defer context.AfterFunc(l.Context(), func() { cancel(context.Cause(l.Context())) })()
	w := &Work{claim: c, lease: l, cancel: cancel, attempt: c.attempts()}
	c.setWork(w)
	w.watch()
	defer w.end()
	defer func() {
		if err == nil && errors.Is(context.Cause(ctx), ErrStuck) {
			err = ErrStuck
		}
	}()
	defer func() {
		if reason := recover(); reason != nil {
			err = fmt.Errorf("pool: the handler panicked: %v\n%s", reason, debug.Stack())
		}
	}()
	return m.handle(ctx, w)
}

// setWork notes a call that begins, whose context ends when draining takes too
// long.
func (c *claim) setWork(w *Work) {
	c.member.mu.Lock()
	defer c.member.mu.Unlock()
	c.work = w
	if c.timedOut {
		w.cancel(ErrDrainTimeout)
	}
}

// force ends the context of a handler that was asked to stop and has not.
func (c *claim) force() {
	c.member.mu.Lock()
	defer c.member.mu.Unlock()
	c.timedOut = true
	if c.work != nil {
		c.work.cancel(ErrDrainTimeout)
	}
}

// watch looks for progress now and then, if there is a bound for it, and whether
// the attempt lasts, if those that do not are counted.
func (w *Work) watch() {
	m := w.claim.member
	w.mu.Lock()
	defer w.mu.Unlock()
	if m.progress > 0 {
		w.since = m.clock.Now()
		w.timer = m.clock.AfterFunc(m.progress/8, w.check)
	}
	if m.maxAttempts > 0 {
		w.lasting = m.clock.AfterFunc(getsOnAfter, w.lasts)
	}
}

// lasts is what the timer of getsOnAfter calls.
func (w *Work) lasts() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ended {
		w.claim.member.wait.Go(func() {
			w.claim.rewrite(w.lease, state{})
			w.claim.getOn()
		})
	}
}

// check is what the watchdog's timer calls.
func (w *Work) check() {
	m := w.claim.member
	w.mu.Lock()
	defer w.mu.Unlock()
	now := m.clock.Now()
	if w.steps != w.lastSteps {
		w.lastSteps, w.since = w.steps, now
	}
	left := m.progress - now.MonotonicSince(w.since)
	switch {
	case w.ended:
	case left > 0:
		w.timer.Reset(min(left, max(m.progress/8, time.Millisecond)))
	default:
		w.cancel(ErrStuck)
		w.claim.failed(EventStuck, w.lease, ErrStuck)
	}
}

// end stops the timers.
func (w *Work) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	for _, t := range []clock.Timer{w.timer, w.lasting} {
		if t != nil {
			t.Stop()
		}
	}
}
