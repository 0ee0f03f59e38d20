package lease

import (
	"context"
	"errors"
	"slices"

	"github.com/dynalock/dynalock/kv"
)

// gate is where the acquires of one key by this client meet.
type keyState struct {
	// writing is held during an acquiring write: there is one at a time (R9).
	writing chan struct{}
	// freed gets a word when a lease of this client on the key has ended, so that
	// the first waiter looks at once.
	freed chan struct{}

	// users counts who is here. queue are those who wait, first come first served;
	// the first of them contends for the key. Client.mu guards both.
	users int
	queue []*waiter
}

// waiter is an Acquire in a gate's queue.
type waiter struct {
	*request
	client *Client
	// first is closed when the waiter is the first.
	first chan struct{}
	// lease gets the lease that is handed over to it. Then it has left the queue.
	lease chan *Lease
	// told: the observer knows that it waits; troubled: because of an error.
	emitted, troubled bool
}

// stateOf returns the gate of a key; the caller leaves it with leaveGate.
func (c *Client) stateOf(key string) *keyState {
	c.mu.Lock()
	defer c.mu.Unlock()
	g, ok := c.states[key]
	if !ok {
		if g = c.spare; g == nil {
			g = &keyState{writing: make(chan struct{}, 1), freed: make(chan struct{}, 1)}
		}
		c.spare = nil
		c.states[key] = g
	}
	g.users++
	return g
}

func (c *Client) leaveState(key string, g *keyState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if g.users--; g.users > 0 {
		return
	}
	delete(c.states, key)
	select {
	case <-g.freed:
	default:
	}
	c.spare = g // for the next key: an uncontended acquire makes no gate
}

// alone reports whether the caller is the only one at its gate.
func (c *Client) alone(g *keyState) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return g.users == 1
}

// wake lets the first local waiter for key, if there is one, know that the key may
// be free.
func (c *Client) wake(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if g, ok := c.states[key]; ok {
		g.wake()
	}
}

// wake leaves word for the first waiter, unless word is there already.
func (g *keyState) wake() {
	select {
	case g.freed <- struct{}{}:
	default:
	}
}

// enqueue puts a request at the end of its gate's queue.
func (c *Client) enqueue(r *request) *waiter {
	w := &waiter{request: r, client: c, first: make(chan struct{}), lease: make(chan *Lease, 1)}
	c.mu.Lock()
	defer c.mu.Unlock()
	r.keyState.queue = append(r.keyState.queue, w)
	if len(r.keyState.queue) == 1 {
		close(w.first)
	}
	return w
}

// dequeue takes a waiter out of the queue, if it is still in it, and makes the next
// one the first.
func (c *Client) dequeue(w *waiter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w.keyState.removeLocked(w)
}

// removeLocked reports whether w was in the queue.
func (g *keyState) removeLocked(w *waiter) bool {
	i := slices.Index(g.queue, w)
	if i < 0 {
		return false
	}
	g.queue = slices.Delete(g.queue, i, i+1)
	if i == 0 && len(g.queue) > 0 {
		close(g.queue[0].first)
	}
	return true
}

// nextWaiter returns the waiter to whom a lease may be handed over. It is nil if nobody
// waits, or if other processes get their chance now. The caller uses the gate like
// an acquire, and leaves it.
func (c *Client) nextWaiter(l *Lease) *waiter {
	c.mu.Lock()
	defer c.mu.Unlock()
	g, ok := c.states[l.key]
	if yields := c.endTurn(l); yields || !ok || len(g.queue) == 0 {
		return nil
	}
	g.users++
	return g.queue[0]
}

// handOver gives the key of a latched lease to a local waiter with one write, an
// acquiring write like any other (R15). It reports whether the row of r is dealt
// with. Where nobody waits, or the write failed, r is still to be freed. The
// resolver looks after a write of unknown outcome, so the row is given back under
// either acquisition id.
func (c *Client) handOver(ctx context.Context, l *Lease, r *row) bool {
	w := c.nextWaiter(l)
	if w == nil {
		return false
	}
	defer c.leaveState(l.key, w.keyState)
	select {
	case w.keyState.writing <- struct{}{}:
	default:
		return false
	}
	next, done := c.writeOver(ctx, l, r, w)
	<-w.keyState.writing
	switch {
	case next != nil && !c.send(w, next):
		c.releaseSoon(next)
	case next == nil && done:
		c.wake(l.key) // the row was given back
	}
	return done
}

// writeOver writes the row of r for the waiter. It returns the waiter's lease. That
// is nil if its grant came too late and the row was given back.
func (c *Client) writeOver(ctx context.Context, l *Lease, r *row, w *waiter) (next *Lease, done bool) {
	s := l.session
	if s.Reason() != "" || s.Remaining() < w.minRemaining || c.life.Open().Err() != nil {
		return nil, false
	}
	old := r.record
	if r.leave != nil {
		old.Value = r.leave
	}
	began := c.clock.Now()
	record := w.record(c, s, &old)
	c.track(record.Acq, nil)
	previous := r.pair()
	pair, err := c.store.AtomicPut(ctx, previous.Key, record.Options(previous, c.attempts)...)
	if err != nil {
		c.untrack(record.Acq)
		if errors.Is(err, kv.ErrUncertain) {
			r.unknown = true
			c.resolve(s, l.key, record.Acq, err)
		}
		return nil, false
	}
	c.untrack(r.acq)
	return c.grant(ctx, s, w.request, pair, record, began), true
}

// send hands a lease to a waiter, unless it has given up.
func (c *Client) send(w *waiter, l *Lease) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !w.keyState.removeLocked(w) {
		return false
	}
	w.lease <- l
	return true
}

// releaseSoon releases a lease that its waiter does not want any more, to the next one if
// there is one (H23). It does not wait.
func (c *Client) releaseSoon(l *Lease) {
	c.life.Enter()                                                 // the waiter counts for itself
	c.life.Start(func(ctx context.Context) { _ = l.Release(ctx) }) // what fails goes on
}
