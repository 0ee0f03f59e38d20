package pool

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/retry"
	"github.com/dynalock/dynalock/internal/seam"
	"github.com/dynalock/dynalock/lease"
)

// claim is one partition that a member tries to get, has, or gives back. It lives
// in a goroutine of its own, and ends with it.
type claim struct {
	member *member
	name   string
	// currentOwner is the live session that it waits for until it has a lease, ""
	// if there is none.
	currentOwner string
	// trying ends when the partition is not wanted any more before it was got.
	trying context.Context
	cancel context.CancelFunc
	// drained is closed when it has to be given back.
	drained chan struct{}
	// version is that of the row as it was listed, or before it was given back.
	version uint64
	// writing has room for the one who writes the partition's value.
	writing chan struct{}

	// The rest is guarded by member.mu. lease is nil until it was got, at began.
	lease *lease.Lease
	began clock.Reading
	// draining: it has to be given back. moving: to keep the load even.
	draining, moving bool
	// work is the latest call of the handler, nil before the first. timedOut: the
	// handler should have stopped by now.
	work     *Work
	timedOut bool
	// unknown is the value that a write of unknown outcome may have left, nil if the
	// last one's is known.
	unknown []byte
	// failures are the attempts in a row that have failed. alone: this one has the
	// member's turn for last attempts.
	failures int
	alone    bool
	// limit is the timer of WithDrainTimeout, nil until it runs.
	limit clock.Timer
}

// claim starts a claim. The caller holds m.mu.
func (m *member) claim(r *row, owner string) {
	c := &claim{
		member: m, name: r.name, currentOwner: owner, drained: make(chan struct{}), version: r.Version,
		writing: make(chan struct{}, 1),
	}
	c.trying, c.cancel = context.WithCancel(m.values)
	m.claims[r.name] = c
	m.waits[owner]++
	m.wait.Go(func() { c.live(r) })
}

// drain asks the claim to end. The caller holds member.mu.
func (c *claim) drain(moving bool) {
	if moving && !c.moving {
		c.moving = true
		c.member.moving++
	}
	if !c.draining {
		c.draining = true
		c.cancel()
		close(c.drained)
		if c.lease != nil {
			c.limit = c.member.clock.AfterFunc(c.member.drainTimeout, c.force)
		}
	}
}

// live gets the partition, works on it and gives it back. Whatever ends it, a
// handler that calls runtime.Goexit included, it ends in order.
func (c *claim) live(r *row) {
	m := c.member
	var leave state
	defer func() {
		c.endAlone()
		m.mu.Lock()
		delete(m.claims, c.name)
		if c.lease == nil {
			m.endWait(c.currentOwner)
		}
		if c.moving {
			m.moving--
		}
		if c.limit != nil {
			c.limit.Stop()
		}
		m.released[c.name] = release{m.clock.Now(), c.version}
		if leave.ended() {
			m.finished, m.idleRounds = true, 1
		}
		m.mu.Unlock()
		c.cancel()
		select {
		case m.changed <- struct{}{}:
		default:
		}
	}()
	l, err := c.acquire(r)
	if err != nil {
		c.missed(err)
		return
	}
	defer func() { c.release(l, leave) }()
	m.mu.Lock()
	c.lease, c.began, m.lostRounds = l, m.clock.Now(), 0
	m.endWait(c.currentOwner)
	m.mu.Unlock()
	leave = c.workOn(l)
}

// missed notes why the partition was not got.
func (c *claim) missed(err error) {
	m := c.member
	switch {
	case c.trying.Err() != nil:
	case errors.Is(err, lease.ErrChanged), errors.Is(err, lease.ErrHeld):
		m.mu.Lock()
		defer m.mu.Unlock()
		m.lost = true
	default:
		m.report(slog.LevelWarn, "a partition cannot be had", "partition", c.name, "error", err)
	}
}

// endWait notes that a claim does not wait any more for what a session has. The
// caller holds m.mu.
func (m *member) endWait(owner string) {
	if m.waits[owner]--; m.waits[owner] == 0 {
		delete(m.waits, owner)
	}
}

