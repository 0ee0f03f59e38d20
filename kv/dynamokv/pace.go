package dynamokv

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
)

const (
	// maxRate is more requests a second than a partition of DynamoDB takes of one
	// kind. A pace begins and ends there. minRate is the slowest: a call of three
	// seconds has thirty attempts, where the load of others is what is throttled.
	maxRate, minRate = 4000, 10
	// slower is what a throttled request multiplies the rate by, faster what one
	// that was served adds to it. So Stores that share a partition come to share its
	// units evenly, and at ten requests a second each a tenth is throttled.
	slower, faster = 0.8, 0.2
	// calm is after how long without a throttled request one that was served adds a
	// tenth: the load has fallen.
	calm = 2 * time.Second
	// lag is how much of the time that timers are late is made up for.
	lag = 10 * time.Millisecond
	// urgentBackoff bounds the pauses between the attempts of an urgent operation.
	urgentBackoff = 100 * time.Millisecond
)

// errPaced is why an operation was not sent.
var errPaced = errors.New("dynamokv: the partition throttles, and more requests wait than there is time for")

// pace keeps the requests of a Store to a shard apart while that throttles.
// Attempts beyond what a partition serves make all wait longer, heartbeats too.
// Reads and writes have units, and so paces, of their own.
//
// The latest comes first. In the order in which they came, when more come than
// are served, each would be sent when its time is nearly up, and many end with
// an unknown outcome.
type pace struct {
	on atomic.Bool

	mu   sync.Mutex
	rate float64       // of requests a second
	next time.Duration // when the next may be sent, by the monotonic clock
	cut  time.Duration // when the rate was last cut
	// taken: somebody is next. The others wait for a word on their channels.
	taken         bool
	first, others list.List
}

// wait waits for an operation's turn. All that come first do so before others.
func (p *pace) wait(ctx context.Context, c clock.Clock, first bool) error {
	if !p.on.Load() {
		return nil
	}
	if !p.line(ctx, first) {
		return errPaced
	}
	defer p.leave()
	p.mu.Lock()
	pause := p.next - c.Now().Mono
	p.mu.Unlock()
	if clock.Sleep(ctx, c, pause) != nil {
		return errPaced
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next = max(p.next, c.Now().Mono-lag) + time.Duration(float64(time.Second)/p.rate)
	return nil
}

// line waits until the caller is next, who leaves then. It is false if ctx ends
// before.
func (p *pace) line(ctx context.Context, first bool) bool {
	p.mu.Lock()
	if !p.taken {
		p.taken = true
		p.mu.Unlock()
		return true
	}
	queue, next := &p.others, make(chan struct{}, 1)
	if first {
		queue = &p.first
	}
	place := queue.PushFront(next)
	p.mu.Unlock()
	select {
	case <-next:
		return true
	case <-ctx.Done():
	}
	p.mu.Lock()
	queue.Remove(place) // nothing, if it has its word
	p.mu.Unlock()
	select {
	case <-next:
		p.leave()
	default:
	}
	return false
}

// leave lets the next one in.
func (p *pace) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, queue := range []*list.List{&p.first, &p.others} {
		if place := queue.Front(); place != nil {
			queue.Remove(place)
			place.Value.(chan struct{}) <- struct{}{}
			return
		}
	}
	p.taken = false
}

// note takes how an attempt ended that was sent at sent.
func (p *pace) note(v verdict, sent, now time.Duration) {
	if v != throttled && !p.on.Load() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case v == throttled && !p.on.Load():
		p.rate, p.next, p.cut = maxRate, now, now
		p.on.Store(true)
	case v == throttled && sent >= p.cut: // others were sent at the old rate
		p.rate, p.cut = max(minRate, p.rate*slower), now
	case v == applied, v == conflict:
		more := faster
		if now-p.cut >= calm {
			more = max(more, p.rate/10)
		}
		p.rate += more
		p.on.Store(p.rate < maxRate)
	}
}

// paceOf is the pace of the reads from a shard, or of the writes to it.
func (s *Store) paceOf(shard int, write bool) *pace {
	if write {
		return s.paces[shard]
	}
	return s.paces[s.shards+shard]
}
