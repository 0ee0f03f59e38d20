package clock

import (
	"sync/atomic"
	"time"
)

// bootClock is CLOCK_BOOTTIME without a system call per look, which costs more than all
// the rest of a lock cycle in memory.
//
// The boot and the monotonic clock run at one rate, and part when the system is suspended.
// Then the wall clock parts from the monotonic one by as much. So while wall minus
// monotonic is a distance at which boot minus monotonic was measured, the latter is what
// it was then. What escapes is a suspension that somebody undoes on the wall clock, to
// within bootTolerance.
type bootClock struct {
	// read makes the system call, 0: there is no such clock. mono reads the monotonic clock.
	read, mono func() time.Duration
	// measured are the latest measurements. There are several, since a look that is
	// interrupted between two clocks shows another distance for once. So do the simulated
	// clocks of tests that run beside others.
	measured atomic.Pointer[[]bootOffsets]
}

// bootOffsets is how far the wall clock and the boot clock were ahead of the monotonic one.
type bootOffsets struct{ wall, boot time.Duration }

// maxMeasured bounds the measurements that are kept.
const maxMeasured = 8

// bootTolerance is how exactly offsets are measured and compared.
const bootTolerance = 100 * time.Microsecond

// at is the boot clock at an instant of which the monotonic and the wall clock are known.
func (c *bootClock) at(mono time.Duration, wall time.Time) time.Duration {
	ahead := time.Duration(wall.UnixNano()) - mono
	var measured []bootOffsets
	if m := c.measured.Load(); m != nil {
		measured = *m
	}
	for _, m := range measured {
		if (ahead - m.wall).Abs() <= bootTolerance {
			return mono + m.boot
		}
	}
	before := c.mono()
	boot := c.read()
	after := c.mono()
	if boot == 0 || after-before > bootTolerance {
		return boot // interrupted between the looks: exact, but no measure of the offset
	}
	offset := boot - (before+after)/2
	latest := append([]bootOffsets{{wall: ahead, boot: offset}}, measured[:min(len(measured), maxMeasured-1)]...)
	c.measured.Store(&latest)
	return mono + offset
}