// tryTimeout bounds a try at a partition that nobody has. It is patient with a
// slow store: another try would cost more.
const tryTimeout = 10 * time.Second

// acquire gets the partition's lease. If its owner is alive it waits, else it
// tries once. It never makes the row, so that a partition that was removed does
// not come back.
func (c *claim) acquire(r *row) (*lease.Lease, error) {
	m := c.member
	options := []lease.AcquireOption{lease.From(r.Holder), lease.WithNextValue(c.next)}
	if c.currentOwner != "" {
		return m.client.Acquire(c.trying, r.Key, append(options, seam.NoTurn.(lease.AcquireOption))...)
	}
	if err := c.waitAlone(r); err != nil {
		return nil, err
	}
	done, err := m.slots.take(c.trying)
	if err != nil {
		return nil, err
	}
	defer done()
	ctx, cancel := m.clock.WithTimeout(c.trying, tryTimeout)
	defer cancel()
	return m.client.TryAcquire(ctx, r.Key, options...)
}

// release gives the lease back, and leaves the partition in a state that Close
// waits for, if it is another one than before. What is not known goes on in the
// background, until Close. A lost lease leaves nothing any more. Then the log is
// all that tells that the partition had ended.
func (c *claim) release(l *lease.Lease, leave state) {
	m := c.member
	c.version = l.Version()
	done, _ := m.slots.take(m.values) // which have no end
	defer done()
	old, checkpoint, err := decodeState(c.value(l))
	if err == nil && leave.of(old) != old {
		err = l.ReleaseWith(m.values, leave.of(old).encode(checkpoint))
	} else {
		err = l.Release(m.values)
	}
	switch {
	case err == nil:
	case leave.ended():
		m.logNow(m.values, slog.LevelWarn, "a partition that was done or failed may be worked on again",
			"partition", c.name, "error", err)
	case !errors.Is(err, lease.ErrLost):
		m.report(slog.LevelWarn, "a partition is given back later", "partition", c.name, "error", err)
	}
}

// value is what the handler has last tried to leave.
func (c *claim) value(l *lease.Lease) []byte {
	c.member.mu.Lock()
	defer c.member.mu.Unlock()
	if c.unknown != nil {
		return c.unknown
	}
	return l.Value()
}

// workOn calls the handler until it gives the partition up, or finishes it, or has
// to stop, or has failed too often. It returns the state to leave.
func (c *claim) workOn(l *lease.Lease) state {
	m := c.member
	s, _, err := decodeState(l.Value())
	switch {
	case err != nil:
		return s
	case s.Failed: // by the acquire itself
		c.failed(EventPartitionFailed, l, errors.New(s.Error), "attempts", s.Failures)
		return s
	}
	c.setFailures(s.Failures)
	pauses := retry.PausesBetween(m.clock, time.Second, time.Minute)
	for l.Held() && !c.drains() {
		began := m.clock.Now()
		err := c.call(l)
		switch {
		case errors.Is(err, ErrDone):
			return state{Done: true}
		case err == nil:
			return state{}
		case !l.Held(), c.drains():
			m.report(slog.LevelDebug, "a handler stopped", "partition", c.name, "error", err)
			return state{}
		}
		if m.clock.Now().MonotonicSince(began) > getsOnAfter {
			pauses.Reset()
			c.getOn()
		}
		pause := pauses.NextBackOff()
		c.failed(EventFailed, l, err, "again", pause)
		s := state{Failures: c.countFailure(), Error: shorten(err)}
		if s.Failed = s.Failures == m.maxAttempts; s.Failed {
			c.failed(EventPartitionFailed, l, err, "attempts", s.Failures)
			return s
		}
		if s.Trying = m.maxAttempts > 0; s.Trying {
			c.rewrite(l, s)
		}
		c.sleep(l, pause)
	}
	return state{}
}

// drains reports whether the claim was asked to end.
func (c *claim) drains() bool {
	select {
	case <-c.drained:
		return true
	default:
		return false
	}
}

// sleep waits for d, or until the partition is lost or has to be given back.
func (c *claim) sleep(l *lease.Lease, d time.Duration) {
	t := c.member.clock.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C():
	case <-c.drained:
	case <-l.Context().Done():
	}
}
