package lock

import (
	"fmt"
	"time"

	"github.com/dynalock/dynalock/lease"
)

// Bounds and default of WithRetention.
const (
	// DefaultRetention is for how long a slot's outcome is kept without it.
	DefaultRetention = 7 * 24 * time.Hour
	// MinRetention and MaxRetention bound it: a minute and ten years.
	MinRetention = time.Minute
	MaxRetention = 10 * 365 * 24 * time.Hour
)

type onceSettings struct {
	retention                   time.Duration
	takeOver, retryFailed, wait bool
}

// OnceOption is an option of NewOnce. Each process decides by its own options, so all
// that ask for a job should have the same.
type OnceOption func(*onceSettings) error

// WithRetention sets how long an outcome is kept, a minute to ten years: longer than
// anybody may still ask for the slot. Then the slot counts as never claimed. Default:
// DefaultRetention, a week.
//
// It is a hint for the store. On DynamoDB the row goes within days after. memkv and
// sqlkv keep it until Forget. What was claimed and not settled is kept until somebody
// asks again.
func WithRetention(d time.Duration) OnceOption {
	return func(s *onceSettings) error {
		if d < MinRetention || d > MaxRetention {
			return fmt.Errorf("lock: WithRetention(%v): want %v to %v: %w",
				d, MinRetention, MaxRetention, lease.ErrInvalid)
		}
		s.retention = d
		return nil
	}
}

// TakeOver makes Do run a slot again whose claimer died or lost its lease: at least
// once instead of at most once. A claimer that was paused may go on for a moment when
// it wakes. So fn must stand being run twice, also at the same time: pass the lease's
// token to what it writes to. Default: the slot is abandoned.
func TakeOver() OnceOption {
	return func(s *onceSettings) error {
		s.takeOver = true
		return nil
	}
}

// RetryFailed makes Do run a slot again whose last run failed. Default: a failed slot
// is settled. fn itself can repeat what is worth repeating.
func RetryFailed() OnceOption {
	return func(s *onceSettings) error {
		s.retryFailed = true
		return nil
	}
}

// Wait makes Do wait while the slot runs elsewhere, until its context ends. Default: it
// returns an error that matches lease.ErrHeld.
func Wait() OnceOption {
	return func(s *onceSettings) error {
		s.wait = true
		return nil
	}
}
