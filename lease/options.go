package lease

import (
	"fmt"
	"log/slog"
	"maps"
	"os"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/logs"
	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/kv"
)

// Bounds and defaults of a client.
const (
	// MinTTL and MaxTTL bound a session's time to live.
	MinTTL = 3 * time.Second
	MaxTTL = 24 * time.Hour
	// DefaultTTL is a session's time to live without WithTTL.
	DefaultTTL = 15 * time.Second
	// MaxKeySize is the length in bytes of the longest key that can be acquired.
	MaxKeySize = 1000
)

// tenYears bounds what a key may ask for: how long it is held, and how long its
// value is kept.
const tenYears = 10 * 365 * 24 * time.Hour

// within refuses a duration that is out of its option's bounds.
func within(option string, d, shortest, longest time.Duration) error {
	if d < shortest || d > longest {
		return fmt.Errorf("lease: %s(%v): want %v to %v: %w", option, d, shortest, longest, ErrInvalid)
	}
	return nil
}

// retryPause is what R3 allows for the pause between two attempts of a driver.
const retryPause = 50 * time.Millisecond

type settings struct {
	ttl, heartbeat, margin time.Duration
	pollMin, pollMax       time.Duration
	maxSkew, refusedLimit  time.Duration
	turnAfter              time.Duration
	noTurns                bool
	owner                  string
	metadata               map[string]string
	log                    *slog.Logger
	observer               Observer
	tracer                 Tracer
	clock                  clock.Clock
	heartbeats             kv.Store // nil: the client's store
}

// Option is an option of New.
type Option func(*settings) error

// WithTTL sets the session's time to live: how long it outlives its last
// heartbeat, and every lease with it. Others take over from a dead process
// after that time. 3 s to 24 h, default 15 s.
func WithTTL(ttl time.Duration) Option {
	return func(s *settings) error {
		s.ttl = ttl.Truncate(time.Millisecond)
		return within("WithTTL", ttl, MinTTL, MaxTTL)
	}
}

// WithHeartbeat sets the interval of the session's heartbeats, each one write.
// 100 ms to 24 h, default a third of the TTL. New refuses one that leaves no
// room for a lost answer before the trust deadline (R3).
func WithHeartbeat(interval time.Duration) Option {
	return func(s *settings) error {
		s.heartbeat = interval
		return within("WithHeartbeat", interval, 100*time.Millisecond, MaxTTL)
	}
}

// WithMargin sets how long before the TTL ends an unrenewed session stops being
// trusted. Holders have this long to stop their work after their contexts end,
// until others may have the key. 100 ms to 24 h, default a tenth of the TTL,
// but at least 500 ms. New refuses one that leaves no room before it for a
// heartbeat and a lost answer (R3).
func WithMargin(d time.Duration) Option {
	return func(s *settings) error {
		s.margin = d
		return within("WithMargin", d, 100*time.Millisecond, MaxTTL)
	}
}

// WithHeartbeatStore sends heartbeats through a second store, so that they never
// queue behind other requests. It must show the same pairs as the client's own.
// For DynamoDB that is a dynamokv.Store of the same table and partition, over an
// AWS client with an HTTP client of its own. Default: the client's store.
func WithHeartbeatStore(store kv.Store) Option {
	return func(s *settings) error {
		if store == nil {
			return fmt.Errorf("lease: WithHeartbeatStore(nil): want a store: %w", ErrInvalid)
		}
		s.heartbeats = store
		return nil
	}
}

// WithOwner sets the name by which people recognize this client, 1 to 256 bytes.
// It identifies nothing. Default: host-pid-random.
func WithOwner(owner string) Option {
	return func(s *settings) error {
		if owner == "" || len(owner) > 256 {
			return fmt.Errorf("lease: WithOwner(%.40q): want 1 to 256 bytes: %w", owner, ErrInvalid)
		}
		s.owner = owner
		return nil
	}
}

// WithPoll bounds how often a waiter reads the key: after a tenth of the time
// since it last changed hands, but not more often than least nor more seldom
// than most. While the store fails the pauses grow to 5 s, or to most if that
// is longer. 1 ms to 1 h each, default 50 ms and 1 s.
func WithPoll(shortest, longest time.Duration) Option {
	return func(s *settings) error {
		if shortest < time.Millisecond || longest < shortest || longest > time.Hour {
			return fmt.Errorf("lease: WithPoll(%v, %v): want 1ms to %v, and the second not below the first: %w",
				shortest, longest, time.Hour, ErrInvalid)
		}
		s.pollMin, s.pollMax = shortest, longest
		return nil
	}
}

