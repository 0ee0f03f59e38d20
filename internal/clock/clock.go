// Package clock is where dynalock reads clocks and makes timers, so that simulations can
// bend them.
//
// Three clocks run on every machine, and each fails in its own way (R4):
//
//   - The monotonic clock never steps. It stops while a virtual machine or a Lambda sandbox
//     is frozen.
//   - The wall clock goes on, but may be stepped.
//   - Linux's CLOCK_BOOTTIME does neither, where it exists.
//
// A holder must not count too little, so it takes the greatest of the three
// (Reading.Since). A contender must not count too much, so it takes the monotonic clock
// alone (Reading.MonotonicSince).
package clock

import (
	"context"
	"time"
)

// Reading is one look at all the clocks. The zero Reading means "never".
type Reading struct {
	// Mono is the monotonic clock, from an unknown start. Boot is the clock that counts
	// suspensions too, from another unknown start, 0 where there is none.
	Mono, Boot time.Duration
	// Wall is the wall clock, without Go's monotonic reading.
	Wall time.Time
}

// Since returns the time from r to now by the clock that counted most: how a holder ages
// what it trusts.
func (now Reading) Since(r Reading) time.Duration {
	return max(now.Mono-r.Mono, now.Boot-r.Boot, now.Wall.Sub(r.Wall))
}

// MonotonicSince returns the time from r to now by the monotonic clock: how a contender
// ages what it observes.
func (now Reading) MonotonicSince(r Reading) time.Duration { return now.Mono - r.Mono }

// IsZero reports whether r was never read.
func (now Reading) IsZero() bool { return now.Wall.IsZero() && now.Mono == 0 }

// Clock reads time and makes timers. Its methods are safe for concurrent use.
type Clock interface {
	// Now reads all clocks.
	Now() Reading
	// NewTimer makes a timer that fires once after d of the monotonic clock.
	NewTimer(d time.Duration) Timer
	// AfterFunc calls f in its own goroutine after d of the monotonic clock.
	AfterFunc(d time.Duration, f func()) Timer
	// WithTimeout is context.WithTimeout on this clock.
	WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc)
}

// Timer is a timer of a Clock.
type Timer interface {
	// C is the channel on which a timer of NewTimer fires; nil for AfterFunc.
	C() <-chan time.Time
	// Stop prevents the timer from firing and reports whether it did.
	Stop() bool
	// Reset makes the timer fire after d from now, as time.Timer.Reset does.
	Reset(d time.Duration) bool
}

// Sleep waits for d on c. It returns early, with ctx's error, when ctx ends.
func Sleep(ctx context.Context, c Clock, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := c.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// System is the clock of the machine. Inside a testing/synctest bubble it is the bubble's.
var System Clock = system{}

type system struct{}

// start anchors monotonic readings: only differences of them mean anything.
var start = time.Now()

var boot = &bootClock{read: boottime, mono: func() time.Duration { return time.Since(start) }}

func (system) Now() Reading {
	now := time.Now()
	mono, wall := now.Sub(start), now.Round(0)
	if mono < 0 { // a bubble's time, which begins in the year 2000: no kernel's clock goes with it
		return Reading{Mono: mono, Wall: wall}
	}
	return Reading{Mono: mono, Boot: boot.at(mono, wall), Wall: wall}
}

func (system) NewTimer(d time.Duration) Timer { return systemTimer{time.NewTimer(soon(d))} }

func (system) AfterFunc(d time.Duration, f func()) Timer {
	return systemTimer{time.AfterFunc(soon(d), f)}
}

// soon is d, or the shortest time that is not now. Go 1.26 runs a timer that is
// due now on the goroutine that makes it, where that is in a synctest bubble.
// Two of those at once crash the race detector, whose state for timers all
// goroutines of a bubble share (runtime.(*timer).modify and unlockAndRun).
func soon(d time.Duration) time.Duration { return max(d, time.Nanosecond) }

func (system) WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, d)
}

type systemTimer struct{ *time.Timer }

func (t systemTimer) C() <-chan time.Time { return t.Timer.C }

func (t systemTimer) Reset(d time.Duration) bool { return t.Timer.Reset(soon(d)) }
