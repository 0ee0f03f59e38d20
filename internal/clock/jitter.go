package clock

import (
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// Float64 returns a number in [0, 1) for jitter. It is the clock's own if c has a method
// Float64, as a simulation's clock has, so that its runs repeat. Else it is random.
func Float64(c Clock) float64 {
	if source, ok := c.(interface{ Float64() float64 }); ok {
		return source.Float64()
	}
	return rand.Float64()
}

// Spread returns d times anything from 1-by to 1+by.
func Spread(c Clock, d time.Duration, by float64) time.Duration {
	return time.Duration(float64(d) * (1 - by + 2*by*Float64(c)))
}

// Pauses are those of a backoff, which c spreads instead of the backoff itself. Make one
// with Jitter.
type Pauses struct {
	pauses *backoff.ExponentialBackOff
	clock  Clock
	by     float64
}

// Jitter takes b over: its RandomizationFactor is what each pause is spread by.
func Jitter(c Clock, b *backoff.ExponentialBackOff) *Pauses {
	p := &Pauses{pauses: b, clock: c, by: b.RandomizationFactor}
	b.RandomizationFactor = 0
	return p
}

// NextBackOff returns the next pause.
func (p *Pauses) NextBackOff() time.Duration { return Spread(p.clock, p.pauses.NextBackOff(), p.by) }

// Reset begins again with the shortest pause.
func (p *Pauses) Reset() { p.pauses.Reset() }
