// Package session is a client's own session: the row that it heartbeats, and for
// how long it may trust it (R1 to R8).
package session

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/retry"
	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/kv"
)

// Why a session ends by itself.
const (
	// Expired: no heartbeat was acknowledged until the trust deadline.
	Expired = "expired"
	// Killed: another client took the session for dead, or somebody changed or
	// removed its row.
	Killed = "killed"
)

// Config is what a session needs.
type Config struct {
	// Store has the row. Heartbeats is another way to it.
	Store, Heartbeats kv.Store
	// Attempts bounds each attempt of a store call (R3).
	Attempts kv.CallOption
	Clock    clock.Clock
	// TTL is the session's time to live. It is trusted for Margin less, and
	// heartbeated every Interval.
	TTL, Margin, Interval time.Duration
	// Timeout bounds how long Refresh waits.
	Timeout  time.Duration
	Owner    string
	Metadata map[string]string
	Groups   *Groups
	// Cause makes the cause of contexts that end for a reason.
	Cause func(reason string) error
	// Start runs a task in the background.
	Start func(task func(context.Context))
	// Beaten is told of each heartbeat: how much trust is left, how long the store
	// took, and why it failed, nil if it did not. again: so did the one before it.
	Beaten func(s *Session, left, took time.Duration, err error, again bool)
	// Lost is told, once, that the session is lost.
	Lost func(s *Session, reason string)
	// Revoked ends the leases that operators have taken from the session, by their
	// entries in its row (R17). Their holders have their margin to stop.
	Revoked func(s *Session, entries map[string]struct{})
}

// Session is one row that the client heartbeats, and that the client's leases name.
// It is born trusted. Once lost it is lost for ever (R5). Make one with Open.
type Session struct {
	Config
	id string
	// ctx ends, with a cause, when the session is lost. leases is its child, and
	// the parent of the leases' contexts. Close ends it earlier: the heartbeats go
	// on while holders stop their work.
	ctx, leases          context.Context
	cancel, cancelLeases context.CancelCauseFunc
	// beating is closed when the heartbeat goroutine has ended. A word in now makes
	// it beat at once.
	beating, now chan struct{}

	mu     sync.Mutex
	record rows.Session
	// pair is the row at the latest version known to be this session's.
	pair *kv.KVPair
	// renewed is t0 of R3, read before the first attempt of the last heartbeat that
	// is known to be applied.
	renewed clock.Reading
	// acked is the nonce of that heartbeat. unresolved are those sent since whose
	// outcome is unknown.
	acked      string
	unresolved []string
	// failure is why the last heartbeat failed, nil if it did not.
	failure  error
	deadline clock.Timer
	// lost is why the session is lost, "" if it is not.
	lost string
	// joinings is how often the groups had changed when the last acknowledged
	// heartbeat was made.
	joinings uint64
	// news is closed, and replaced, when a heartbeat is acknowledged.
	news chan struct{}
	// revoked are the revocations seen in the row, for ever (R2), with the time at
	// which their leases were latched.
	revoked map[string]clock.Reading
	// deleted: the row is proven to be gone. Whatever names the session holds nothing.
	deleted bool
}

// Open writes a session row under a new id (R1). A write that is not known to be
// applied throws the id away. Then the row is unlanded, and the caller ends it.
func Open(ctx context.Context, c Config) (s *Session, unlanded *Unlanded, err error) {
	host, _ := os.Hostname()
	joined, joinings := c.Groups.names()
	now := c.Clock.Now()
	s = &Session{
		Config: c, id: newID(c.Clock), renewed: now, acked: rows.RandomID(8),
		beating: make(chan struct{}), now: make(chan struct{}, 1),
		news: make(chan struct{}), revoked: map[string]clock.Reading{},
	}
	s.record = rows.Session{
		Owner: c.Owner, TTL: c.TTL.Milliseconds(), Host: host, PID: os.Getpid(),
		Since: now.Wall, RenewedAt: now.Wall, Next: c.nextBeat(), Metadata: c.Metadata, Nonce: s.acked, Joined: joined,
	}
	pair, err := c.Store.AtomicPut(ctx, rows.SessionPrefix+s.id, s.record.Options(nil, c.Attempts)...)
	switch {
	case errors.Is(err, kv.ErrUncertain):
		unlanded = &Unlanded{
			config: c, key: rows.SessionPrefix + s.id, record: s.record, ending: make(chan struct{}, 1),
		}
		unlanded.note(err)
		return nil, unlanded, err
	case err != nil:
		return nil, nil, err
	}
	s.pair, s.joinings = pair, joinings
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	s.leases, s.cancelLeases = context.WithCancelCause(s.ctx)
	s.mu.Lock()
	s.deadline = c.Clock.AfterFunc(s.untilCheckLocked(), s.expire)
	s.mu.Unlock()
	go s.heartbeatLoop()
	return s, nil, nil
}

