package clock_test

import (
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
)

// kernel is a machine's three clocks, and counts the system calls.
type kernel struct {
	mono, boot time.Duration
	wall       time.Time
	// slow is how long a system call is interrupted for.
	slow  time.Duration
	calls int
	clock *clock.BootClock
}

func newKernel() *kernel {
	k := &kernel{mono: time.Minute, boot: time.Hour, wall: time.Unix(1000, 0)}
	k.clock = clock.NewBootClock(func() time.Duration {
		k.calls++
		boot := k.boot
		k.pass(k.slow)
		return boot
	}, func() time.Duration { return k.mono })
	return k
}

// pass lets time pass, suspend too but while the system sleeps.
func (k *kernel) pass(d time.Duration) {
	k.mono += d
	k.suspend(d)
}

func (k *kernel) suspend(d time.Duration) {
	k.boot += d
	k.wall = k.wall.Add(d)
}

func (k *kernel) look() time.Duration { return k.clock.At(k.mono, k.wall) }

func TestTheBootClockCostsOneSystemCall(t *testing.T) {
	t.Parallel()
	k := newKernel()
	for range 1000 {
		require.Equal(t, k.boot, k.look())
		k.pass(time.Second)
	}
	require.Equal(t, 1, k.calls)
}

func TestTheBootClockCountsSuspensions(t *testing.T) {
	t.Parallel()
	k := newKernel()
	for range 10 {
		k.pass(time.Second)
		k.look()
		k.suspend(time.Second)
		require.Equal(t, k.boot, k.look(), "suspended")
		k.suspend(2 * time.Second)
		k.wall = k.wall.Add(-time.Second)
		require.Equal(t, k.boot, k.look(), "suspended, and the wall clock set back by half of it")
		k.wall = k.wall.Add(time.Hour)
		require.Equal(t, k.boot, k.look(), "the wall clock is set forward")
	}
	var suspended time.Duration
	for range 10 { // each too short to be seen: together they must be
		k.suspend(60 * time.Microsecond)
		suspended += 60 * time.Microsecond
		require.InDelta(t, k.boot, k.look(), float64(100*time.Microsecond), suspended)
	}
}

func TestTheBootClockRemembersSeveralMeasurements(t *testing.T) {
	t.Parallel()
	k := newKernel()
	for range 10 {
		for range 8 {
			require.Equal(t, k.boot, k.look())
			k.wall = k.wall.Add(time.Hour)
		}
		k.wall = k.wall.Add(-8 * time.Hour)
	}
	require.Equal(t, 8, k.calls)
	k.wall = k.wall.Add(8 * time.Hour) // a ninth takes the place of the first
	k.look()
	k.wall = k.wall.Add(-8 * time.Hour)
	k.look()
	require.Equal(t, 10, k.calls)
}

func TestTheBootClockKeepsNoOffsetThatItMeasuredBadly(t *testing.T) {
	t.Parallel()
	k := newKernel()
	k.slow = time.Second
	read := k.boot
	require.Equal(t, read, k.look(), "as read, before the interruption")
	k.slow = 0
	require.Equal(t, k.boot, k.look())
	require.Equal(t, 2, k.calls, "measured again")
}

func TestTheSystemClockHasABootClockOnLinux(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		require.Zero(t, clock.System.Now().Boot)
		return
	}
	before := clock.System.Now()
	require.Positive(t, before.Boot)
	runtime.GC()
	now := clock.System.Now()
	require.InDelta(t, now.Mono-before.Mono, now.Boot-before.Boot, float64(time.Second), "but for a suspension")
}
