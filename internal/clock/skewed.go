package clock

import (
	"context"
	"sync"
	"time"
)

// Skewed is a clock that is wrong in the ways that clocks are, for simulations. Its wall
// clock is off and steps. Its monotonic and boot clocks run too fast or too slow. Its
// monotonic clock can stand still, as it does while a machine is frozen. Make one with
// NewSkewed.
type Skewed struct {
	base  Clock
	start Reading
	rate  float64

	mu     sync.Mutex
	offset time.Duration
	// lost is how much of the monotonic clock freezes have skipped. frozen is when the
	// present freeze began, if there is one.
	lost   time.Duration
	frozen *Reading
}

// NewSkewed returns a clock over base that runs at rate (1: as base does) with
// a wall clock that is off by offset.
func NewSkewed(base Clock, rate float64, offset time.Duration) *Skewed {
	return &Skewed{base: base, start: base.Now(), rate: rate, offset: offset}
}

// Step moves the wall clock by d.
func (s *Skewed) Step(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offset += d
}

// FreezeMonotonic stops the monotonic clock, as seen by Now, until ThawMonotonic. Timers go on.
func (s *Skewed) FreezeMonotonic() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.base.Now()
	s.frozen = &now
}

// ThawMonotonic lets the monotonic clock go on from where it stood.
func (s *Skewed) ThawMonotonic() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.frozen != nil {
		s.lost += s.base.Now().Mono - s.frozen.Mono
		s.frozen = nil
	}
}

// Now implements Clock.
func (s *Skewed) Now() Reading {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.base.Now()
	mono := now.Mono
	if s.frozen != nil {
		mono = s.frozen.Mono
	}
	return Reading{
		Mono: s.start.Mono + s.scale(mono-s.start.Mono-s.lost),
		Boot: 0, // none, so that what a test sees does not depend on the machine's
		Wall: s.start.Wall.Add(s.scale(now.Mono-s.start.Mono) + s.offset),
	}
}

// scale turns a duration of base into one of s.
func (s *Skewed) scale(d time.Duration) time.Duration { return time.Duration(float64(d) * s.rate) }

// real turns a duration of s into one of base, rounded up so that no timer fires early.
func (s *Skewed) real(d time.Duration) time.Duration {
	return time.Duration(float64(d)/s.rate) + 1
}

// NewTimer implements Clock.
func (s *Skewed) NewTimer(d time.Duration) Timer {
	return skewedTimer{s.base.NewTimer(s.real(d)), s}
}

// AfterFunc implements Clock.
func (s *Skewed) AfterFunc(d time.Duration, f func()) Timer {
	return skewedTimer{s.base.AfterFunc(s.real(d), f), s}
}

// WithTimeout implements Clock.
func (s *Skewed) WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return s.base.WithTimeout(ctx, s.real(d))
}

type skewedTimer struct {
	Timer
	clock *Skewed
}

func (t skewedTimer) Reset(d time.Duration) bool { return t.Timer.Reset(t.clock.real(d)) }
