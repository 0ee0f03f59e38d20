package lock

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/lease"
)

// Mutex is a named lock. It has no state of its own: any number of Mutexes of one
// name, in any number of processes on one store, are the same lock. It is safe for
// concurrent use. Use NewMutex. The zero Mutex refuses every call.
//
// It is not reentrant, since Go has no identity of a thread to go by. Lock on a name
// that this client holds waits like any other, until the lease is released or ctx
// ends. TryLock returns a *lease.HeldError that names this client.
type Mutex struct {
	client  *lease.Client
	name    string
	options []lease.AcquireOption
}

// NewMutex returns the lock called name, at most lease.MaxKeySize bytes long. The
// options say how its user wants to hold the lock, so they go with every acquisition
// through this Mutex. For another use make another Mutex of the same name, which
// costs nothing. NewMutex does no I/O. A nil client, a bad name or a bad option is an
// error of each call, which matches lease.ErrInvalid. Names that begin with once/,
// semaphore/, rw/, election/ or pool/ are bad: they are the keys of others.
func NewMutex(client *lease.Client, name string, options ...lease.AcquireOption) *Mutex {
	return &Mutex{client: client, name: name, options: slices.Clone(options)}
}

// Lock blocks until the lock is held or ctx is done. On success the caller releases
// the lease when its work is done, and stops its work when the lease's context ends.
// On failure it holds nothing. It costs what lease.Client.Acquire costs.
func (m *Mutex) Lock(ctx context.Context) (*lease.Lease, error) {
	if err := m.check("Lock"); err != nil {
		return nil, err
	}
	return m.client.Acquire(ctx, m.name, m.options...)
}

// TryLock takes the lock if nobody holds it. Otherwise it returns an error that
// matches lease.ErrHeld at once. On any error the caller holds nothing. It costs what
// lease.Client.TryAcquire costs.
func (m *Mutex) TryLock(ctx context.Context) (*lease.Lease, error) {
	if err := m.check("TryLock"); err != nil {
		return nil, err
	}
	return m.client.TryAcquire(ctx, m.name, m.options...)
}

// check refuses a Mutex that cannot be locked.
func (m *Mutex) check(method string) error {
	if m.client == nil {
		return errNoClient(method)
	}
	return checkName(method, m.name)
}

// checkName refuses the keys of other recipes.
func checkName(method, name string) error {
	for _, prefix := range []string{rows.OnceKeys, rows.SemaphoreKeys, rows.RWKeys, rows.ElectionKeys, rows.PoolKeys} {
		if strings.HasPrefix(name, prefix) {
			return fmt.Errorf("lock: %s: name %.40q: want one that does not begin with %s, as the keys of others do: %w",
				method, name, prefix, lease.ErrInvalid)
		}
	}
	return nil
}

// Do runs fn under the lock. fn's context ends with ctx, and when the lock is lost,
// with a *lease.LostError as its cause. The lock is released after fn has returned,
// however long that takes. When fn panics, or ends its goroutine with runtime.Goexit,
// the lock is released, and the panic or the end goes on as it was.
//
// Do returns the error of locking, or fn's. Joined to fn's is the error of a lock that
// was lost or could not be released. Work under a lost lock may have been done twice,
// even if fn returned nil. A fn that releases the lease itself works without the lock
// from then on. Do costs what Lock costs, and one write.
func (m *Mutex) Do(ctx context.Context, fn func(ctx context.Context, l *lease.Lease) error) error {
	if fn == nil {
		return errNoFunc("Do")
	}
	l, err := m.Lock(ctx)
	if err != nil {
		return err
	}
	return do(ctx, l, fn)
}

// TryDo is Do if nobody holds the lock. Otherwise fn is not called, and the error
// matches lease.ErrHeld at once. It costs what TryLock costs, and one write.
func (m *Mutex) TryDo(ctx context.Context, fn func(ctx context.Context, l *lease.Lease) error) error {
	if fn == nil {
		return errNoFunc("TryDo")
	}
	l, err := m.TryLock(ctx)
	if err != nil {
		return err
	}
	return do(ctx, l, fn)
}

// do runs fn under l, and releases l however fn ends.
func do(ctx context.Context, l *lease.Lease, fn func(ctx context.Context, l *lease.Lease) error) (err error) {
	ctx, stop := under(ctx, l.Context())
	defer stop()
	defer func() { err = errors.Join(err, l.Release(ctx)) }()
	return fn(ctx, l)
}

// under returns a context that ends with ctx, and when held does, with the same
// cause.
func under(ctx, held context.Context) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	detach := context.AfterFunc(held, func() { cancel(context.Cause(held)) })
	return ctx, func() {
		detach()
		cancel(nil)
	}
}

func errNoClient(method string) error {
	return fmt.Errorf("lock: %s: want a client, not nil: %w", method, lease.ErrInvalid)
}

func errNoFunc(method string) error {
	return fmt.Errorf("lock: %s: want a function, not nil: %w", method, lease.ErrInvalid)
}
