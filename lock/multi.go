package lock

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/dynalock/dynalock/internal/seam"
	"github.com/dynalock/dynalock/lease"
)

// Multi is a lock on several names at once, all of them or none. It has no state
// of its own and is safe for concurrent use. Use NewMulti. The zero Multi refuses
// every call.
//
// Each name is the same lock as the Mutex of that name. They are locked one after
// the other, in the order of their bytes. So users of any sets of names cannot
// deadlock, as long as each has one set at a time and locks no other name under
// it. While Lock waits for one name, others find those before it locked.
//
// It is not reentrant, like Mutex.
type Multi struct {
	client  *lease.Client
	names   []string
	options []lease.AcquireOption
}

// NewMulti returns the lock on all of names, in any order. One that is there
// twice counts once. There is no bound on their number, but each costs what a
// Mutex costs. The options go with the acquisition of every name, so what
// lease.WithMaxHold bounds begins with each of them. NewMulti does no I/O. A nil
// client, no names, a bad name or a bad option is an error of each call, which
// matches lease.ErrInvalid.
func NewMulti(client *lease.Client, names []string, options ...lease.AcquireOption) *Multi {
	m := &Multi{client: client, options: slices.Clone(options)}
	m.names = slices.Compact(slices.Sorted(slices.Values(names)))
	return m
}

// Names returns the names in the order in which they are locked.
func (m *Multi) Names() []string { return slices.Clone(m.names) }

// Lock blocks until all names are locked or ctx is done. If one of them is lost
// while Lock waits for the next, Lock gives all back and begins again. On success
// the caller releases the MultiLease when its work is done, and stops its work
// when the context of the MultiLease ends. On failure it holds nothing: what it
// had is given back, in the background if the store does not answer.
//
// Of N names it costs what N calls of Mutex.Lock cost, one after the other: N
// writes, if they are free.
func (m *Multi) Lock(ctx context.Context) (*MultiLease, error) {
	if err := m.check("Lock"); err != nil {
		return nil, err
	}
	for {
		l, err := m.acquire(ctx, m.client.Acquire)
		if !errors.Is(err, errGone) || ctx.Err() != nil {
			return l, err
		}
	}
}

// TryLock locks all names if nobody holds any of them. Otherwise it returns an
// error that matches lease.ErrHeld, a *lease.HeldError of the first name that is
// held, and gives back what it had. On any error the caller holds nothing. If a
// name was lost meanwhile, the error matches lease.ErrLost.
//
// It costs N writes for N free names. If the k-th is held it costs what
// Mutex.TryLock costs for k names, and k-1 writes to give those before it back.
func (m *Multi) TryLock(ctx context.Context) (*MultiLease, error) {
	if err := m.check("TryLock"); err != nil {
		return nil, err
	}
	return m.acquire(ctx, m.client.TryAcquire)
}

// Do locks all names and runs fn under them. fn's context ends with ctx, and when
// a name is lost, with a *lease.LostError as its cause. The names are released
// after fn has returned, panicked or ended its goroutine. The error is as with
// Mutex.Do. It costs what Lock costs, and N writes.
func (m *Multi) Do(ctx context.Context, fn func(ctx context.Context, l *MultiLease) error) error {
	if fn == nil {
		return errNoFunc("Do")
	}
	l, err := m.Lock(ctx)
	if err != nil {
		return err
	}
	return l.holding(ctx, fn)
}

// TryDo is Do if nobody holds any of the names. Otherwise fn is not called, and
// the error is that of TryLock. It costs what TryLock costs, and N writes.
func (m *Multi) TryDo(ctx context.Context, fn func(ctx context.Context, l *MultiLease) error) error {
	if fn == nil {
		return errNoFunc("TryDo")
	}
	l, err := m.TryLock(ctx)
	if err != nil {
		return err
	}
	return l.holding(ctx, fn)
}

func (m *Multi) check(method string) error {
	switch {
	case m.client == nil:
		return errNoClient(method)
	case len(m.names) == 0:
		return fmt.Errorf("lock: %s: no names: want at least one: %w", method, lease.ErrInvalid)
	}
	for _, name := range m.names {
		if name == "" || len(name) > lease.MaxKeySize || !utf8.ValidString(name) {
			return fmt.Errorf("lock: %s: name %.40q of %d bytes: want 1 to %d bytes of UTF-8: %w",
				method, name, len(name), lease.MaxKeySize, lease.ErrInvalid)
		}
		if err := checkName(method, name); err != nil {
			return err
		}
	}
	return nil
}

// errGone says that a name was lost before the last one was locked.
var errGone = errors.New("lock: lost before all names were locked")

// acquire locks the names in their order, or gives back what it has.
func (m *Multi) acquire(
	ctx context.Context, acquire func(context.Context, string, ...lease.AcquireOption) (*lease.Lease, error),
) (*MultiLease, error) {
	all := newMultiLease()
	waiting, stop := under(ctx, all.Context()) // to wait for the next is no use once one is lost
	defer stop()
	for _, name := range m.names {
		l, err := acquire(waiting, name, m.options...)
		if err == nil {
			all.add(l)
			continue
		}
		lost := all.Err()
		m.releaseUnused(ctx, all)
		if lost != nil && ctx.Err() == nil && m.client.Context().Err() == nil {
			return nil, fmt.Errorf("%w: %w", errGone, lost)
		}
		return nil, m.orClosed(err)
	}
	if lost := all.Err(); lost != nil {
		m.releaseUnused(ctx, all)
		return nil, m.orClosed(fmt.Errorf("%w: %w", errGone, lost))
	}
	return all, nil
}

