package lease

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/dynalock/dynalock/internal/clock"
)

// claim is one partition that a member tries to get, has, or gives back. It lives in a goroutine of its own, and ends with it.
type claim struct {
	member *poolMember
	name   string
	// donor is the live session that it waits for until it has a lease, "" if
	// there is none.
	donor string
	// trying ends when it is not wanted any more before it was got; draining is closed when it has to be given back.
	trying   context.Context
	giveUp   context.CancelFunc
	draining chan struct{}
	// last is the version of the row as it was listed, or before it was given back.
	last uint64

	// Guarded by poolMember.mu: the lease, nil until it was got; when that was; whether it has to be given back, and whether
	// that is a move to keep the load even.
	lease    *Lease
	began    clock.Reading
	quitting bool
	moving   bool
	// calling is the latest call of the handler, nil before the first. overdue: it should have stopped by now.
	calling *call
	overdue bool
	// limit is the timer of WithDrainTimeout, nil until it runs.
	limit clock.Timer
}

// claim starts a claim. The caller holds m.mu.
func (m *poolMember) claim(r *partitionRow, donor string) {
	c := &claim{member: m, name: r.name, donor: donor, draining: make(chan struct{}), last: r.pair.Version}
	c.trying, c.giveUp = context.WithCancel(m.values)
	m.claims[r.name] = c
	m.wait.Go(func() { c.live(r) })
}

// quit asks the claim to end. The caller holds poolMember.mu.
func (c *claim) quit(moving bool) {
	c.moving = c.moving || moving
	if !c.quitting {
		c.quitting = true
		c.giveUp()
		close(c.draining)
		if c.lease != nil {
			c.limit = c.member.client.clock.AfterFunc(c.member.drain, c.hurry)
		}
	}
}

// live gets the partition, works on it and gives it back. Whatever ends it, a handler that calls runtime.Goexit included, it ends in order.
func (c *claim) live(r *partitionRow) {
	m := c.member
	finished := false
	defer func() {
		m.mu.Lock()
		delete(m.claims, c.name)
		if c.limit != nil {
			c.limit.Stop()
		}
		m.settled[c.name] = settlement{m.client.clock.Now(), c.last}
		if finished {
			m.finished, m.workless = true, 1
		}
		m.mu.Unlock()
		c.giveUp()
		select {
		case m.changed <- struct{}{}:
		default:
		}
	}()
	l, err := m.get(c.trying, r, c.donor != "")
	if err != nil {
		if c.trying.Err() == nil && !errors.Is(err, errNotToBeHad) && !errors.Is(err, ErrHeld) {
			m.report(slog.LevelWarn, "a partition cannot be had", "partition", c.name, "error", err)
		}
		return
	}
	defer func() { c.giveBack(l, finished) }()
	m.mu.Lock()
	c.lease, c.began = l, m.client.clock.Now()
	m.mu.Unlock()
	finished = c.work(l)
}

// giveBack releases the lease, with the mark that the partition is done if it
// is, which Close waits for. What is not known goes on in the background, until
// Close; a lost lease cannot be marked any more. Then the log is all that tells.
func (c *claim) giveBack(l *Lease, finished bool) {
	m := c.member
	l.mu.Lock()
	if finished {
		l.record.Partition = l.record.Partition.with(func(p *partitionMarks) { p.Done = true })
	}
	c.last = l.version
	l.mu.Unlock()
	done, _ := m.slots.take(m.values) // which have no end
	defer done()
	err := l.Release(m.values)
	switch {
	case err == nil:
	case finished:
		m.tell(m.values, slog.LevelWarn, "a partition that was done may be worked on again", "partition", c.name, "error", err)
	case !errors.Is(err, ErrLost):
		m.report(slog.LevelWarn, "a partition is given back later", "partition", c.name, "error", err)
	}
}

// work calls the handler until it gives the partition up, or finishes it, or has to stop.
func (c *claim) work(l *Lease) (finished bool) {
	m := c.member
	pauses := clock.Jitter(m.client.clock, backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(time.Second), backoff.WithMaxInterval(time.Minute), backoff.WithMaxElapsedTime(0)))
	for l.Held() && !c.drains() {
		began := m.client.clock.Now()
		err := c.call(l)
		switch {
		case errors.Is(err, ErrDone):
			return true
		case err == nil:
			return false
		case !l.Held(), c.drains():
			m.report(slog.LevelDebug, "a handler stopped", "partition", c.name, "error", err)
			return false
		}
		if m.client.clock.Now().MonotonicSince(began) > time.Minute {
			pauses.Reset()
		}
		pause := pauses.NextBackOff()
		c.failed(EventFailed, l, err, "again", pause)
		c.rest(l, pause)
	}
	return false
}

// drains reports whether the claim was asked to end.
func (c *claim) drains() bool {
	select {
	case <-c.draining:
		return true
	default:
		return false
	}
}

// rest waits for d, or until the partition is lost or has to be given back.
func (c *claim) rest(l *Lease, d time.Duration) {
	t := c.member.client.clock.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C():
	case <-c.draining:
	case <-l.Context().Done():
	}
}
