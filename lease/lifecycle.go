package lease

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// lifecycle is a client's way from New to the end of Close. It counts whom Close
// waits for, and runs what goes on in the background.
type lifecycle struct {
	// open ends, with ErrClosed as its cause, when Close begins. background ends
	// when Close is done.
	open, background context.Context
	shut             context.CancelCauseFunc
	stop             context.CancelFunc
	// idle is closed when Close has begun and there are no users, done when Close
	// has ended.
	idle, done chan struct{}
	tasks      sync.WaitGroup

	mu     sync.Mutex
	closed bool
	// calls are under way. users counts them, and the leases not released.
	calls map[*use]struct{}
	users int
}

// use is a call of a client's method. Close interrupts it and waits for it.
type use struct {
	life   *lifecycle
	cancel context.CancelCauseFunc
	// stays: a lease came of it, which counts on as a user.
	stays bool
}

func newLifecycle() *lifecycle {
	l := &lifecycle{idle: make(chan struct{}), done: make(chan struct{}), calls: map[*use]struct{}{}}
	l.background, l.stop = context.WithCancel(context.Background())
	l.open, l.shut = context.WithCancelCause(l.background)
	return l
}

// begin begins a call, unless the client is closed. Its context ends with ctx, or
// with ErrClosed as its cause when Close begins. The caller calls end.
func (l *lifecycle) begin(ctx context.Context) (context.Context, *use, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, nil, ErrClosed
	}
	ctx, cancel := context.WithCancelCause(ctx)
	u := &use{life: l, cancel: cancel}
	l.calls[u] = struct{}{}
	l.users++
	return ctx, u, nil
}

// end ends the call, but not the use that a lease makes of the client.
func (u *use) end() {
	l := u.life
	l.mu.Lock()
	delete(l.calls, u)
	if !u.stays {
		l.leaveLocked()
	}
	l.mu.Unlock()
	u.cancel(nil)
}

// enter counts one user more, also while Close waits. leave ends a use.
func (l *lifecycle) enter() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.users++
}

func (l *lifecycle) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leaveLocked()
}

func (l *lifecycle) leaveLocked() {
	if l.users--; l.users == 0 && l.closed {
		close(l.idle)
	}
}

// start runs task in the background, until Close is done.
func (l *lifecycle) start(task func(ctx context.Context)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.background.Err() != nil {
		return
	}
	l.tasks.Add(1)
	go func() {
		defer l.tasks.Done()
		task(l.background)
	}()
}

// isClosed reports whether Close has begun.
func (l *lifecycle) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// explain gives an error of a call that Close interrupted its true name.
func (l *lifecycle) explain(err error) error {
	if l.open.Err() != nil && errors.Is(err, context.Canceled) && !errors.Is(err, ErrClosed) {
		return fmt.Errorf("%w: %w", ErrClosed, err)
	}
	return err
}

// beginClose refuses new calls and interrupts those under way. It reports whether
// it is the first.
func (l *lifecycle) beginClose() (first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.closed = true
	l.shut(ErrClosed)
	for u := range l.calls {
		u.cancel(ErrClosed)
	}
	if l.users == 0 {
		close(l.idle)
	}
	return true
}

// awaitIdle waits for the calls under way and for the release of every lease,
// until ctx ends.
func (l *lifecycle) awaitIdle(ctx context.Context) error {
	select {
	case <-l.idle:
		return nil
	default:
	}
	select {
	case <-l.idle:
		return nil
	case <-ctx.Done():
		l.mu.Lock()
		defer l.mu.Unlock()
		return fmt.Errorf("lease: closed with %d leases not released: %w", l.users, context.Cause(ctx))
	}
}

// endClose ends the background and waits for its goroutines.
func (l *lifecycle) endClose() {
	l.mu.Lock()
	l.stop()
	l.mu.Unlock()
	l.tasks.Wait()
	close(l.done)
}

// awaitClosed waits for the end of Close, until ctx ends.
func (l *lifecycle) awaitClosed(ctx context.Context) error {
	select {
	case <-l.done:
		return nil
	default:
	}
	select {
	case <-l.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("lease: another Close goes on: %w", context.Cause(ctx))
	}
}
