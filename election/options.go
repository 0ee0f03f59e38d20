package election

import (
	"bytes"
	"fmt"
	"log/slog"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/logs"
	"github.com/dynalock/dynalock/lease"
)

// Bounds and defaults of an election.
const (
	// MaxNameSize is the length in bytes of the longest name.
	MaxNameSize = 240
	// DefaultPoll is how often Observe looks without WithPoll.
	DefaultPoll = time.Second
	// DefaultGrace is how long a deposed leader has to stop without WithGrace: the
	// least margin that a lease.Client leaves its holders.
	DefaultGrace = 500 * time.Millisecond
)

type settings struct {
	value       []byte
	poll, grace time.Duration
	stepDown    time.Duration // below 0: two maximum polls of the client
	log         *slog.Logger
	clock       clock.Clock
}

// Option is an option of New.
type Option func(*settings) error

// WithValue sets the value with which Run campaigns, such as an address: at most
// lease.MaxValueSize bytes. Others see it until the leader proclaims something else.
// Default: none.
func WithValue(value []byte) Option {
	return func(s *settings) error {
		s.value = bytes.Clone(value)
		return checkValue("WithValue", value)
	}
}

func checkValue(what string, value []byte) error {
	if len(value) > lease.MaxValueSize {
		return fmt.Errorf("election: %s: a value of %d bytes, want at most %d: %w",
			what, len(value), lease.MaxValueSize, lease.ErrInvalid)
	}
	return nil
}

// WithPoll sets how often Observe looks: 10 ms to 1 h, default 1 s. lease.WithPoll
// sets how often a candidate does.
func WithPoll(d time.Duration) Option {
	return func(s *settings) error {
		if d < 10*time.Millisecond || d > time.Hour {
			return fmt.Errorf("election: WithPoll(%v): want 10ms to 1h: %w", d, lease.ErrInvalid)
		}
		s.poll = d
		return nil
	}
}

// WithGrace sets how long a leader may go on after the loss of its leadership: what
// fn needs to return once its context has ended. Then it is logged as an error, and
// Check fails. 0 to 1 h, default 500 ms.
//
// Others lead no later for it. A grace beyond the margin of the lease.Client (a tenth
// of its TTL, at least 500 ms) overlaps with the next leader.
func WithGrace(d time.Duration) Option {
	return func(s *settings) error {
		if d < 0 || d > time.Hour {
			return fmt.Errorf("election: WithGrace(%v): want 0 to 1h: %w", d, lease.ErrInvalid)
		}
		s.grace = d
		return nil
	}
}

// WithStepDown sets for how long Run does not campaign after an operator has ended
// its leadership (lease.Client.Break, StepDown), if another candidate is known then.
// So somebody else leads. It should be longer than the poll of the others. 0 to 24
// h, 0: it campaigns at once. Default: two maximum polls of the client
// (lease.WithPoll), 2 s.
func WithStepDown(d time.Duration) Option {
	return func(s *settings) error {
		if d < 0 || d > 24*time.Hour {
			return fmt.Errorf("election: WithStepDown(%v): want 0 to 24h: %w", d, lease.ErrInvalid)
		}
		s.stepDown = d
		return nil
	}
}

// WithLogger sets where the election logs: elected, resigned, lost, campaigns that
// fail, leaders that do not stop. A warning of one cause comes once a minute.
// Default: warnings and errors go to slog.Default(), the rest nowhere.
func WithLogger(log *slog.Logger) Option {
	return func(s *settings) error {
		if log == nil {
			return fmt.Errorf("election: WithLogger(nil): want a logger: %w", lease.ErrInvalid)
		}
		s.log = log
		return nil
	}
}

// WithClock sets the clock, for simulations. It should be the client's.
func WithClock(c clock.Clock) Option {
	return func(s *settings) error {
		if c == nil {
			return fmt.Errorf("election: WithClock(nil): want a clock: %w", lease.ErrInvalid)
		}
		s.clock = c
		return nil
	}
}

func newSettings(options []Option) (settings, error) {
	s := settings{poll: DefaultPoll, grace: DefaultGrace, stepDown: -1, log: logs.Default(), clock: clock.System}
	for _, option := range options {
		if option == nil {
			return settings{}, fmt.Errorf("election: New: a nil option: %w", lease.ErrInvalid)
		}
		if err := option(&s); err != nil {
			return settings{}, err
		}
	}
	s.log = logs.Sparing(s.log)
	return s, nil
}
