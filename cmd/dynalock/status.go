package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/dynamokv"
	"github.com/dynalock/dynalock/kv/pgkv"
	"github.com/dynalock/dynalock/lease"
)

// Statuses of the command, from sysexits.h where it has one. run passes its
// child's on.
const (
	statusFailed      = 1
	statusUsage       = 64
	statusUnavailable = 69
	statusNotAcquired = 75
	statusLost        = 76
	statusRefused     = 77
	statusUnfit       = 78
	statusNotRunnable = 126
	statusNotFound    = 127
	statusSignal      = 128 // and the signal's number
)

// exit is an error with a status of its own. err is nil where nothing is to be
// said.
type exit struct {
	status int
	err    error
}

func (e *exit) Error() string { return fmt.Sprint(e.err) }
func (e *exit) Unwrap() error { return e.err }

func usage(err error) error { return &exit{statusUsage, err} }

// statusOf is the status for an error.
func statusOf(err error) int {
	var own *exit
	is := func(target error) bool { return errors.Is(err, target) }
	switch {
	case err == nil:
		return 0
	case errors.As(err, &own):
		return own.status
	case is(dynamokv.ErrTableNotFound), is(pgkv.ErrTableNotFound), is(dynamokv.ErrTableUnfit), is(pgkv.ErrUnfit):
		return statusUnfit
	case is(kv.ErrRefused):
		return statusRefused
	case is(kv.ErrUnavailable), is(kv.ErrThrottled), is(kv.ErrUncertain), is(kv.ErrClock):
		return statusUnavailable
	case is(lease.ErrHeld), is(context.DeadlineExceeded):
		return statusNotAcquired
	case is(lease.ErrInvalid), is(kv.ErrInvalidKey), is(kv.ErrInvalidOption), is(kv.ErrReservedField), is(kv.ErrTooLarge):
		return statusUsage
	}
	return statusFailed
}
