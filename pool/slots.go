package pool

import (
	"context"
	"sync"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
)

const (
	// maxRequests is how many partitions a member asks the store about at once,
	// fewRequests with how many it begins.
	maxRequests = 32
	fewRequests = 2
	// lull is how long nothing was asked before it begins anew.
	lull = time.Second
)

// slots bound how many requests about single partitions a member has on the
// wire: as many as the store answers within a third of the time that an attempt
// has. A bound that is fixed will not do, since all members send at once when
// one has died or all are stopped. Three that gave back 50 partitions each, 32
// at a time, kept a store that takes 100 requests a second so busy with attempts
// that were given up that it answered nothing in time for four seconds, not even
// their heartbeats; it could have taken all in 1.5 s, and now does.
type slots struct {
	clock clock.Clock
	soon  time.Duration
	// free has a word for each request that may be sent.
	free chan struct{}

	mu sync.Mutex
	// limit is how many may be on the wire, busy how many are. prompt is how many
	// in a row were answered soon since limit was changed, last when the latest
	// was.
	limit, inFlight, prompt int
	last                    clock.Reading
}

func newSlots(c clock.Clock, attempt time.Duration) *slots {
	s := &slots{clock: c, soon: attempt / 3, free: make(chan struct{}, maxRequests)}
	s.beginLocked()
	return s
}

// take waits for a slot. Whoever gets one calls done when it has its answer.
func (s *slots) take(ctx context.Context) (done func(), err error) {
	select {
	case <-s.free:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	began := s.clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inFlight == 0 && began.MonotonicSince(s.last) > lull {
		s.beginLocked()
	}
	s.inFlight++
	return func() { s.put(began) }, nil
}

// put gives a slot back. One more is made when as many requests as there are
// slots were answered soon; one that was not takes its own slot with it.
func (s *slots) put(began clock.Reading) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inFlight--
	s.last = s.clock.Now()
	if s.last.MonotonicSince(began) > s.soon {
		s.prompt = 0
		if s.limit > 1 {
			s.limit--
			return
		}
	} else if s.prompt++; s.prompt >= s.limit && s.limit < maxRequests {
		s.limit, s.prompt = s.limit+1, 0
		s.free <- struct{}{}
	}
	s.free <- struct{}{}
}

// beginLocked makes the limit what a burst begins with; slots that are being
// taken just now stay.
func (s *slots) beginLocked() {
	s.prompt = 0
	for ; s.limit < fewRequests; s.limit++ {
		s.free <- struct{}{}
	}
	for s.limit > fewRequests {
		select {
		case <-s.free:
			s.limit--
		default:
			return
		}
	}
}
