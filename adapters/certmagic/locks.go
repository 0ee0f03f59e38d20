package certmagicstorage

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dynalock/dynalock/lease"
)

// held is a lock of this process, from before it is acquired until Unlock. It
// outlives the loss of its lease. Otherwise the next one in this process would
// have the name, and the Unlock of the first would free the lock of the next.
type held struct {
	lease *lease.Lease  // nil while it is being acquired
	freed chan struct{} // closed when the name is free in this process
}

// Lock blocks until this process has the lock called name, or ctx is done. On
// success call Unlock, once. On failure nothing is held. It costs what
// lease.Client.Acquire costs. Goroutines of this process wait in no order.
func (s *Storage) Lock(ctx context.Context, name string) error {
	for {
		h, mine := s.claim(name)
		if mine {
			return s.acquire(ctx, name, h, s.client.Acquire)
		}
		select {
		case <-h.freed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// TryLock takes the lock called name if nobody has it, and says whether it did.
// On success call Unlock, once. On false, or an error, nothing is held. It costs
// what lease.Client.TryAcquire costs.
func (s *Storage) TryLock(ctx context.Context, name string) (bool, error) {
	h, mine := s.claim(name)
	if !mine {
		return false, nil
	}
	err := s.acquire(ctx, name, h, s.client.TryAcquire)
	if errors.Is(err, lease.ErrHeld) {
		return false, nil
	}
	return err == nil, err
}

// Unlock gives the lock called name back. It works after ctx has ended too. A lock
// that was lost before is no error: others may have it. An error says that the
// lock's end is unknown, or that this process had no such lock. It costs one write.
func (s *Storage) Unlock(ctx context.Context, name string) error {
	s.mu.Lock()
	h := s.locks[name]
	if h == nil || h.lease == nil {
		s.mu.Unlock()
		return errNotLocked(name)
	}
	l := h.lease
	h.lease = nil // a second Unlock finds nothing
	s.mu.Unlock()
	err := l.Release(context.WithoutCancel(ctx))
	s.free(name, h)
	if errors.Is(err, lease.ErrLost) {
		return nil
	}
	return err
}

// RenewLockLease makes sure that this process has the lock called name. Its
// session renews it, so there is nothing to do, and the duration does not matter.
// A lock that was lost is taken again if nobody has it. That is right, since
// certmagic looks next whether its work was done meanwhile. Otherwise the error
// matches lease.ErrHeld. It costs nothing for a lock that is held, else what
// lease.Client.TryAcquire costs.
func (s *Storage) RenewLockLease(ctx context.Context, name string, _ time.Duration) error {
	s.mu.Lock()
	h := s.locks[name]
	if h == nil || h.lease == nil {
		s.mu.Unlock()
		return errNotLocked(name)
	}
	l := h.lease
	s.mu.Unlock()
	if l.Held() {
		return nil
	}
	_ = l.Release(context.WithoutCancel(ctx)) // lost: it tells the client that nobody uses it any more
	again, err := s.client.TryAcquire(ctx, s.prefix+name)
	if err != nil {
		return fmt.Errorf("certmagicstorage: lock %q was lost, and cannot be taken again: %w", name, err)
	}
	s.mu.Lock()
	mine := h.lease == l
	if mine {
		h.lease = again
	}
	s.mu.Unlock()
	if !mine { // Unlock came in between
		return errors.Join(errNotLocked(name), again.Release(context.WithoutCancel(ctx)))
	}
	return nil
}

// claim returns the lock called name of this process, and whether the caller is
// the one to acquire it.
func (s *Storage) claim(name string) (h *held, mine bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.locks[name]; h != nil {
		return h, false
	}
	h = &held{freed: make(chan struct{})}
	s.locks[name] = h
	return h, true
}

func (s *Storage) acquire(
	ctx context.Context, name string, h *held,
	acquire func(context.Context, string, ...lease.AcquireOption) (*lease.Lease, error),
) error {
	l, err := acquire(ctx, s.prefix+name)
	if err != nil {
		s.free(name, h)
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	h.lease = l
	return nil
}

// free lets others of this process have the name.
func (s *Storage) free(name string, h *held) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.locks, name)
	close(h.freed)
}

func errNotLocked(name string) error {
	return fmt.Errorf("certmagicstorage: lock %q: this process does not hold it: %w", name, lease.ErrNotHeld)
}
