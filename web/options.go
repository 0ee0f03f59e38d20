package web

import (
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/dynalock/dynalock/lease"
)

// Bounds and default of WithInterval.
const (
	MinInterval     = 500 * time.Millisecond
	MaxInterval     = time.Minute
	DefaultInterval = 2 * time.Second
)

type settings struct {
	interval  time.Duration
	values    bool
	authorize Authorizer
	log       *slog.Logger
}

// Option is an option of Handler.
type Option func(*settings) error

// WithInterval sets how often the store is read while somebody looks: at least
// MinInterval, at most MaxInterval, default 2 s. Where a session has a TTL of less
// than six intervals, the store is read every sixth of it, but not more often than
// every MinInterval, so that a holder that stops beating shows before others take
// its locks. Partitions and slots are read every five intervals, 10 s at least.
func WithInterval(d time.Duration) Option {
	return func(s *settings) error {
		if d < MinInterval || d > MaxInterval {
			return fmt.Errorf("web: WithInterval(%v): want %v to %v: %w", d, MinInterval, MaxInterval, lease.ErrInvalid)
		}
		s.interval = d
		return nil
	}
}

// WithValues shows what keys keep: values, checkpoints, results and errors of jobs,
// what leaders proclaim, up to 4 KiB each. Default: how many bytes they have. Values
// may be secrets, and whoever sees the page sees them.
func WithValues() Option {
	return func(s *settings) error {
		s.values = true
		return nil
	}
}

// WithLogger sets where actions and failures to read are logged. nil or default:
// slog.Default().
func WithLogger(log *slog.Logger) Option {
	return func(s *settings) error {
		if log != nil {
			s.log = log
		}
		return nil
	}
}

// Action is what somebody asks for.
type Action struct {
	// Name is "break", "step-down", "pause" or "resume".
	Name string
	// Key is the key of the lock, of the election or of the partition, as
	// lease.Client.Inspect takes it.
	Key string
	// Token is the acquisition that was seen, of a break or a step-down. 0: the
	// action is about the partition, whoever has it.
	Token uint64
}

// Authorizer decides whether the sender of r may do a. who is the person's name for
// the log. An error refuses: its text is shown to that person.
type Authorizer func(r *http.Request, a Action) (who string, err error)

// WithActions makes the page offer what operators do: break a lock, make a leader
// step down, pause and resume a partition. authorize is asked each time, before
// anything is done. Each action is confirmed by typing the key, holds for the
// acquisition that was seen, and is logged. Default: the page only reads, and has no
// route that writes.
func WithActions(authorize Authorizer) Option {
	return func(s *settings) error {
		if authorize == nil {
			return fmt.Errorf("web: WithActions(nil): want a function that says who may act: %w", lease.ErrInvalid)
		}
		s.authorize = authorize
		return nil
	}
}