// WithMaxClockSkew lets this client take over from a dead process without
// watching it for its TTL first, when the dead one's last heartbeat is older
// than its TTL, a sixteenth and d by this machine's wall clock. d must bound by
// how much the wall clocks of any two machines differ, steps included: with a
// clock that is further off, two processes can believe in one lease at once,
// and only the fencing token keeps them apart. 1 ms to 24 h. Default: wall
// clocks of other machines are not trusted at all.
func WithMaxClockSkew(d time.Duration) Option {
	return func(s *settings) error {
		s.maxSkew = d
		return within("WithMaxClockSkew", d, time.Millisecond, MaxTTL)
	}
}

// WithRefusedLimit sets for how long a call that waits goes on while the store
// refuses what it asks (kv.ErrRefused): no permission, credentials that have
// expired, no table. It then returns the refusal. 0 to ten years, 0: at once.
// Default: two TTLs. A client whose store has never answered returns every
// failure at once.
func WithRefusedLimit(d time.Duration) Option {
	return func(s *settings) error {
		s.refusedLimit = d
		return within("WithRefusedLimit", d, 0, tenYears)
	}
}

// WithObserver sets who is told of events, for metrics. See EventType. Default:
// nobody.
func WithObserver(observer Observer) Option {
	return func(s *settings) error {
		if observer == nil {
			return fmt.Errorf("lease: WithObserver(nil): want a function: %w", ErrInvalid)
		}
		s.observer = observer
		return nil
	}
}

// WithLogger sets where the client logs its events. Default: warnings and errors
// go to slog.Default(), the rest nowhere. A warning of one cause comes once a
// minute. slog.New(slog.DiscardHandler) silences all.
//
//   - Warn: failing heartbeats, a store that does not answer, lost sessions,
//     leases that were revoked, broken or held too long.
//   - Info: takeovers, killed sessions, acquires that wait because of errors.
//   - Debug: the rest.
func WithLogger(log *slog.Logger) Option {
	return func(s *settings) error {
		if log == nil {
			return fmt.Errorf("lease: WithLogger(nil): want a logger: %w", ErrInvalid)
		}
		s.log = log
		return nil
	}
}

// WithMetadata adds what people may want to know of this process to the
// session's row. Names and values have at most 4 KiB together: each heartbeat
// writes them.
func WithMetadata(metadata map[string]string) Option {
	return func(s *settings) error {
		size := 0
		for name, value := range metadata {
			size += len(name) + len(value)
		}
		if size > 4096 {
			return fmt.Errorf("lease: WithMetadata: %d bytes, want at most 4096: every heartbeat writes them: %w",
				size, ErrInvalid)
		}
		s.metadata = maps.Clone(metadata)
		return nil
	}
}

// WithClock sets the clock, for simulations.
func WithClock(c clock.Clock) Option {
	return func(s *settings) error {
		if c == nil {
			return fmt.Errorf("lease: WithClock(nil): want a clock: %w", ErrInvalid)
		}
		s.clock = c
		return nil
	}
}

func newSettings(options []Option) (settings, error) {
	s := settings{
		ttl: DefaultTTL, pollMin: 50 * time.Millisecond, pollMax: time.Second,
		log: logs.Default(), clock: clock.System, refusedLimit: -1, turnAfter: DefaultTurnAfter,
	}
	for _, option := range options {
		if option == nil {
			return settings{}, fmt.Errorf("lease: New: a nil option: %w", ErrInvalid)
		}
		if err := option(&s); err != nil {
			return settings{}, err
		}
	}
	if s.heartbeat == 0 {
		s.heartbeat = s.ttl / 3
	}
	s.log = logs.Sparing(s.log)
	if s.refusedLimit < 0 {
		s.refusedLimit = 2 * s.ttl
	}
	if s.owner == "" {
		host, _ := os.Hostname() // a nameless host has an empty name
		s.owner = fmt.Sprintf("%s-%d-%s", host, os.Getpid(), rows.RandomID(4))
	}
	if s.margin == 0 {
		s.margin = max(s.ttl/10, 500*time.Millisecond)
	}
	need := s.heartbeat*11/10 + 2*(s.attemptTimeout()+retryPause)
	if room := s.ttl - s.margin; need >= room {
		return settings{},
			fmt.Errorf("lease: a heartbeat every %v with a TTL of %v and a margin of %v leaves no room for a lost answer: "+
				"%v needed, less than %v there: %w", s.heartbeat, s.ttl, s.margin, need, room, ErrInvalid)
	}
	return s, nil
}

// attemptTimeout bounds each attempt of a store call (R3).
func (s *settings) attemptTimeout() time.Duration { return min(time.Second, s.ttl/6) }

// cleanupTimeout bounds the writes that give something back. They do not depend on
// their caller's context.
func (s *settings) cleanupTimeout() time.Duration {
	return min(max(2*time.Second, s.ttl/3), 10*time.Second)
}
