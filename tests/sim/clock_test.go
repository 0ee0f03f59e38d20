package sim_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
)

// machine is the clock of one node, and its scheduler: while it is stopped, no
// timer of the node fires and no answer reaches it, so none of its goroutines
// gets to run, and afterwards they go on in any order.
type machine struct {
	*clock.Skewed // what its clocks say
	w             *world
	rate          float64
	salt          uint64

	mu      sync.Mutex
	rng     *rand.Rand
	stopped bool
	waiting []func()
	timers  int
	ids     *rand.Rand
	// disturbed is when it was resumed or its wall clock stepped last.
	disturbed time.Time
}

// trueTime is the clock of the bubble: clock.System without the machine's boot
// clock, which costs a system call.
type trueTime struct{ clock.Clock }

func (trueTime) Now() clock.Reading {
	now := time.Now()
	return clock.Reading{Mono: time.Duration(now.UnixNano()), Wall: now.Round(0)}
}

func (w *world) newMachine(rng *rand.Rand, rate float64, offset time.Duration) *machine {
	return &machine{Skewed: clock.NewSkewed(trueTime{clock.System}, rate, offset), w: w, rate: rate, rng: rng,
		salt: rng.Uint64(), ids: rand.New(rand.NewPCG(rng.Uint64(), rng.Uint64()))}
}

// Float64 is where a simulated library takes its jitter from: it depends on the
// instant alone, and not on its last digits, which tell goroutines of one
// instant apart: it is not to depend on their order.
func (m *machine) Float64() float64 {
	return rand.New(rand.NewPCG(m.salt, uint64(time.Now().UnixMicro()))).Float64()
}

// SessionID is where a simulated library takes the ids of sessions from.
func (m *machine) SessionID() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return fmt.Sprintf("%016x%016x", m.ids.Uint64(), m.ids.Uint64())
}

// stop freezes the machine, its monotonic clock too if monotonic is set.
func (m *machine) stop(monotonic bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stopped = true
	if monotonic {
		m.FreezeMonotonic()
	}
}

// resume lets what was held up run within 20 ms, in an order of the seed's.
func (m *machine) resume() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.stopped {
		return
	}
	m.stopped = false
	m.disturbed = time.Now()
	m.ThawMonotonic()
	for _, f := range m.waiting {
		m.w.after(time.Duration(m.rng.Int64N(int64(20*time.Millisecond))), func() { m.whenRunning(f) })
	}
	m.waiting = nil
}

// step moves the wall clock.
func (m *machine) step(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.disturbed = time.Now()
	m.Step(d)
}

// quiet is for how long it has been neither stopped nor stepped.
func (m *machine) quiet() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopped {
		return 0
	}
	return time.Since(m.disturbed)
}

func (m *machine) isStopped() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stopped
}

// whenRunning calls f now, or when the machine goes on.
func (m *machine) whenRunning(f func()) {
	m.mu.Lock()
	if m.stopped {
		m.waiting = append(m.waiting, f)
		m.mu.Unlock()
		return
	}
	m.mu.Unlock()
	f()
}

// await blocks until the machine runs: what wakes a goroutine by other means
// than a timer or an answer is held up here.
func (m *machine) await() {
	running := make(chan struct{})
	m.whenRunning(func() { close(running) })
	<-running
}

// active is how many timers are set.
func (m *machine) active() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.timers
}

// real is how long d of this machine's monotonic clock takes.
func (m *machine) real(d time.Duration) time.Duration { return time.Duration(float64(d)/m.rate) + 1 }

// NewTimer implements clock.Clock.
func (m *machine) NewTimer(d time.Duration) clock.Timer {
	t := &timer{m: m, ch: make(chan time.Time, 1)}
	t.Reset(d)
	return t
}

// AfterFunc implements clock.Clock.
func (m *machine) AfterFunc(d time.Duration, f func()) clock.Timer {
	t := &timer{m: m, f: f}
	t.Reset(d)
	return t
}

// WithTimeout implements clock.Clock.
func (m *machine) WithTimeout(parent context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	deadline := time.Now().Add(m.real(d))
	if earlier, ok := parent.Deadline(); ok && earlier.Before(deadline) {
		deadline = earlier
	}
	ctx, cancel := context.WithCancelCause(parent)
	t := m.AfterFunc(d, func() { cancel(context.DeadlineExceeded) })
	return timedContext{ctx, deadline}, func() {
		t.Stop()
		cancel(context.Canceled)
	}
}

// timedContext ends when a timer of its machine fires, not at its deadline.
type timedContext struct {
	context.Context
	deadline time.Time
}

func (c timedContext) Deadline() (time.Time, bool) { return c.deadline, true }

func (c timedContext) Err() error {
	if err := c.Context.Err(); err == nil || !errors.Is(context.Cause(c.Context), context.DeadlineExceeded) {
		return err
	}
	return context.DeadlineExceeded
}

// timer fires when the monotonic clock of its machine has reached due, and the machine runs.
type timer struct {
	m  *machine
	ch chan time.Time
	f  func()
	// These are guarded by m.mu. round tells a firing that was stopped or reset meanwhile.
	base   *time.Timer
	due    time.Duration
	round  int
	active bool
}

func (t *timer) C() <-chan time.Time { return t.ch }

func (t *timer) Stop() bool {
	t.m.mu.Lock()
	defer t.m.mu.Unlock()
	return t.stopLocked()
}

func (t *timer) stopLocked() bool {
	active := t.active
	if active {
		t.base.Stop()
		t.active = false
		t.m.timers--
	}
	t.round++
	select {
	case <-t.ch:
	default:
	}
	return active
}

func (t *timer) Reset(d time.Duration) bool {
	t.m.mu.Lock()
	defer t.m.mu.Unlock()
	active := t.stopLocked()
	t.active = true
	t.m.timers++
	t.due = t.m.Now().Mono + d
	t.armLocked(d)
	return active
}

func (t *timer) armLocked(d time.Duration) {
	round := t.round
	t.base = t.m.w.after(t.m.real(d), func() { t.m.whenRunning(func() { t.fire(round) }) })
}

func (t *timer) fire(round int) {
	t.m.mu.Lock()
	if !t.active || round != t.round {
		t.m.mu.Unlock()
		return
	}
	if left := t.due - t.m.Now().Mono; left > 0 { // the monotonic clock stood still meanwhile
		t.armLocked(left)
		t.m.mu.Unlock()
		return
	}
	t.active = false
	t.m.timers--
	t.m.mu.Unlock()
	if t.f != nil {
		t.f()
		return
	}
	t.ch <- time.Now()
}
