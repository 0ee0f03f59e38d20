package lease

import (
	"context"
	"os"
	"sync"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/retry"
	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/kv"
)

// session is one row that the client heartbeats, and that the client's leases name.
// It is born trusted. Once lost it is lost for ever (R5).
type session struct {
	client *Client
	id     string
	// ctx ends, with a *LostError as its cause, when the session is lost. leases is
	// its child, and the parent of the leases' contexts. Close ends it earlier: the
	// heartbeats go on while holders stop their work.
	ctx, leases          context.Context
	cancel, cancelLeases context.CancelCauseFunc
	// beating is closed when the heartbeat goroutine has ended. A word in nudged
	// makes it beat at once.
	beating, nudged chan struct{}

	mu     sync.Mutex
	record rows.Session
	// pair is the row at the latest version known to be this session's.
	pair *kv.KVPair
	// renewed is t0 of R3, read before the first attempt of the last heartbeat that
	// is known to be applied.
	renewed clock.Reading
	// acked is the beat of that heartbeat. unresolved are those sent since whose
	// outcome is unknown.
	acked      string
	unresolved []string
	// failure is why the last heartbeat failed, nil if it did not.
	failure  error
	deadline clock.Timer
	lost     *LostError
	// joinings is how often the client's groups had changed when the last
	// acknowledged heartbeat was made.
	joinings uint64
	// news is closed, and replaced, when a heartbeat is acknowledged.
	news chan struct{}
	// revoked are the revocations seen in the row, for ever (R2), with the time at
	// which their leases were latched.
	revoked map[string]clock.Reading
	// limited are the leases with a max-hold.
	limited map[*Lease]struct{}
	// gone: the row is proven to be gone. Whatever names the session holds nothing.
	gone bool
}

// openSession writes a session row under a new id (R1). A write that is not known
// to be applied throws the id away.
func (c *Client) openSession(ctx context.Context) (*session, error) {
	host, _ := os.Hostname()
	joined, joinings := c.groups()
	now := c.clock.Now()
	s := &session{
		client: c, id: c.newSessionID(), renewed: now, acked: rows.RandomID(8),
		beating: make(chan struct{}), nudged: make(chan struct{}, 1),
		news: make(chan struct{}), revoked: map[string]clock.Reading{}, limited: map[*Lease]struct{}{},
	}
	s.record = rows.Session{
		Owner: c.owner, TTL: c.ttl.Milliseconds(), Host: host, PID: os.Getpid(),
		Since: now.Wall, RenewedAt: now.Wall, Metadata: c.metadata, Nonce: s.acked, Joined: joined,
	}
	pair, err := c.store.AtomicPut(ctx, rows.SessionPrefix+s.id, s.record.Options(nil, c.attempts)...)
	if err != nil {
		return nil, err
	}
	s.pair, s.joinings = pair, joinings
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	s.leases, s.cancelLeases = context.WithCancelCause(s.ctx)
	s.mu.Lock()
	s.deadline = c.clock.AfterFunc(s.untilCheckLocked(), s.expire)
	s.mu.Unlock()
	go s.beat()
	c.emit(Event{Type: EventSessionOpened, Session: s.id})
	return s, nil
}

// remainingLocked is the time to the trust deadline (R3), by the clock that counted
// most (R4).
func (s *session) remainingLocked() time.Duration {
	return s.client.ttl - s.client.margin - s.client.clock.Now().Since(s.renewed)
}

// trust computes from the clocks how long the session is still trusted (R5). Once
// it is lost that is 0, and lost says why.
func (s *session) trust() (remaining time.Duration, lost *LostError) {
	s.mu.Lock()
	if s.lost == nil {
		remaining = s.remainingLocked()
	}
	lost = s.lost
	s.mu.Unlock()
	if lost != nil || remaining > 0 {
		return remaining, lost
	}
	s.lose(ReasonExpired, false)
	s.mu.Lock()
	defer s.mu.Unlock()
	return 0, s.lost
}

// remaining is the time to the trust deadline, 0 once the session is lost.
func (s *session) remaining() time.Duration {
	remaining, _ := s.trust()
	return remaining
}

// err is nil if the session may still be believed in.
func (s *session) err() *LostError {
	_, lost := s.trust()
	return lost
}

// expire is what the deadline timer calls. The timer runs on one clock and the
// deadline on three (R4). Those may have stepped, or gone on while the timer stood
// still. So it looks several times in a margin.
func (s *session) expire() {
	if s.err() != nil {
		return
	}
	s.limit()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost == nil {
		s.deadline.Reset(s.untilCheckLocked())
	}
}

// untilCheckLocked is when expire should look next.
func (s *session) untilCheckLocked() time.Duration {
	next := min(s.remainingLocked(), s.client.margin/2)
	for l := range s.limited {
		next = min(next, l.holdLeft())
	}
	return max(next, time.Nanosecond)
}

// lose latches the session as lost and ends every lease's context (R6). gone: its
// row is proven to be gone.
func (s *session) lose(reason Reason, gone bool) {
	s.mu.Lock()
	s.gone = s.gone || gone
	first := s.lost == nil
	if first {
		s.lost = &LostError{Reason: reason}
		s.deadline.Stop()
	}
	lost := s.lost
	s.mu.Unlock()
	if first {
		s.cancel(lost)
		s.client.sessionLost(s, lost)
	}
}

// isGone reports whether the row is proven not to be there any more.
func (s *session) isGone() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gone
}

// end deletes the session's row, which frees everything that names it (R8, R16). It
// tries until the outcome is known or ctx ends. nil: the row is gone, or is another
// session's. Only the former makes isGone true, since only absence is death.
func (s *session) end(ctx context.Context) error {
	select {
	case <-s.beating: // its last call may still change the row
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return s.client.untilKnown(ctx, func() error {
		s.mu.Lock()
		pair, gone := s.pair, s.gone
		s.mu.Unlock()
		if gone {
			return nil
		}
		err := s.client.store.AtomicDelete(ctx, pair.Key, pair, s.client.attempts)
		current, conflict := rows.CurrentPair(err)
		switch {
		case err == nil, conflict && current == nil:
			s.mu.Lock()
			s.gone = true
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
func (s *session) version() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pair.Version
}

// newSessionID returns 128 random bits. A simulation's clock makes its own, since
// plans of a pool depend on them.
func (c *Client) newSessionID() string {
	if source, ok := c.clock.(interface{ SessionID() string }); ok {
		return source.SessionID()
	}
	return rows.RandomID(16)
}
