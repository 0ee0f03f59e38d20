// Package retry repeats what may fail for a while, and knows which failures
// repeating does not mend.
package retry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
)

// Bounds of the pauses between two attempts (R14).
const (
	shortest = 100 * time.Millisecond
	longest  = 30 * time.Second
)

// Pauses are those between attempts: 100 ms to 30 s, jittered, for ever.
func Pauses(c clock.Clock) *clock.Pauses { return PausesBetween(c, shortest, longest) }

// PausesBetween are pauses that grow from least to most, jittered, for ever.
func PausesBetween(c clock.Clock, from, to time.Duration) *clock.Pauses {
	return clock.Jitter(c, backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(from), backoff.WithMaxInterval(to), backoff.WithMaxElapsedTime(0)))
}

// ErrAgain asks Until for another round at once.
var ErrAgain = errors.New("retry: again")

// stopError ends Until: trying again does not mend it.
type stopError struct{ error }

// Stop returns an error that makes Until return err.
func Stop(err error) error { return stopError{err} }

// UntilKnown calls do until it returns nil or an error of Stop, or ctx ends. It
// pauses between failures.
func UntilKnown(ctx context.Context, c clock.Clock, do func() error) error {
	pauses := Pauses(c)
	for {
		err := do()
		if err == nil {
			return nil
		}
		if errors.Is(err, ErrAgain) && ctx.Err() == nil {
			continue
		}
		if final := (stopError{}); errors.As(err, &final) {
			return final.error
		}
		if clock.Sleep(ctx, c, pauses.NextBackOff()) != nil {
			return fmt.Errorf("%w, and before that: %w", context.Cause(ctx), err)
		}
	}
}

// permanent are the errors of a store that waiting does not mend.
var permanent = []error{
	kv.ErrFormat, kv.ErrClosed, kv.ErrTooLarge, kv.ErrInvalidKey, kv.ErrInvalidOption, kv.ErrReservedField,
	kv.ErrIndexNotSupported, kv.ErrUnsupported,
}

// transient are those that it may mend. Somebody has to help with ErrRefused.
var transient = []error{kv.ErrUncertain, kv.ErrThrottled, kv.ErrUnavailable, kv.ErrClock, kv.ErrRefused}

// answers are no failures: the store has answered.
var answers = []error{kv.ErrKeyNotFound, kv.ErrKeyExists, kv.ErrKeyModified}

// isAny reports whether err is one of targets.
func isAny(err error, targets []error) bool {
	return slices.ContainsFunc(targets, func(target error) bool { return errors.Is(err, target) })
}

// IsAnswer reports whether a store's error, or nil, says that it works: it has
// answered, though perhaps not as the caller wished.
func IsAnswer(err error) bool {
	return err == nil || isAny(err, answers) || errors.Is(err, kv.ErrFormat)
}

// IsClassified reports whether err is one of package kv's sentinels.
func IsClassified(err error) bool {
	return isAny(err, permanent) || isAny(err, transient) || isAny(err, answers)
}

// IsPermanent reports whether waiting does not mend err: a store's error of that
// kind, or one of the caller's own.
func IsPermanent(err error, own ...error) bool {
	return isAny(err, permanent) || isAny(err, own)
}
