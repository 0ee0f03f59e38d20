package clock_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
)

func TestSinceTakesTheClockThatCountedMost(t *testing.T) {
	t.Parallel()
	then := clock.Reading{Mono: time.Minute, Boot: time.Hour, Wall: time.Unix(1000, 0)}
	for name, now := range map[string]clock.Reading{
		"monotonic": {Mono: time.Minute + 5*time.Second, Boot: time.Hour + time.Second, Wall: time.Unix(900, 0)},
		"boot":      {Mono: time.Minute, Boot: time.Hour + 5*time.Second, Wall: time.Unix(1001, 0)},
		"wall":      {Mono: time.Minute, Boot: time.Hour, Wall: time.Unix(1005, 0)},
	} {
		require.Equal(t, 5*time.Second, now.Since(then), name)
	}
}

func TestMonotonicSinceIgnoresTheOthers(t *testing.T) {
	t.Parallel()
	then := clock.Reading{Mono: time.Minute, Wall: time.Unix(1000, 0)}
	now := clock.Reading{Mono: time.Minute + time.Second, Boot: time.Hour, Wall: time.Unix(9000, 0)}
	require.Equal(t, time.Second, now.MonotonicSince(then))
}

func TestSystemClockIsTheBubblesInABubble(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		before := clock.System.Now()
		require.NoError(t, clock.Sleep(t.Context(), clock.System, time.Hour))
		require.Equal(t, time.Hour, clock.System.Now().Since(before))
		require.Zero(t, before.Boot, "no real time passes in a bubble")
	})
}

func TestSleepEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := clock.System.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, clock.Sleep(ctx, clock.System, time.Hour), context.DeadlineExceeded)
	})
}

func TestSkewedClock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := clock.NewSkewed(clock.System, 0.5, time.Hour)
		before := c.Now()
		require.Equal(t, time.Hour, before.Wall.Sub(clock.System.Now().Wall))

		time.Sleep(10 * time.Second)
		require.Equal(t, 5*time.Second, c.Now().MonotonicSince(before), "half speed")

		c.FreezeMonotonic()
		time.Sleep(10 * time.Second)
		require.Equal(t, 5*time.Second, c.Now().MonotonicSince(before), "frozen")
		require.Equal(t, 10*time.Second, c.Now().Since(before), "the wall clock went on")
		c.ThawMonotonic()
		time.Sleep(10 * time.Second)
		require.Equal(t, 10*time.Second, c.Now().MonotonicSince(before), "goes on where it stood")

		c.Step(-time.Hour)
		require.Equal(t, 10*time.Second, c.Now().Since(before), "a backward step loses nothing")

		began := time.Now()
		require.NoError(t, clock.Sleep(t.Context(), c, time.Second))
		require.InDelta(t, 2.0, time.Since(began).Seconds(), 0.001)
	})
}
