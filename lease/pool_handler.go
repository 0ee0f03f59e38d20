package lease

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
)

// callKey is the key of a *call in a handler's context.
type callKey struct{}

// call is one call of the handler.
type call struct {
	claim  *claim
	lease  *Lease
	cancel context.CancelCauseFunc

	mu sync.Mutex
	// steps counts the calls of Progress. seen are the steps and the lease's version that the watchdog saw last change, at since.
	steps uint64
	seen  [2]uint64
	since clock.Reading
	timer clock.Timer
	ended bool
}

// Draining returns a channel that is closed when the handler that was given ctx should finish its current piece of work, write its checkpoint and
// return: the partition moves, is paused or removed, or Run ends. Its context ends WithDrainTimeout later. nil, which
// is never closed, for a context that is not of a Pool's handler.
func Draining(ctx context.Context) <-chan struct{} {
	if call, ok := ctx.Value(callKey{}).(*call); ok {
		return call.claim.draining
	}
	return nil
}

// Progress tells that the handler that was given ctx is getting on. See WithProgressTimeout. No I/O.
func Progress(ctx context.Context) {
	if call, ok := ctx.Value(callKey{}).(*call); ok {
		call.mu.Lock()
		defer call.mu.Unlock()
		call.steps++
	}
}

// call calls the handler once. A panic is an error, whose stack is logged.
func (c *claim) call(l *Lease) (err error) {
	m := c.member
	this := &call{claim: c, lease: l}
	ctx, cancel := context.WithCancelCause(context.WithValue(m.values, callKey{}, this))
	this.cancel = cancel
	defer cancel(nil)
	defer context.AfterFunc(l.Context(), func() { cancel(context.Cause(l.Context())) })()
	c.setCall(this)
	this.watch()
	defer this.end()
	defer func() {
		if err == nil && errors.Is(context.Cause(ctx), ErrStuck) {
			err = ErrStuck
		}
	}()
	defer func() {
		if reason := recover(); reason != nil {
			err = fmt.Errorf("lease: the handler panicked: %v\n%s", reason, debug.Stack())
		}
	}()
	return m.handle(ctx, l)
}

// setCall notes a call that begins, whose context ends when draining takes too long.
func (c *claim) setCall(call *call) {
	m := c.member
	m.mu.Lock()
	defer m.mu.Unlock()
	c.calling = call
	if c.overdue {
		call.cancel(ErrDrainTimeout)
	}
}

// hurry ends the context of a handler that was asked to stop and has not.
func (c *claim) hurry() {
	m := c.member
	m.mu.Lock()
	defer m.mu.Unlock()
	c.overdue = true
	if c.calling != nil {
		c.calling.cancel(ErrDrainTimeout)
	}
}

// watch looks for progress now and then, if there is a bound for it.
func (call *call) watch() {
	m := call.claim.member
	if m.progress == 0 {
		return
	}
	call.mu.Lock()
	defer call.mu.Unlock()
	call.seen, call.since = call.progressLocked(), m.client.clock.Now()
	call.timer = m.client.clock.AfterFunc(m.progress/8, call.check)
}

// progressLocked is something that changes with every call of Progress and every checkpoint.
func (call *call) progressLocked() [2]uint64 {
	call.lease.mu.Lock()
	defer call.lease.mu.Unlock()
	return [2]uint64{call.steps, call.lease.version}
}

// check is what the watchdog's timer calls.
func (call *call) check() {
	m := call.claim.member
	call.mu.Lock()
	defer call.mu.Unlock()
	now, seen := m.client.clock.Now(), call.progressLocked()
	if seen != call.seen {
		call.seen, call.since = seen, now
	}
	left := m.progress - now.MonotonicSince(call.since)
	switch {
	case call.ended:
	case left > 0:
		call.timer.Reset(min(left, max(m.progress/8, time.Millisecond)))
	default:
		call.cancel(ErrStuck)
		call.claim.failed(EventStuck, call.lease, ErrStuck)
	}
}

// end stops the watchdog.
func (call *call) end() {
	call.mu.Lock()
	defer call.mu.Unlock()
	call.ended = true
	if call.timer != nil {
		call.timer.Stop()
	}
}
