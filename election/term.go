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

// Term is one leadership, from election to Resign or loss. Once it is over it never
// comes back. It is safe for concurrent use.
//
// A Term is no proof that nobody else acts as leader. Between a check of Held and the
// act that follows, the process may be paused for longer than the term lasts. Pass
// Token to what the leader changes, and let it refuse smaller ones.
//
// A nil Term, as comes with an error, does not lead.
type Term struct {
	election *Election
	lease    *lease.Lease
	// leave ends the candidacy; unwatch stops waiting for the loss.
	leave   func()
	unwatch func() bool

	mu sync.Mutex
	// over: Resign was called. deposed is when a loss was noticed before that, nil if
	// it was not. report then logs that the grace is over.
	over    bool
	deposed *clock.Reading
	report  clock.Timer
}

// leading is the lease of the term, nil if there is no term.
func (t *Term) leading() *lease.Lease {
	if t == nil {
		return nil
	}
	return t.lease
}

// Token returns the term's fencing token. Of any two terms of an election, in
// whatever processes, the later one has the greater token.
func (t *Term) Token() uint64 { return t.leading().Token() }

// Context returns a context that ends with the term. context.Cause is then a
// *lease.LostError that says why. It ends by the trust deadline at the latest,
// whether or not the store answers. The end of Run's ctx alone does not end it
// before Resign.
func (t *Term) Context() context.Context { return t.leading().Context() }

// Held reports whether this process leads, computed from the clocks now: no I/O.
func (t *Term) Held() bool { return t.leading().Held() }

// Err returns nil while this process leads. Afterwards it returns the
// *lease.LostError that says why it does not, for ever. It matches lease.ErrNotHeld
// after Resign, else lease.ErrLost. No I/O.
func (t *Term) Err() error { return t.leading().Err() }

// Remaining returns how long this process leads if no further heartbeat succeeds. It
// is 0 if the process does not lead. No I/O.
func (t *Term) Remaining() time.Duration { return t.leading().Remaining() }

// TakenOver reports whether the leader before had died, so that its work may be half done.
func (t *Term) TakenOver() bool { return t.leading().TakenOver() }

// Value returns what this leader is known to have proclaimed last, else what it
// campaigned with. The slice is the caller's to keep. No I/O.
func (t *Term) Value() []byte { return t.leading().Value() }

// Condition returns the condition that no other term has followed this one. Put it
// into the transaction that writes what the leader guards. See
// lease.Lease.Condition.
func (t *Term) Condition() kv.Condition { return t.leading().Condition() }

// Proclaim changes the value that others see, at most lease.MaxValueSize bytes. It
// costs one write, conditional on this term. The term goes on unless the error says
// otherwise.
//
//   - nil: observers see the value.
//   - An error that matches lease.ErrLost or lease.ErrNotHeld: the term is over, and
//     they never see it, unless the error matches kv.ErrUncertain too.
//   - An error that matches kv.ErrUncertain: they may see it, until the next Proclaim
//     or Resign.
//   - Any other error: they do not see it.
func (t *Term) Proclaim(ctx context.Context, value []byte) error {
	return t.leading().Update(ctx, value)
}

// Resign ends the term and the candidacy. The next candidate leads within one poll.
// The term ends before anything is sent, so stop the work first. Call it after a loss
// too: it says that the work has stopped. It works after ctx has ended too: it bounds
// itself to a third of the TTL, 2 to 10 s. It costs two writes, one of them a
// heartbeat in the background. Resigning again returns what the first call returned.
//
// In each case this process does not lead any more:
//
//   - nil: nobody leads on account of this term.
//   - An error that matches lease.ErrLost: the term had been lost before.
//   - Any other error: the outcome is unknown. The resignation goes on in the
//     background until it is known.
func (t *Term) Resign(ctx context.Context) error {
	if t == nil {
		return nil
	}
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

// sinceDeposed is how long the leader has gone on without its leadership, negative if
// it has not. Whoever notices the loss first starts the timer of the grace.
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
		t.report = c.AfterFunc(t.election.grace, t.timedOut)
	}
	return now.MonotonicSince(*t.deposed)
}

// timedOut says that the leader has not stopped.
func (t *Term) timedOut() {
	if t.sinceDeposed() >= 0 {
		t.election.log.Error("election: still at work after the loss of the leadership; others may lead",
			"election", t.election.name, "token", t.Token(), "grace", t.election.grace)
	}
}
