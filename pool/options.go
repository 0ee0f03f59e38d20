package pool

import (
	"fmt"
	"time"

	"github.com/dynalock/dynalock/internal/seam"
	"github.com/dynalock/dynalock/lease"
)

// Bounds and defaults of a Pool.
const (
	// DefaultMaxMoves is how many partitions a member gives to others at the same
	// time without WithMaxMoves.
	DefaultMaxMoves = 4
	// DefaultDrainTimeout is how long a handler may take to stop without
	// WithDrainTimeout.
	DefaultDrainTimeout = 10 * time.Second
	// MaxDuration is the longest duration that an option takes: a year.
	MaxDuration = 365 * 24 * time.Hour
)

type settings struct {
	interval, drainTimeout time.Duration
	residency              time.Duration
	progress, outage       time.Duration
	maxMoves               int
	maxPartitions          int // 0: no bound
	maxAttempts            int // 0: no bound
	endless                bool
	hasResidency           bool
}

// Option is an option of New.
type Option func(*settings) error

// checkDuration refuses a duration that is out of the bounds of an option.
func checkDuration(option string, d, least time.Duration) error {
	if d < least || d > MaxDuration {
		return fmt.Errorf("pool: %s(%v): want %v to %v: %w", option, d, least, MaxDuration, lease.ErrInvalid)
	}
	return nil
}

// WithPlanInterval sets how often a member lists sessions and partitions and
// makes its plan; each time is up to a tenth earlier or later. It bounds how
// soon others notice a member that joins or leaves, and what that costs. 100 ms
// to MaxDuration, default two heartbeats.
func WithPlanInterval(d time.Duration) Option {
	return func(s *settings) error {
		s.interval = d
		return checkDuration("WithPlanInterval", d, 100*time.Millisecond)
	}
}

// WithDrainTimeout bounds how long a handler may go on after Work.Draining has asked
// it to stop: then its context ends. 0: it ends at once. Up to MaxDuration,
// default 10 s.
func WithDrainTimeout(d time.Duration) Option {
	return func(s *settings) error {
		s.drainTimeout = d
		return checkDuration("WithDrainTimeout", d, 0)
	}
}

// WithMaxMoves sets how many partitions this member gives to others at the same
// time to keep the load even, and takes at the same time while it is new (see
// Pool). Taking from the dead, stopping, pausing and removing do not count. At
// least 1, default 4.
func WithMaxMoves(n int) Option {
	return func(s *settings) error {
		if n < 1 {
			return fmt.Errorf("pool: WithMaxMoves(%d): want at least 1: %w", n, lease.ErrInvalid)
		}
		s.maxMoves = n
		return nil
	}
}

// WithMaxPartitions sets how many partitions this member has at most, which the
// others are told. What does not fit anywhere lies idle. At least 1, default: no
// bound.
func WithMaxPartitions(n int) Option {
	return func(s *settings) error {
		if n < 1 {
			return fmt.Errorf("pool: WithMaxPartitions(%d): want at least 1: %w", n, lease.ErrInvalid)
		}
		s.maxPartitions = n
		return nil
	}
}

// WithMaxAttempts makes a partition failed after n attempts in a row that have
// failed. Nobody works on it then, unless Reopen asks for that, and Run counts it
// as ended. An attempt is a call of the handler. It fails by an error or a panic,
// or if its member dies or loses the partition. The count begins anew when an
// attempt has got on: when it saves a checkpoint, lasts for a minute, or gives the
// partition up in order. So moves and outages seldom count.
//
// A process that dies takes all of its attempts with it. To find the guilty one, a
// member calls the handlers of partitions that have one attempt left after a first
// failure one at a time, until that has got on.
//
// An attempt that lasts for a minute without a checkpoint costs one write then,
// and one that is repeated after an error costs one. The count itself costs no
// request. It should be the same for all members: each goes by its own n. At
// least 1, default: no bound, nor is counted.
func WithMaxAttempts(n int) Option {
	return func(s *settings) error {
		if n < 1 {
			return fmt.Errorf("pool: WithMaxAttempts(%d): want at least 1: %w", n, lease.ErrInvalid)
		}
		s.maxAttempts = n
		return nil
	}
}

// WithMinResidency sets for how long a member works on a partition before it
// gives it to another to keep the load even, so that members that come and go do
// not make partitions do the same. 0 to MaxDuration, default one plan
// interval.
func WithMinResidency(d time.Duration) Option {
	return func(s *settings) error {
		s.residency, s.hasResidency = d, true
		return checkDuration("WithMinResidency", d, 0)
	}
}

// WithProgressTimeout makes the context of a handler end, with ErrStuck as its
// cause, when it has neither called Work.Progress nor saved a checkpoint for d.
// That is logged. A handler that ends then has failed; one that does not keeps
// its partition. 1 s to MaxDuration, default: no bound.
func WithProgressTimeout(d time.Duration) Option {
	return func(s *settings) error {
		s.progress = d
		return checkDuration("WithProgressTimeout", d, time.Second)
	}
}

// WithOutageLimit makes Run return the store's error, having asked the handlers
// to stop, when the pool cannot be listed for longer than d: a job that somebody
// waits for ends rather than go on for ever. 1 s to MaxDuration, default: no
// bound.
func WithOutageLimit(d time.Duration) Option {
	return func(s *settings) error {
		s.outage = d
		return checkDuration("WithOutageLimit", d, time.Second)
	}
}

// WithoutEnd makes Run go on when all partitions are done, because more will be
// added.
func WithoutEnd() Option {
	return func(s *settings) error {
		s.endless = true
		return nil
	}
}

func newSettings(c seam.Client, options []Option) (settings, error) {
	s := settings{interval: 2 * c.Heartbeat, drainTimeout: DefaultDrainTimeout, maxMoves: DefaultMaxMoves}
	for _, option := range options {
		if option == nil {
			return settings{}, fmt.Errorf("pool: New: a nil option: %w", lease.ErrInvalid)
		}
		if err := option(&s); err != nil {
			return settings{}, err
		}
	}
	if !s.hasResidency {
		s.residency = s.interval
	}
	return s, nil
}
