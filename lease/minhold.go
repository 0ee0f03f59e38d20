package lease

import (
	"context"
	"fmt"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
)

// WithMinHold keeps the key from others until d after it was acquired, also when
// it is released sooner: for a job that is shorter than the clocks of its
// schedulers differ. A millisecond to ten years. Default: it is given back at
// once. It costs no request.
//
// Release ends the lease and returns at once. The client gives the key back when
// d is over, and meanwhile counts as its holder, for its own goroutines too.
// ReleaseWith waits until then, since it says whether its value is written; if
// its context ends first it returns the cause, and goes on in the background.
// Close waits as well, so give its context more than d: when that context ends,
// the key passes on.
//
// The key is not kept for longer than its session lives. When the process dies or
// loses its session, others get it as always. Break and WithMaxHold, which must
// not be shorter, do not wait for d.
func WithMinHold(d time.Duration) AcquireOption {
	return func(a *acquireSettings) error {
		a.minHold = d
		return within("WithMinHold", d, time.Millisecond, tenYears)
	}
}

// checkHolds refuses bounds that contradict each other.
func (a *acquireSettings) checkHolds() error {
	if a.maxHold > 0 && a.minHold > a.maxHold {
		return fmt.Errorf("lease: WithMinHold(%v): want at most the %v of WithMaxHold: %w", a.minHold, a.maxHold, ErrInvalid)
	}
	return nil
}

// releaseUnused releases a lease that nobody has had, and so does not keep its key.
func (l *Lease) releaseUnused(ctx context.Context) {
	l.mu.Lock()
	l.minHold = 0
	l.mu.Unlock()
	_ = l.Release(ctx) // what fails goes on
}

// minHoldLeft is for how long a lease that ended for that reason is not given
// back yet. It counts from the receipt of the grant, by the monotonic clock: the
// wall clock might make it shorter.
func (l *Lease) minHoldLeft(reason Reason) time.Duration {
	if reason != ReasonReleased && reason != ReasonClosed || l.session.Reason() != "" {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.minHold - (l.client.clock.Now().Mono - l.granted)
}

// keptFromOthers is for how long a lease that Close has found, or finds, is not
// given back yet, whatever its holder does.
func (l *Lease) keptFromOthers() time.Duration {
	if lost := l.lost(); lost != nil {
		return l.minHoldLeft(lost.Reason)
	}
	return l.minHoldLeft(ReasonClosed)
}

// releaseLater gives a lease back that has ended when its min-hold is over or its
// session is. Only a release that leaves a value is waited for.
func (l *Lease) releaseLater(ctx context.Context, left time.Duration, reason Reason, value []byte) error {
	done := make(chan error, 1)
	l.client.life.Start(func(background context.Context) {
		defer l.client.life.Leave()
		waiting, stop := context.WithCancel(background)
		defer context.AfterFunc(l.session.Context(), stop)()
		defer stop()
		_ = clock.Sleep(waiting, l.client.clock, left) // cut short: the session has ended, or Close is done
		reason := reason
		if end := Reason(l.session.Reason()); end != "" {
			reason = end // others get the key by that
		}
		done <- l.releaseNow(background, reason, value)
	})
	if value == nil {
		return nil
	}
	select {
	case err := <-done:
		return err
	case <-l.client.life.Done():
		select {
		case err := <-done: // just before
			return err
		default: // not begun, or no client is left to go on
			return &LostError{Key: l.key, Reason: ReasonClosed}
		}
	case <-ctx.Done():
		return fmt.Errorf("lease: releasing %q goes on in the background: %w", l.key, context.Cause(ctx))
	}
}