// orClosed is err, with lease.ErrClosed if Close has begun: what was lost by that is
// not worth another try.
func (m *Multi) orClosed(err error) error {
	if m.client.Context().Err() == nil || errors.Is(err, lease.ErrClosed) {
		return err
	}
	return fmt.Errorf("%w: %w", lease.ErrClosed, err)
}

// MultiLease is one acquisition of all the names of a Multi. It is held until
// Release, or until one of the names is lost. Once it is not held it never is
// again. It is safe for concurrent use. A nil MultiLease, as comes with an error,
// is one that is not held.
type MultiLease struct {
	leases map[string]*lease.Lease
	names  []string
	ctx    context.Context
	cancel context.CancelCauseFunc

	release sync.Once
	outcome error
}

func newMultiLease() *MultiLease {
	l := &MultiLease{leases: map[string]*lease.Lease{}}
	l.ctx, l.cancel = context.WithCancelCause(context.Background())
	return l
}

// add adds a name, before anybody else sees l.
func (l *MultiLease) add(one *lease.Lease) {
	l.leases[one.Key()] = one
	l.names = append(l.names, one.Key())
	context.AfterFunc(one.Context(), func() { l.cancel(context.Cause(one.Context())) })
}

// Context returns a context that ends when the first of the names is lost, and on
// Release. context.Cause is then the *lease.LostError of that name.
func (l *MultiLease) Context() context.Context {
	if l == nil {
		return l.Lease("").Context()
	}
	return l.ctx
}

// Held reports whether every name is held. It is computed from the clocks now. No
// I/O.
func (l *MultiLease) Held() bool { return l.Err() == nil }

// Err returns nil while every name is held. Afterwards it returns the
// *lease.LostError of the name that was found lost first, for ever. No I/O.
func (l *MultiLease) Err() error {
	if l == nil {
		return l.Lease("").Err()
	}
	for _, name := range l.names {
		if l.ctx.Err() != nil {
			break
		}
		if err := l.leases[name].Err(); err != nil {
			l.cancel(err)
		}
	}
	if l.ctx.Err() != nil {
		return context.Cause(l.ctx)
	}
	return nil
}

// Remaining returns how long all names are held if no further heartbeat succeeds,
// 0 if one is not held. No I/O.
func (l *MultiLease) Remaining() time.Duration {
	if l.Err() != nil {
		return 0
	}
	least := lease.MaxTTL
	for _, one := range l.leases {
		least = min(least, one.Remaining())
	}
	return least
}

// Lease returns the lease of a name, for its value and its condition, nil if the
// name is none of the Multi's. Release of that lease ends the whole MultiLease.
func (l *MultiLease) Lease(name string) *lease.Lease {
	if l == nil {
		return nil
	}
	return l.leases[name]
}

// Tokens returns the fencing token of each name. A resource that is guarded by
// one name checks that name's token. No I/O.
func (l *MultiLease) Tokens() map[string]uint64 {
	if l == nil {
		return nil
	}
	tokens := make(map[string]uint64, len(l.leases))
	for name, one := range l.leases {
		tokens[name] = one.Token()
	}
	return tokens
}

// releases is how many names are given back at a time.
const releases = 32

// Release gives all names back. The MultiLease ends before anything is sent. It
// costs one write per name, 32 at a time. Releasing again returns what the first
// call returned. The error is nil if every lease.Lease.Release returned nil, and
// else joins theirs: it matches lease.ErrLost if a name had been lost, and what
// could not be given back yet goes on in the background.
func (l *MultiLease) Release(ctx context.Context) error {
	if l == nil {
		return nil
	}
	l.release.Do(func() {
		if l.Err() == nil {
			l.cancel(&lease.LostError{Key: l.names[0], Reason: lease.ReasonReleased})
		}
		l.outcome = l.each(func(one *lease.Lease) error { return one.Release(ctx) })
	})
	return l.outcome
}

// each calls do with all leases, several at a time, and joins the errors.
func (l *MultiLease) each(do func(one *lease.Lease) error) error {
	errs := make([]error, len(l.names))
	slots := make(chan struct{}, releases)
	var wait sync.WaitGroup
	for i, name := range l.names {
		slots <- struct{}{}
		wait.Go(func() {
			defer func() { <-slots }()
			errs[i] = do(l.leases[name])
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}

// releaseUnused gives back what was locked, where not all could be.
func (m *Multi) releaseUnused(ctx context.Context, l *MultiLease) {
	releaseUnused(ctx, m.client, seam.Of(m.client).AttemptTimeout, func(ctx context.Context) {
		_ = l.each(func(one *lease.Lease) error {
			seam.ReleaseUnused(ctx, one) // what fails goes on
			return nil
		})
	})
}

// holding runs fn under l and releases l when fn has ended, however it ends.
func (l *MultiLease) holding(ctx context.Context, fn func(context.Context, *MultiLease) error) (err error) {
	ctx, stop := under(ctx, l.Context())
	defer stop()
	defer func() { err = errors.Join(err, l.Release(ctx)) }()
	return fn(ctx, l)
}
