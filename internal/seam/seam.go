// Package seam gives the recipes the few things of package lease that are nobody
// else's business. lease sets the variables when the program begins.
package seam

import (
	"context"
	"log/slog"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
)

// Client is what a lease.Client was made with.
type Client struct {
	Clock clock.Clock
	Log   *slog.Logger
	// TTL is that of its sessions, Heartbeat the interval of its heartbeats,
	// AttemptTimeout the bound of each of its attempts. PollMin and PollMax bound
	// the pauses of who waits.
	TTL, Heartbeat, AttemptTimeout time.Duration
	PollMin, PollMax               time.Duration
	// RefusedLimit is for how long who waits goes on while the store refuses.
	RefusedLimit time.Duration
	// ID is the same 64 random bits, in hex, at each call.
	ID func() string
	// Met reports whether the store has ever answered.
	Met func() bool
	// Begin begins a call that Close interrupts and waits for. Its context ends with
	// ctx, or when Close begins. The caller calls end. The error is
	// lease.ErrClosed.
	Begin func(ctx context.Context) (running context.Context, end func(), err error)
	// Go runs a task in the background, for which Close waits, and tells when it has
	// ended.
	Go func(task func(ctx context.Context)) (ended <-chan struct{})
	// Emit tells its observer of an event, which is a lease.Event, and not its
	// log.
	Emit func(event any)
}

// Of returns the parts of client, which is a *lease.Client.
var Of func(client any) Client

// Private is a lease.AcquireOption for a key that no other client wants. It is not
// left to others now and then (R15).
var Private any

// NoTurn is a lease.AcquireOption for an acquire that does not enter the key's queue
// (R20).
var NoTurn any

// ReleaseUnused releases a *lease.Lease that nobody has had. It does not wait for a
// lease.WithMinHold, and what fails goes on in the background.
var ReleaseUnused func(ctx context.Context, l any)
