package election

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// Term is one leadership, from election to Resign or loss; once it is over it never comes back. It is safe for concurrent use.
//
// A Term is not proof that nobody else acts as leader: between a check of Held and the act that follows, the process may be paused for
// longer than the term lasts. Pass Token to what the leader changes and let it refuse smaller ones.
type Term struct {
	election *Election
	lease    *lease.Lease
	// leave ends the candidacy; unwatch stops waiting for the loss.
	leave   func()
	unwatch func() bool

	mu sync.Mutex
	// over: Resign was called. deposed is when a loss was noticed before that, nil: it was not; report then logs
	// that the grace is over.
	over    bool
	deposed *clock.Reading
	report  clock.Timer
}

// Token returns the term's fencing token: of any two terms of an election, in whatever processes, the later has the greater one.
func (t *Term) Token() uint64 { return t.lease.Token() }

// Context returns a context that ends with the term; context.Cause is then a *lease.LostError that says why. A loss is signalled by the
// trust deadline at the latest, whether or not the store answers. It does not end before Resign when only Run's ctx ends.
func (t *Term) Context() context.Context { return t.lease.Context() }

// Held reports whether this process leads, computed from the clocks now: no I/O.
func (t *Term) Held() bool { return t.lease.Held() }

// Err returns nil while this process leads, and then for ever the *lease.LostError that says why it does not: one that
// matches lease.ErrNotHeld after Resign, else lease.ErrLost. No I/O.
func (t *Term) Err() error { return t.lease.Err() }

// Remaining returns for how long this process leads if no further heartbeat succeeds, 0 if it does not. No I/O.
func (t *Term) Remaining() time.Duration { return t.lease.Remaining() }

// TakenOver reports whether the leader before had died, so that its work may be half done.
func (t *Term) TakenOver() bool { return t.lease.TakenOver() }

// Value returns what this leader is known to have proclaimed last, else what it campaigned with. It is the caller's to keep. No I/O.
func (t *Term) Value() []byte { return t.lease.Value() }

// Condition returns the condition that this term has not been followed by another, to be put into the transaction that writes what
// the leader guards. See lease.Lease.Condition.
func (t *Term) Condition() kv.Condition { return t.lease.Condition() }

// Proclaim changes the value that others see, at most lease.MaxValueSize bytes. It costs one write, conditional on this term.
//
// nil: observers see the value. An error that matches lease.ErrLost or lease.ErrNotHeld: they never do, the term is over. One that matches
// kv.ErrUncertain: they may, until the next Proclaim or Resign. Any other: they do not. The term goes on unless the error says otherwise.
func (t *Term) Proclaim(ctx context.Context, value []byte) error { return t.lease.Update(ctx, value) }

// Resign ends the term and the candidacy, and lets the next candidate lead, which it notices within one poll. The term ends before
// anything is sent, so stop the work first. Call it after a loss too: it says that the work has stopped. It does not
// depend on ctx, which may have ended, but bounds itself to a third of the TTL, 2 to 10 s. It costs two writes, one of them a heartbeat in the background.
//
// nil: nobody leads on account of this term. An error that matches lease.ErrLost: the term had ended before, by loss. Any other: the outcome is not
// known yet, and the resignation goes on in the background until it is. In each case this process does not lead, and stays
// known as no leader. Resigning again returns what the first call returned.
func (t *Term) Resign(ctx context.Context) error {
	t.unwatch()
	t.mu.Lock()
	first := !t.over
	t.over = true
	if t.report != nil {
		t.report.Stop()
	}
	t.mu.Unlock()
	e := t.election
	e.mu.Lock()
	delete(e.terms, t)
	e.mu.Unlock()

	err := t.lease.Release(ctx)
	t.leave()
	if first {
		e.log.Info("election: resigned", "election", e.name, "token", t.Token(), "error", err)
	}
	return err
}

// lost is called when the lease has ended.
func (t *Term) lost() {
	if t.sinceDeposed() < 0 {
		return
	}
	t.election.log.Warn("election: leadership lost", "election", t.election.name, "token", t.Token(), "error", t.Err())
}

// sinceDeposed is for how long the leader has gone on without its leadership, negative if it has not. Whoever
// notices the loss first starts the timer of the grace.
func (t *Term) sinceDeposed() time.Duration {
	if !errors.Is(t.Err(), lease.ErrLost) {
		return -1
	}
	c := t.election.clock
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return -1
	}
	now := c.Now()
	if t.deposed == nil {
		t.deposed = &now
		t.report = c.AfterFunc(t.election.grace, t.overdue)
	}
	return now.MonotonicSince(*t.deposed)
}

// overdue says that the leader has not stopped.
func (t *Term) overdue() {
	if t.sinceDeposed() >= 0 {
		t.election.log.Error("election: still at work after the loss of the leadership; others may lead",
			"election", t.election.name, "token", t.Token(), "grace", t.election.grace)
	}
}
