package lease

import (
	"context"
	"fmt"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
)

// revocation is the name of an acquisition in its session's row (R17).
func revocation(key string, token uint64) string { return fmt.Sprintf("%s@%d", key, token) }

// revoke ends the leases that the session's row newly lists as revoked (R2, R17).
// Once the holders have had their margin to stop, the client gives the keys back. A
// heartbeat without the entries is the operator's receipt.
func (s *session) revoke(entries []string) {
	c := s.client
	fresh := map[string]struct{}{}
	s.mu.Lock()
	for _, entry := range entries {
		if _, known := s.revoked[entry]; !known {
			fresh[entry] = struct{}{}
			s.revoked[entry] = c.clock.Now()
		}
	}
	s.mu.Unlock()
	if len(fresh) == 0 {
		return
	}
	var leases []*Lease
	for _, l := range c.leasesOf(s) {
		if _, ok := fresh[revocation(l.key, l.token)]; ok {
			l.lose(ReasonRevoked)
			leases = append(leases, l)
		}
	}
	s.mu.Lock()
	for entry := range fresh {
		s.revoked[entry] = c.clock.Now() // the margin counts from the latch
	}
	s.mu.Unlock()
	for _, l := range leases {
		c.life.Start(func(ctx context.Context) { l.surrender(ctx) })
	}
	c.life.Start(func(ctx context.Context) {
		if clock.Sleep(ctx, c.clock, c.margin+time.Millisecond) == nil { // later than the margin, by any rounding
			s.nudge()
		}
	})
}

// isRevoked reports whether an operator has revoked the acquisition.
func (s *session) isRevoked(key string, token uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.revoked) == 0 {
		return false // as almost always
	}
	_, ok := s.revoked[revocation(key, token)]
	return ok
}

// unreceiptedLocked returns the row's revocations whose holders still have time to
// stop. A heartbeat leaves out the others.
func (s *session) unreceiptedLocked(now clock.Reading) []string {
	var left []string
	for _, entry := range s.record.Revoked {
		if now.MonotonicSince(s.revoked[entry]) <= s.client.margin {
			left = append(left, entry)
		}
	}
	return left
}

// limit ends the leases that were held for as long as their max-hold allows.
func (s *session) limit() {
	s.mu.Lock()
	var over []*Lease
	for l := range s.limited {
		if l.holdLeft() <= 0 {
			over = append(over, l)
			delete(s.limited, l)
		}
	}
	s.mu.Unlock()
	for _, l := range over {
		l.lose(ReasonMaxHold)
		s.client.life.Start(func(ctx context.Context) { l.surrender(ctx) })
	}
}

// unlimit forgets the max-hold of a lease that has ended.
func (s *session) unlimit(l *Lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.limited, l)
}