// ID is the session's id.
func (s *Session) ID() string { return s.id }

// Context ends, with a cause, when the session is lost.
func (s *Session) Context() context.Context { return s.ctx }

// Leases is the parent of the contexts of the session's leases. It ends with
// Context, or earlier by EndLeases.
func (s *Session) Leases() context.Context { return s.leases }

// EndLeases ends the leases' contexts while the heartbeats go on.
func (s *Session) EndLeases(cause error) { s.cancelLeases(cause) }

// Renewed is when the last heartbeat that is known to be applied was sent.
func (s *Session) Renewed() clock.Reading {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.renewed
}

// Unresolved is how many heartbeats have an unknown outcome, for tests.
func (s *Session) Unresolved() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.unresolved)
}

// remainingLocked is the time to the trust deadline (R3), by the clock that counted
// most (R4).
func (s *Session) remainingLocked() time.Duration {
	return s.TTL - s.Margin - s.Clock.Now().Since(s.renewed)
}

// trust computes from the clocks how long the session is still trusted (R5). Once
// it is lost that is 0, and lost says why.
func (s *Session) trust() (remaining time.Duration, lost string) {
	s.mu.Lock()
	if s.lost == "" {
		remaining = s.remainingLocked()
	}
	lost = s.lost
	s.mu.Unlock()
	if lost != "" || remaining > 0 {
		return remaining, lost
	}
	s.Lose(Expired, false)
	s.mu.Lock()
	defer s.mu.Unlock()
	return 0, s.lost
}

// Remaining is the time to the trust deadline, 0 once the session is lost.
func (s *Session) Remaining() time.Duration {
	remaining, _ := s.trust()
	return remaining
}

// Reason is why the session is lost, "" if it may still be believed in.
func (s *Session) Reason() string {
	_, lost := s.trust()
	return lost
}

// expire is what the deadline timer calls. The timer runs on one clock and the
// deadline on three (R4). Those may have stepped, or gone on while the timer stood
// still. So it looks several times in a margin.
func (s *Session) expire() {
	if s.Reason() != "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost == "" {
		s.deadline.Reset(s.untilCheckLocked())
	}
}

// untilCheckLocked is when expire should look next.
func (s *Session) untilCheckLocked() time.Duration {
	return max(min(s.remainingLocked(), s.Margin/2), time.Nanosecond)
}

// Lose latches the session as lost and ends every lease's context (R6). deleted:
// its row is proven to be gone.
func (s *Session) Lose(reason string, deleted bool) {
	s.mu.Lock()
	s.deleted = s.deleted || deleted
	first := s.lost == ""
	if first {
		s.lost = reason
		s.deadline.Stop()
	}
	s.mu.Unlock()
	if first {
		s.cancel(s.Cause(reason))
		s.Lost(s, reason)
	}
}

// IsDeleted reports whether the row is proven not to be there any more.
func (s *Session) IsDeleted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.deleted
}

// End deletes the session's row, which frees everything that names it (R8, R16). It
// tries until the outcome is known or ctx ends. nil: the row is gone, or is another
// session's. Only the former makes IsDeleted true, since only absence is death.
func (s *Session) End(ctx context.Context) error {
	select {
	case <-s.beating: // its last call may still change the row
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return retry.UntilKnown(ctx, s.Clock, func() error {
		s.mu.Lock()
		pair, deleted := s.pair, s.deleted
		s.mu.Unlock()
		if deleted {
			return nil
		}
		err := s.Store.AtomicDelete(ctx, pair.Key, pair, s.Attempts)
		current, conflict := rows.CurrentPair(err)
		switch {
		case err == nil, conflict && current == nil:
			s.mu.Lock()
			s.deleted = true
			s.mu.Unlock()
			return nil
		case current != nil && s.adopt(current), s.version() > pair.Version:
			return retry.ErrAgain // the other one who ends it may have adopted it meanwhile
		case conflict, current != nil && current.Version != pair.Version:
			return nil // somebody else's row now
		}
		return err
	})
}

// version is the latest version known to be this session's.
func (s *Session) version() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pair.Version
}

// newID returns 128 random bits. A simulation's clock makes its own, since plans
// of a pool depend on them.
func newID(c clock.Clock) string {
	if source, ok := c.(interface{ SessionID() string }); ok {
		return source.SessionID()
	}
	return rows.RandomID(16)
}
