package lock

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/dynalock/dynalock/internal/seam"
	"github.com/dynalock/dynalock/lease"
)

// ReadLease is one acquisition of an RWMutex by a reader. It is held until
// Release, or until it is lost, as a lease.Lease is. Once it is not held it
// never is again. It is safe for concurrent use. A nil ReadLease, as comes with an
// error, is one that is not held.
type ReadLease struct {
	mutex  *RWMutex
	row    *lease.Lease
	number int
	epoch  uint64
}

// Epoch returns the fencing token of a reader. It is no less than the tokens of
// all writers before, and less than those of all writers after it. No I/O.
//
// So a resource that two kinds of holders use keeps two numbers: the greatest
// lease.Lease.Token of a writer and the greatest Epoch of a reader that it has
// served. Then nobody who holds the lock is refused, and nobody who was paused
// and has lost it does harm, if it refuses
//
//   - a reader whose Epoch is less than the writers' number;
//   - a writer whose Token is less than the writers' number, or not greater than
//     the readers'.
//
// One number for both refuses readers or lets writers through. It is enough to
// record an epoch the first time that it is seen. If a resource cannot record
// reads at all, a writer that was paused may still write while later readers
// read.
func (l *ReadLease) Epoch() uint64 {
	if l == nil {
		return 0
	}
	return l.epoch
}

// Lease returns the lease of the reader's own row, for its condition, its value
// and Notify. Its token says nothing: take Epoch. Release the ReadLease, not
// this.
func (l *ReadLease) Lease() *lease.Lease {
	if l == nil {
		return nil
	}
	return l.row
}

// Context returns a context that ends when the lock is lost, and on Release.
// context.Cause is then a *lease.LostError.
func (l *ReadLease) Context() context.Context { return l.Lease().Context() }

// Held reports whether the lock is held. It is computed from the clocks now. No
// I/O.
func (l *ReadLease) Held() bool { return l.Lease().Held() }

// Err returns nil while the lock is held, and afterwards a *lease.LostError,
// for ever. No I/O.
func (l *ReadLease) Err() error { return l.Lease().Err() }

// Remaining returns how long the lock is held if no further heartbeat succeeds,
// 0 if it is not held. No I/O.
func (l *ReadLease) Remaining() time.Duration { return l.Lease().Remaining() }

// Release gives the lock back. Everything else is as with lease.Lease.Release.
// It costs one write.
func (l *ReadLease) Release(ctx context.Context) error {
	if l == nil {
		return nil
	}
	defer l.mutex.gaveBack(l.number, l.row)
	return l.row.Release(ctx)
}

// RLock blocks until the lock is held by this reader, or ctx is done. On
// success the caller releases the ReadLease when it has read, and stops when
// the context of the ReadLease ends. On failure it holds nothing: what it had
// written is given back, in the background if the store does not answer. A wait
// that ctx ended is a *lease.WaitError, which says who writes. While the store
// fails RLock waits as lease.Client.Acquire does.
//
// It costs one write and one read. The first reader ever costs one write more.
// If somebody writes, it costs another write and, until that ends, one read per
// poll for all readers that wait at this RWMutex, and one read of the writer's
// session per third of its TTL. Then it begins again.
func (m *RWMutex) RLock(ctx context.Context) (*ReadLease, error) {
	if err := m.check("RLock"); err != nil {
		return nil, err
	}
	caller, client := ctx, seam.Of(m.client)
	ctx, end, err := client.Begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	w := m.newWait(client, m.writerKey())
	for ctx.Err() == nil {
		l, writer, err := m.read(ctx, client.AttemptTimeout)
		switch {
		case err == nil && writer == nil:
			return l, nil
		case err == nil:
			w.found([]lease.Holder{*writer})
		case ctx.Err() != nil:
			continue
		case !w.failed(err):
			return nil, err
		}
		if err := m.awaitOpen(ctx, w); err != nil {
			return nil, err
		}
	}
	return nil, w.ended(ctx, caller)
}

// TryRLock takes the lock for a reader if nobody writes or is about to.
// Otherwise it returns a *lease.HeldError at once. On any error the caller
// holds nothing. If its session was lost meanwhile, the error matches
// lease.ErrLost. It takes at most 3 s, whatever the store does, unless ctx has
// a deadline.
//
// It costs two reads and one write. If somebody writes, it costs one read, and
// one of the writer's session if that was not seen lately.
func (m *RWMutex) TryRLock(ctx context.Context) (l *ReadLease, err error) {
	if err := m.check("TryRLock"); err != nil {
		return nil, err
	}
	err = try(ctx, m.client, m.name, func(ctx context.Context) error {
		writer, _, err := m.readWriter(ctx)
		if err == nil && writer == nil {
			l, writer, err = m.read(ctx, 0)
		}
		if err == nil && writer != nil {
			return &lease.HeldError{Holder: *writer}
		}
		return err
	})
	return l, err
}

