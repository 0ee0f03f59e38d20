package lock

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/dynalock/dynalock/internal/seam"
	"github.com/dynalock/dynalock/lease"
)

// Lock blocks until a writer has the lock alone, or ctx is done. On success the
// caller releases the lease when its work is done, and stops its work when the
// lease's context ends. Its Token is the writer's epoch: see ReadLease.Epoch.
// On failure it holds nothing: what it had written is given back, in the
// background if the store does not answer. A wait that ctx ended is a
// *lease.WaitError, which says who has the lock. While the store fails Lock
// waits as lease.Client.Acquire does.
//
// New readers wait from when Lock has written its row, also while it waits
// itself for readers to leave. If it loses the row meanwhile, it begins again.
// Writers of one client are served in order.
//
// It costs one read, one write and one listing of the readers. If others write
// it costs what waiting costs in lease.Client.Acquire. While readers hold the
// lock, it costs one listing per poll, and one read of each reader's session
// per third of its TTL. A reader that has died costs one write, which removes
// its row.
func (m *RWMutex) Lock(ctx context.Context) (*lease.Lease, error) {
	if err := m.check("Lock"); err != nil {
		return nil, err
	}
	caller, client := ctx, seam.Of(m.client)
	ctx, end, err := client.Begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	w := m.newWait(client, m.writerKey())
	for {
		l, err := m.acquireWriter(ctx, m.client.Acquire)
		if err != nil {
			return nil, err
		}
		err = m.awaitReaders(ctx, w, l)
		if err == nil {
			return l, nil
		}
		m.releaseUnused(ctx, client.AttemptTimeout, l)
		switch {
		case ctx.Err() != nil:
			return nil, w.ended(ctx, caller)
		case !errors.Is(err, lease.ErrLost):
			return nil, err
		}
	}
}

// TryLock takes the lock for a writer if nobody has it. Otherwise it returns a
// *lease.HeldError at once, with all Holders where they are readers. On any
// error the caller holds nothing. If its session was lost meanwhile, the error
// matches lease.ErrLost. It takes at most 3 s, whatever the store does, unless
// ctx has a deadline.
//
// It costs two listings, one read and one write. If readers hold the lock it
// costs one listing, if a writer does it costs one listing and one read, and in
// both cases a read of each holder's session that was not seen lately. So a
// writer that tries now and then does not keep readers out.
func (m *RWMutex) TryLock(ctx context.Context) (l *lease.Lease, err error) {
	if err := m.check("TryLock"); err != nil {
		return nil, err
	}
	err = try(ctx, m.client, m.name, func(ctx context.Context) error {
		if err := m.refuseBesideReaders(ctx); err != nil {
			return err
		}
		row, err := m.acquireWriter(ctx, m.client.TryAcquire)
		if err != nil {
			return err
		}
		if err = m.refuseBesideReaders(ctx); err == nil {
			err = row.Err() // the listing took time
		}
		if err != nil {
			m.releaseUnused(ctx, 0, row)
			return err
		}
		l = row
		return nil
	})
	return l, err
}

// Do runs fn while this writer has the lock alone. Everything else is as with
// Mutex.Do. It costs what Lock costs, and one write.
func (m *RWMutex) Do(ctx context.Context, fn func(ctx context.Context, l *lease.Lease) error) error {
	if fn == nil {
		return errNoFunc("Do")
	}
	l, err := m.Lock(ctx)
	if err != nil {
		return err
	}
	return do(ctx, l, fn)
}

// TryDo is Do if nobody has the lock. Otherwise fn is not called, and the error
// is that of TryLock.
func (m *RWMutex) TryDo(ctx context.Context, fn func(ctx context.Context, l *lease.Lease) error) error {
	if fn == nil {
		return errNoFunc("TryDo")
	}
	l, err := m.TryLock(ctx)
	if err != nil {
		return err
	}
	return do(ctx, l, fn)
}

// acquireWriter acquires the writers' row. It keeps its value, so that it is
// read first: to find that out by a create would cost a write.
func (m *RWMutex) acquireWriter(
	ctx context.Context, acquire func(context.Context, string, ...lease.AcquireOption) (*lease.Lease, error),
) (*lease.Lease, error) {
	options := append(slices.Clone(m.options), lease.KeepValue())
	h, err := m.client.Holder(ctx, m.writerKey())
	if err != nil || h.Version == 0 {
		return acquire(ctx, m.writerKey(), options...) // it says what there is to say of err
	}
	l, err := acquire(ctx, m.writerKey(), append(slices.Clone(options), lease.From(h))...)
	if errors.Is(err, lease.ErrChanged) { // somebody has removed or annotated it
		return acquire(ctx, m.writerKey(), options...)
	}
	return l, err
}

// awaitReaders waits until there are no readers. It is called by who has the
// writers' row, in l, whoever had it before: only a listing that begins after
// that write shows all readers that did not see it.
func (m *RWMutex) awaitReaders(ctx context.Context, w *rwWait, l *lease.Lease) error {
	ctx, stop := under(ctx, l.Context())
	defer stop()
	for {
		readers, err := m.readers(ctx)
		switch {
		case l.Err() != nil: // the listing took time
			return l.Err()
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil && !w.failed(err):
			return err
		case err == nil && len(readers) == 0:
			return nil
		case err == nil:
			w.found(readers)
		}
		if err := w.sleep(ctx, m.left); err != nil {
			return err
		}
	}
}

// refuseBesideReaders returns a *lease.HeldError if there are readers.
func (m *RWMutex) refuseBesideReaders(ctx context.Context) error {
	readers, err := m.readers(ctx)
	if err == nil && len(readers) > 0 {
		return &lease.HeldError{Holder: readers[0], Holders: readers}
	}
	return err
}

// readers lists who reads, and removes the rows of the dead. That is for
// whoever lists next: whether such a row is gone by now does not matter, since
// who writes it again sees the writers' row.
func (m *RWMutex) readers(ctx context.Context) ([]lease.Holder, error) {
	var readers []lease.Holder
	var dead []*lease.Holder
	for h, err := range m.client.Keys(ctx, m.readersPrefix()) {
		if err != nil {
			return nil, err // what cannot be read may be a reader's (R18)
		}
		switch free, err := m.client.Free(ctx, h); {
		case err != nil:
			return nil, err
		case !free:
			readers = append(readers, *h)
		case h.Held():
			dead = append(dead, h)
		}
	}
	var wait sync.WaitGroup
	slots := make(chan struct{}, releases)
	for _, h := range dead {
		slots <- struct{}{}
		wait.Go(func() {
			defer func() { <-slots }()
			_ = m.client.Discard(ctx, h) // else the next writer does it
		})
	}
	wait.Wait()
	return readers, nil
}
