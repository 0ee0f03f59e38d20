package lock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/lease"
)

// ErrOldLost is the cause of a context of Dual.Do that ended because the other
// library's lock was lost. It matches lease.ErrLost.
var ErrOldLost = fmt.Errorf("lock: the old lock was lost: %w", lease.ErrLost)

// oldReleaseTimeout bounds the release of the other library's lock.
const oldReleaseTimeout = 10 * time.Second

// AcquireOld takes a lock of another library. It blocks until the lock is held, or
// ctx is done. On success lost is closed when the lock is lost. It is nil where
// the library cannot tell. release gives the lock back, and is not nil. It is
// called once, also after a loss, with a context that lasts for ten seconds at
// most. On failure nothing is held.
type AcquireOld func(ctx context.Context) (release func(context.Context) error, lost <-chan struct{}, err error)

// Dual is a Mutex together with the lock of another library that it replaces. It
// has no state of its own, and is safe for concurrent use. Use Both. The zero Dual
// refuses every call.
type Dual struct {
	old   AcquireOld
	mutex *Mutex
}

// Both returns the lock for the one release of a program that moves from another
// library to m. Programs of the release before hold the old lock only, those of
// the release after m only. This one holds both, so it excludes either. There must
// be no time at which programs of the release before and after run together.
//
// All that hold both must take them in the same order, which is Dual's: the old
// lock first. Both does no I/O. A nil argument is an error of Do, which matches
// lease.ErrInvalid.
func Both(old AcquireOld, m *Mutex) *Dual { return &Dual{old: old, mutex: m} }

// Do takes the old lock, then the Mutex, and runs fn under both. fn's context ends
// with ctx, and with the first loss of either: its cause is ErrOldLost, or a
// *lease.LostError. Then fn must stop. After fn has returned, or panicked, both
// are given back, the Mutex first.
//
// If the Mutex cannot be had, or the old lock is lost while Do waits for it, the
// old lock is given back, and fn is not called. Do returns the error of locking,
// or fn's. Joined to fn's is that of a lock that was lost or could not be
// released. It costs what the old lock costs, and Mutex.Do.
func (d *Dual) Do(ctx context.Context, fn func(ctx context.Context, l *lease.Lease) error) (err error) {
	switch {
	case d.old == nil || d.mutex == nil:
		return fmt.Errorf("lock: Do: want an old lock and a Mutex, not nil: %w", lease.ErrInvalid)
	case fn == nil:
		return errNoFunc("Do")
	}
	release, lost, err := d.old(ctx)
	if err != nil {
		return fmt.Errorf("lock: taking the old lock: %w", err)
	}
	if release == nil {
		return fmt.Errorf("lock: Do: the old lock came with nil in the place of its release: %w", lease.ErrInvalid)
	}
	defer func() { err = errors.Join(err, releaseOld(ctx, release)) }()
	ctx, stop := whileOld(ctx, lost)
	defer stop()
	err = d.mutex.Do(ctx, fn)
	select {
	case <-lost: // looked at before the release, which may close it too
		return errors.Join(err, ErrOldLost)
	default:
		return err
	}
}

func releaseOld(ctx context.Context, release func(context.Context) error) error {
	ctx, cancel := clock.System.WithTimeout(context.WithoutCancel(ctx), oldReleaseTimeout)
	defer cancel()
	if err := release(ctx); err != nil {
		return fmt.Errorf("lock: releasing the old lock: %w", err)
	}
	return nil
}

// whileOld returns a context that ends with ctx, and with ErrOldLost when lost is
// closed.
func whileOld(ctx context.Context, lost <-chan struct{}) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-lost:
			cancel(ErrOldLost)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}