// RDo runs fn while this reader holds the lock. Everything else is as with
// Mutex.Do. It costs what RLock costs, and one write.
func (m *RWMutex) RDo(ctx context.Context, fn func(ctx context.Context, l *ReadLease) error) error {
	if fn == nil {
		return errNoFunc("RDo")
	}
	l, err := m.RLock(ctx)
	if err != nil {
		return err
	}
	return l.holding(ctx, fn)
}

// TryRDo is RDo if nobody writes. Otherwise fn is not called, and the error is
// that of TryRLock.
func (m *RWMutex) TryRDo(ctx context.Context, fn func(ctx context.Context, l *ReadLease) error) error {
	if fn == nil {
		return errNoFunc("TryRDo")
	}
	l, err := m.TryRLock(ctx)
	if err != nil {
		return err
	}
	return l.holding(ctx, fn)
}

// holding runs fn under l and releases l when fn has ended, however it ends.
func (l *ReadLease) holding(ctx context.Context, fn func(context.Context, *ReadLease) error) (err error) {
	ctx, stop := under(ctx, l.Context())
	defer stop()
	defer func() { err = errors.Join(err, l.Release(ctx)) }()
	return fn(ctx, l)
}

// read is one attempt of a reader. It writes its row, and then looks at the
// writers': so of a reader and a writer at least one sees the other. Where a
// writer has the lock, read returns who. When ctx has ended, it waits for longest
// at most.
func (m *RWMutex) read(ctx context.Context, longest time.Duration) (l *ReadLease, writer *lease.Holder, err error) {
	row, number, err := m.acquireRow(ctx)
	if err != nil {
		return nil, nil, err
	}
	writer, epoch, err := m.readWriter(ctx)
	if err == nil && writer == nil {
		if err = row.Err(); err == nil { // the look took time
			return &ReadLease{mutex: m, row: row, number: number, epoch: epoch}, nil, nil
		}
	}
	m.releaseUnused(ctx, longest, row)
	m.gaveBack(number, row)
	return nil, writer, err
}

// readWriter reads the writers' row. It returns who has it, or else the epoch
// of a reader that has written its own row before. Where there is no row, it
// makes one: the epochs of all readers are versions of one row.
func (m *RWMutex) readWriter(ctx context.Context) (writer *lease.Holder, epoch uint64, err error) {
	h, err := m.client.Holder(ctx, m.writerKey())
	if err == nil && h.Version == 0 {
		h, err = m.client.Keep(ctx, m.writerKey(), nil)
	}
	if err != nil {
		return nil, 0, err
	}
	free := !h.Held() // also where it is reserved for a writer, who then waits for this reader
	if !free {
		free, err = m.client.Free(ctx, h)
	}
	switch {
	case err != nil:
		return nil, 0, err
	case !free:
		return h, 0, nil
	}
	return nil, h.Version, nil
}

// acquireRow acquires a row for a reader, the first of this client that is
// free. One that a lost session of this client has left, or that a clone of
// this process has, is passed over.
func (m *RWMutex) acquireRow(ctx context.Context) (*lease.Lease, int, error) {
	options := append(slices.Clone(m.options), seam.Private.(lease.AcquireOption))
	for number := m.reserve(0); ; number = m.reserve(number + 1) {
		l, err := m.client.TryAcquire(ctx, m.readerKey(number), options...)
		m.mu.Lock()
		m.numbers[number] = l
		m.mu.Unlock()
		if err == nil {
			return l, number, nil
		}
		m.gaveBack(number, nil)
		if !errors.Is(err, lease.ErrHeld) {
			return nil, 0, err
		}
	}
}

// reserve returns the smallest number from least on that no reader has. The
// number of one that was lost and never released is free.
func (m *RWMutex) reserve(least int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	for number := least; ; number++ {
		l, taken := m.numbers[number]
		if !taken || l != nil && !l.Held() {
			m.numbers[number] = nil
			return number
		}
	}
}

// gaveBack frees the number of a reader whose row was given back, and tells a
// writer that waits here.
func (m *RWMutex) gaveBack(number int, row *lease.Lease) {
	m.mu.Lock()
	if l, taken := m.numbers[number]; taken && l == row {
		delete(m.numbers, number)
	}
	m.mu.Unlock()
	signal(m.left)
}
