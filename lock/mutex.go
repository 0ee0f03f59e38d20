package lock

import (
	"context"
	"errors"

	"github.com/dynalock/dynalock/lease"
)

// Mutex is a named lock. It has no state of its own: any number of Mutexes of one name, in any
// number of processes on one store, are the same lock. It is safe for concurrent use.
//
// It is not reentrant: Lock on a name that this client holds waits like any other, until the
// lease is released or ctx ends, and TryLock returns an error that matches lease.ErrHeld.
type Mutex struct {
	client *lease.Client
	name   string
}

// NewMutex returns the lock called name, at most lease.MaxKeySize bytes long. It does no I/O; a bad name is an error of the first call.
func NewMutex(client *lease.Client, name string) *Mutex { return &Mutex{client: client, name: name} }

// Lock blocks until the lock is held or ctx is done. On success the caller releases the lease when
// its work is done, and stops its work when the lease's context ends. On failure it holds nothing. It costs what lease.Client.Acquire costs.
func (m *Mutex) Lock(ctx context.Context) (*lease.Lease, error) { return m.client.Acquire(ctx, m.name) }

// TryLock takes the lock if nobody holds it, and otherwise returns an error that matches lease.ErrHeld at once. It costs what lease.Client.TryAcquire costs.
func (m *Mutex) TryLock(ctx context.Context) (*lease.Lease, error) {
	return m.client.TryAcquire(ctx, m.name)
}

// Do runs fn under the lock. fn's context ends with ctx, and when the lock is lost, with a *lease.LostError as its cause. The lock is
// released only after fn has returned, also when fn panics, and then the panic goes on.
//
// It returns the error of locking, or fn's; joined to it, if the lock was lost or could not be released, that error: work done under a lost
// lock may have been done twice, even if fn returned nil.
func (m *Mutex) Do(ctx context.Context, fn func(ctx context.Context, l *lease.Lease) error) (err error) {
	l, err := m.Lock(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(l.Context(), func() { cancel(context.Cause(l.Context())) })
	defer stop()
	defer func() { err = errors.Join(err, l.Release(ctx)) }()
	return fn(ctx, l)
}
