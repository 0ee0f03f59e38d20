package idempotency

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

// Defaults and bounds.
const (
	// DefaultMaxBody is how many bytes a request's body may have without
	// WithMaxBody.
	DefaultMaxBody = 1 << 20
	// MaxAnswer is how many bytes an answer's header and body may have together,
	// to be kept.
	MaxAnswer = 256 << 10
	// MaxKey is how many bytes a key may have.
	MaxKey = 255
)

type settings struct {
	maxBody   int64
	retention time.Duration
	required  bool
	log       *slog.Logger
}

// Option is an option of New.
type Option func(*settings) error

// WithMaxBody sets how many bytes a request's body may have: 1 to 1 GiB, default
// DefaultMaxBody. It is held in memory. A longer one is answered by 413.
func WithMaxBody(bytes int64) Option {
	return func(s *settings) error {
		if bytes < 1 || bytes > 1<<30 {
			return fmt.Errorf("idempotency: WithMaxBody(%d): want 1 to %d: %w", bytes, 1<<30, lease.ErrInvalid)
		}
		s.maxBody = bytes
		return nil
	}
}

// WithRetention sets how long answers are kept: lock.MinRetention to
// lock.MaxRetention, default lock.DefaultRetention. Let it be that of the Once
// (lock.WithRetention). A key whose answer is gone sooner than its outcome is
// answered by 410.
func WithRetention(d time.Duration) Option {
	return func(s *settings) error {
		if d < lock.MinRetention || d > lock.MaxRetention {
			return fmt.Errorf("idempotency: WithRetention(%v): want %v to %v: %w",
				d, lock.MinRetention, lock.MaxRetention, lease.ErrInvalid)
		}
		s.retention = d
		return nil
	}
}

// WithRequired answers a request without a key by 400. Default: it goes to the
// handler as it is.
func WithRequired() Option {
	return func(s *settings) error {
		s.required = true
		return nil
	}
}

// WithLogger sets where errors go that a client is told little of: those of the
// store, and of recording an answer. Default: nowhere.
func WithLogger(log *slog.Logger) Option {
	return func(s *settings) error {
		if log == nil {
			return fmt.Errorf("idempotency: WithLogger(nil): want a logger: %w", lease.ErrInvalid)
		}
		s.log = log
		return nil
	}
}
