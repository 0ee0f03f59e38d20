package lease

import (
	"context"
	"sync"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
)

// Notify returns a channel that is closed when the lease has no more than before
// left (see Remaining), and when it has ended. So a holder can prepare for the loss
// while it still holds: stop taking new work, save what it has.
//
// A healthy lease has at least its TTL less the margin and 1.1 heartbeats left, 8 s
// at the defaults. With a before above that the channel may be closed although all
// is well. It says so once: what comes later, such as a heartbeat that succeeds
// after all, it does not take back. No I/O.
func (l *Lease) Notify(before time.Duration) <-chan struct{} {
	n := &notice{lease: l, before: before, near: make(chan struct{})}
	context.AfterFunc(l.Context(), n.close)
	n.check()
	return n.near
}

// notice waits for the end of a lease to come near.
type notice struct {
	lease  *Lease
	before time.Duration
	near   chan struct{}

	mu     sync.Mutex
	closed bool
	timer  clock.Timer
}

// check closes the channel, or looks again when it may be time. Trust is counted on
// three clocks (R4) and a timer runs on one, so it looks once a heartbeat at least.
func (n *notice) check() {
	left := n.lease.Remaining() - n.before
	if left <= 0 {
		n.close()
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	left = min(left, n.lease.client.heartbeat)
	switch {
	case n.closed:
	case n.timer == nil:
		n.timer = n.lease.client.clock.AfterFunc(left, n.check)
	default:
		n.timer.Reset(left)
	}
}

func (n *notice) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return
	}
	n.closed = true
	if n.timer != nil {
		n.timer.Stop()
	}
	close(n.near)
}
