// Package lifecycle is the way of a client from its beginning to the end of its
// Close: who uses it, whom Close waits for, what goes on in the background.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Lifecycle counts whom Close waits for, and runs what goes on in the background.
// Make one with New.
type Lifecycle struct {
	closedErr error
	// open ends, with closedErr as its cause, when Close begins. background ends
	// when Close is done.
	open, background context.Context
	shut             context.CancelCauseFunc
	stop             context.CancelFunc
	// idle is closed when Close has begun and there are no users, done when Close
	// has ended.
	idle, done chan struct{}
	// tasks are ours, foreign call code of the program.
	tasks, foreign sync.WaitGroup

	mu sync.Mutex
	// finished: idle is closed.
	closed, finished bool
	// outcome is that of Close, once done is closed.
	outcome error
	// calls are under way. users counts them, and the leases not released.
	calls map[*Use]struct{}
	users int
}

// Use is a call of a client's method. Close interrupts it and waits for it.
type Use struct {
	life   *Lifecycle
	cancel context.CancelCauseFunc
	// Stays: a lease came of it, which counts on as a user.
	Stays bool
}

// New makes a Lifecycle whose calls end with closed when Close begins.
func New(closed error) *Lifecycle {
	l := &Lifecycle{closedErr: closed, idle: make(chan struct{}), done: make(chan struct{}), calls: map[*Use]struct{}{}}
	l.background, l.stop = context.WithCancel(context.Background())
	l.open, l.shut = context.WithCancelCause(l.background)
	return l
}

// Begin begins a call, unless the client is closed. Its context ends with ctx, or
// with that of New as its cause when Close begins. The caller calls End.
func (l *Lifecycle) Begin(ctx context.Context) (context.Context, *Use, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, nil, l.closedErr
	}
	ctx, cancel := context.WithCancelCause(ctx)
	u := &Use{life: l, cancel: cancel}
	l.calls[u] = struct{}{}
	l.users++
	return ctx, u, nil
}

// End ends the call, but not the use that a lease makes of the client.
func (u *Use) End() {
	l := u.life
	l.mu.Lock()
	delete(l.calls, u)
	if !u.Stays {
		l.users--
	}
	l.finishLocked()
	l.mu.Unlock()
	u.cancel(nil)
}

// Enter counts one user more, also while Close waits.
func (l *Lifecycle) Enter() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.users++
}

// Leave ends a use.
func (l *Lifecycle) Leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.users--
	l.finishLocked()
}

// Count returns how many users there are, calls among them, for tests.
func (l *Lifecycle) Count() (users, calls int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.users, len(l.calls)
}

// Open is a context that ends, with the cause that New was given, when Close
// begins.
func (l *Lifecycle) Open() context.Context { return l.open }

// finishLocked closes idle once. A call that is under way is a user, also while the
// lease that it is about to give back has left for both: a max-hold or an operator
// may end that lease before the call has looked at it.
func (l *Lifecycle) finishLocked() {
	if l.closed && l.users == 0 && len(l.calls) == 0 && !l.finished {
		l.finished = true
		close(l.idle)
	}
}

// Start runs task in the background, until Close is done.
func (l *Lifecycle) Start(task func(ctx context.Context)) { l.start(&l.tasks, task) }

// Go is Start that tells when task has ended. Where Close is done, no task begins.
func (l *Lifecycle) Go(task func(ctx context.Context)) (ended <-chan struct{}) {
	end := make(chan struct{})
	if !l.start(&l.tasks, func(ctx context.Context) {
		defer close(end)
		task(ctx)
	}) {
		close(end)
	}
	return end
}

// StartForeign is Start for a task that calls code of the program, which may not
// return.
func (l *Lifecycle) StartForeign(task func(ctx context.Context)) { l.start(&l.foreign, task) }

func (l *Lifecycle) start(group *sync.WaitGroup, task func(ctx context.Context)) (started bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.background.Err() != nil {
		return false
	}
	group.Add(1)
	go func() {
		defer group.Done()
		task(l.background)
	}()
	return true
}

// IsClosed reports whether Close has begun.
func (l *Lifecycle) IsClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// Explain gives an error of a call that Close interrupted its true name.
func (l *Lifecycle) Explain(err error) error {
	if l.open.Err() != nil && errors.Is(err, context.Canceled) && !errors.Is(err, l.closedErr) {
		return fmt.Errorf("%w: %w", l.closedErr, err)
	}
	return err
}

// BeginClose refuses new calls and interrupts those under way. It reports whether
// it is the first.
func (l *Lifecycle) BeginClose() (first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.closed = true
	l.shut(l.closedErr)
	for u := range l.calls {
		u.cancel(l.closedErr)
	}
	l.finishLocked()
	return true
}

// Idle is closed when Close has begun and nobody uses the client any more.
func (l *Lifecycle) Idle() <-chan struct{} { return l.idle }

// StopBackground ends the background and waits for its goroutines. For those of
// StartForeign it waits until all of limits have ended. It reports whether they
// have.
func (l *Lifecycle) StopBackground(limits ...context.Context) bool {
	l.mu.Lock()
	l.stop()
	l.mu.Unlock()
	l.tasks.Wait()
	ended := make(chan struct{})
	go func() {
		l.foreign.Wait()
		close(ended)
	}()
	for _, limit := range limits {
		select {
		case <-ended:
			return true
		case <-limit.Done():
		}
	}
	select {
	case <-ended:
		return true
	default:
		return false
	}
}

// EndClose ends Close with an outcome.
func (l *Lifecycle) EndClose(outcome error) {
	l.mu.Lock()
	l.outcome = outcome
	l.mu.Unlock()
	close(l.done)
}

// Done is closed when Close has ended.
func (l *Lifecycle) Done() <-chan struct{} { return l.done }

// AwaitClosed waits for the end of Close, until ctx ends, and returns its outcome.
func (l *Lifecycle) AwaitClosed(ctx context.Context) error {
	select {
	case <-l.done:
	default:
		select {
		case <-l.done:
		case <-ctx.Done():
			return fmt.Errorf("lease: another Close goes on: %w", context.Cause(ctx))
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.outcome
}
