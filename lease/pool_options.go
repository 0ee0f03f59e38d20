package lease

import (
	"fmt"
	"time"
)

// Bounds and defaults of a Pool.
const (
	// DefaultMaxMoves is how many partitions a member gives to others at the same time without WithMaxMoves.
	DefaultMaxMoves = 4
	// DefaultDrainTimeout is how long a handler may take to stop without WithDrainTimeout.
	DefaultDrainTimeout = 10 * time.Second
	// MaxPoolDuration is the longest duration that an option of a Pool takes: a
	// year.
	MaxPoolDuration = 365 * 24 * time.Hour
)

type poolSettings struct {
	interval, drain  time.Duration
	residency        time.Duration
	progress, outage time.Duration
	moves            int
	most             int
	endless, unrests bool
}

// PoolOption is an option of NewPool.
type PoolOption func(*poolSettings) error

// checkDuration refuses a duration that is out of the bounds of an option.
func checkDuration(option string, d, least time.Duration) error {
	if d < least || d > MaxPoolDuration {
		return fmt.Errorf("lease: %s(%v): want %v to %v: %w", option, d, least, MaxPoolDuration, ErrInvalid)
	}
	return nil
}

// WithPlanInterval sets how often a member lists sessions and partitions and
// makes its plan; each time is up to a tenth earlier or later. It bounds how
// soon others notice a member that joins or leaves, and what that costs. 100 ms
// to MaxPoolDuration, default two heartbeats.
func WithPlanInterval(d time.Duration) PoolOption {
	return func(s *poolSettings) error {
		s.interval = d
		return checkDuration("WithPlanInterval", d, 100*time.Millisecond)
	}
}

// WithDrainTimeout bounds how long a handler may go on after Draining has asked
// it to stop: then its context ends. 0: it ends at once. Up to MaxPoolDuration,
// default 10 s.
func WithDrainTimeout(d time.Duration) PoolOption {
	return func(s *poolSettings) error {
		s.drain = d
		return checkDuration("WithDrainTimeout", d, 0)
	}
}

// WithMaxMoves sets how many partitions this member gives to others at the same time, to keep the load even, and takes at the same time while it
// is new (see Pool). Taking from the dead, stopping, pausing and removing do not count. At least 1, default 4.
func WithMaxMoves(n int) PoolOption {
	return func(s *poolSettings) error {
		if n < 1 {
			return fmt.Errorf("lease: WithMaxMoves(%d): want at least 1: %w", n, ErrInvalid)
		}
		s.moves = n
		return nil
	}
}

// WithMaxPartitions sets how many partitions this member has at most, which the others are told. What does not fit anywhere lies
// idle. At least 1, default: no bound.
func WithMaxPartitions(n int) PoolOption {
	return func(s *poolSettings) error {
		if n < 1 {
			return fmt.Errorf("lease: WithMaxPartitions(%d): want at least 1: %w", n, ErrInvalid)
		}
		s.most = n
		return nil
	}
}

// WithMinResidency sets for how long a member works on a partition before it
// gives it to another to keep the load even, so that members that come and go do
// not make partitions do the same. 0 to MaxPoolDuration, default one plan
// interval.
func WithMinResidency(d time.Duration) PoolOption {
	return func(s *poolSettings) error {
		s.residency, s.unrests = d, true
		return checkDuration("WithMinResidency", d, 0)
	}
}

// WithProgressTimeout makes the context of a handler end, with ErrStuck as its
// cause, when it has neither called Progress nor written a checkpoint for d.
// That is logged. A handler that ends then has failed; one that does not keeps
// its partition. 1 s to MaxPoolDuration, default: no bound.
func WithProgressTimeout(d time.Duration) PoolOption {
	return func(s *poolSettings) error {
		s.progress = d
		return checkDuration("WithProgressTimeout", d, time.Second)
	}
}

// WithOutageLimit makes Run return the store's error, having asked the handlers
// to stop, when the pool cannot be listed for longer than d: a job that somebody
// waits for ends rather than go on for ever. 1 s to MaxPoolDuration, default: no
// bound.
func WithOutageLimit(d time.Duration) PoolOption {
	return func(s *poolSettings) error {
		s.outage = d
		return checkDuration("WithOutageLimit", d, time.Second)
	}
}

// WithoutEnd makes Run go on when all partitions are done, because more will be added.
func WithoutEnd() PoolOption {
	return func(s *poolSettings) error {
		s.endless = true
		return nil
	}
}

func newPoolSettings(c *Client, options []PoolOption) (poolSettings, error) {
	s := poolSettings{interval: 2 * c.heartbeat, drain: DefaultDrainTimeout, moves: DefaultMaxMoves}
	for _, option := range options {
		if option == nil {
			return poolSettings{}, fmt.Errorf("lease: NewPool: a nil option: %w", ErrInvalid)
		}
		if err := option(&s); err != nil {
			return poolSettings{}, err
		}
	}
	if !s.unrests {
		s.residency = s.interval
	}
	return s, nil
}
