package clock_test

import (
	"testing"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
)

type seeded struct {
	clock.Clock
	jitter float64
}

func (s *seeded) Float64() float64 { return s.jitter }

func TestJitterComesFromAClockThatOffersIt(t *testing.T) {
	t.Parallel()
	c := &seeded{clock.System, 0}
	require.Equal(t, 900*time.Millisecond, clock.Spread(c, time.Second, 0.1))
	pauses := clock.Jitter(c, backoff.NewExponentialBackOff(backoff.WithInitialInterval(time.Second),
		backoff.WithMultiplier(2)))
	require.Equal(t, 500*time.Millisecond, pauses.NextBackOff())
	c.jitter = 0.5
	require.Equal(t, 2*time.Second, pauses.NextBackOff())
	pauses.Reset()
	require.Equal(t, time.Second, pauses.NextBackOff())
}

func TestJitterIsRandomElsewhere(t *testing.T) {
	t.Parallel()
	seen := map[time.Duration]bool{}
	for range 100 {
		d := clock.Spread(clock.System, time.Second, 0.25)
		require.GreaterOrEqual(t, d, 750*time.Millisecond)
		require.LessOrEqual(t, d, 1250*time.Millisecond)
		seen[d] = true
	}
	require.Greater(t, len(seen), 90)
}
