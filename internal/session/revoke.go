package session

import (
	"context"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
)

// revoke ends the leases that the session's row newly lists as revoked (R2, R17).
// Once the holders have had their margin to stop, the client gives the keys back. A
// heartbeat without the entries is the operator's receipt.
func (s *Session) revoke(entries []string) {
	fresh := map[string]struct{}{}
	s.mu.Lock()
	for _, entry := range entries {
		if _, known := s.revoked[entry]; !known {
			fresh[entry] = struct{}{}
			s.revoked[entry] = s.Clock.Now()
		}
	}
	s.mu.Unlock()
	if len(fresh) == 0 {
		return
	}
	s.Revoked(s, fresh)
	s.mu.Lock()
	for entry := range fresh {
		s.revoked[entry] = s.Clock.Now() // the margin counts from the latch
	}
	s.mu.Unlock()
	s.Start(func(ctx context.Context) {
		if clock.Sleep(ctx, s.Clock, s.Margin+time.Millisecond) == nil { // later than the margin, by any rounding
			s.HeartbeatNow()
		}
	})
}

// IsRevoked reports whether an operator has revoked the acquisition that entry
// names.
func (s *Session) IsRevoked(entry func() string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.revoked) == 0 {
		return false // as almost always
	}
	_, ok := s.revoked[entry()]
	return ok
}

// unreceiptedLocked returns the row's revocations whose holders still have time to
// stop. A heartbeat leaves out the others.
func (s *Session) unreceiptedLocked(now clock.Reading) []string {
	var left []string
	for _, entry := range s.record.Revoked {
		if now.MonotonicSince(s.revoked[entry]) <= s.Margin {
			left = append(left, entry)
		}
	}
	return left
}
