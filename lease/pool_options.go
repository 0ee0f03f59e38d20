package lease

import (
	"fmt"
	"time"
)

// Defaults of a Pool.
const (
	// DefaultMaxMoves is how many partitions a member gives to others at the same time without WithMaxMoves.
	DefaultMaxMoves = 4
	// DefaultDrainTimeout is how long a handler may take to stop without WithDrainTimeout.
	DefaultDrainTimeout = 10 * time.Second
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

// WithPlanInterval sets how often a member lists sessions and partitions and makes its plan; each time is up to a tenth earlier or later. At
// least 100 ms, default two heartbeats. It bounds how soon others notice a member that joins or leaves, and what that costs.
func WithPlanInterval(d time.Duration) PoolOption {
	return func(s *poolSettings) error {
		if d < 100*time.Millisecond {
			return fmt.Errorf("lease: WithPlanInterval(%v): want at least 100ms: %w", d, ErrInvalid)
		}
		s.interval = d
		return nil
	}
}

// WithDrainTimeout bounds how long a handler may go on after Draining has asked it to stop: then its context ends. 0: it ends at
// once. Default 10 s.
func WithDrainTimeout(d time.Duration) PoolOption {
	return func(s *poolSettings) error {
		if d < 0 {
			return fmt.Errorf("lease: WithDrainTimeout(%v): want 0 or more: %w", d, ErrInvalid)
		}
		s.drain = d
		return nil
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

// WithMinResidency sets for how long a member works on a partition before it gives it to another to keep the load even, so that
// members that come and go do not make partitions do the same. Default one plan interval.
func WithMinResidency(d time.Duration) PoolOption {
	return func(s *poolSettings) error {
		if d < 0 {
			return fmt.Errorf("lease: WithMinResidency(%v): want 0 or more: %w", d, ErrInvalid)
		}
		s.residency, s.unrests = d, true
		return nil
	}
}

// WithProgressTimeout makes the context of a handler end, with ErrStuck as its cause, when it has neither called Progress nor written a
// checkpoint for d. That is logged. A handler that ends then has failed; one that does not keeps its partition. At least 1 s, default: no bound.
func WithProgressTimeout(d time.Duration) PoolOption {
	return func(s *poolSettings) error {
		if d < time.Second {
			return fmt.Errorf("lease: WithProgressTimeout(%v): want at least 1s: %w", d, ErrInvalid)
		}
		s.progress = d
		return nil
	}
}

// WithOutageLimit makes Run return the store's error, having asked the handlers to stop, when the pool cannot be listed for longer than d: a job
// that somebody waits for ends rather than go on for ever. At least 1 s, default: no bound.
func WithOutageLimit(d time.Duration) PoolOption {
	return func(s *poolSettings) error {
		if d < time.Second {
			return fmt.Errorf("lease: WithOutageLimit(%v): want at least 1s: %w", d, ErrInvalid)
		}
		s.outage = d
		return nil
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
		if err := option(&s); err != nil {
			return poolSettings{}, err
		}
	}
	if !s.unrests {
		s.residency = s.interval
	}
	return s, nil
}
