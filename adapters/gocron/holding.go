package gocronlock

import (
	"context"
	"fmt"
	"time"

	"github.com/go-co-op/gocron/v2"

	"github.com/dynalock/dynalock/lease"
)

// MaxHold bounds the time of NewHolding: a day.
const MaxHold = 24 * time.Hour

// Holding is a gocron.Locker that holds the lock of a job for a while after the
// job has ended. It is safe for concurrent use. Use NewHolding.
type Holding struct {
	client  *lease.Client
	atLeast time.Duration
}

var _ gocron.Locker = (*Holding)(nil)

// NewHolding returns the locker of jobs without a fixed period. A job's lock has
// the key "gocron/" and the job's name. It is held for atLeast, a millisecond to
// MaxHold, also where the job is done sooner: see lease.WithMinHold. Choose more
// than the clocks of the processes differ by, and less than the time between two
// runs.
//
// lease.Client.Close waits until the locks have been held for atLeast. When its
// context ends before that, they are given back. Errors match lease.ErrInvalid.
// NewHolding does no I/O.
func NewHolding(client *lease.Client, atLeast time.Duration) (*Holding, error) {
	switch {
	case client == nil:
		return nil, fmt.Errorf("gocronlock: NewHolding: want a client, not nil: %w", lease.ErrInvalid)
	case atLeast < time.Millisecond || atLeast > MaxHold:
		return nil, fmt.Errorf("gocronlock: NewHolding: %v, want %v to %v: %w",
			atLeast, time.Millisecond, MaxHold, lease.ErrInvalid)
	}
	return &Holding{client: client, atLeast: atLeast}, nil
}

// Lock takes the lock of the job called key, or returns an error that matches
// lease.ErrHeld at once. On any error nothing is held. It costs what
// lease.Client.TryAcquire costs.
func (h *Holding) Lock(ctx context.Context, key string) (gocron.Lock, error) {
	l, err := h.client.TryAcquire(ctx, "gocron/"+key, lease.WithMinHold(h.atLeast))
	if err != nil {
		return nil, err
	}
	return held{l}, nil
}

// held is the lock of a job that runs.
type held struct{ lease *lease.Lease }

// Unlock gives the lock back when it has been held for long enough, and does not
// wait for that. Its errors are those of lease.Lease.Release.
func (h held) Unlock(ctx context.Context) error { return h.lease.Release(ctx) }
