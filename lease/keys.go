package lease

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/internal/session"
	"github.com/dynalock/dynalock/kv"
)

// keyTable is what a client knows of keys.
type keyTable struct {
	mu sync.Mutex
	// states are those of the keys that somebody acquires. spare is one for the
	// next key.
	states map[string]*keyState
	spare  *keyState
	turns  map[string]turn
	// tracked holds the acquisition ids of live leases, writes under way and
	// pending releases, with the lease where there is one. A row that names our
	// session with another id is an orphan of ours (R9.2).
	tracked map[string]*Lease
	// held is, by key, the latest lease that was granted and is tracked.
	held map[string]*Lease
	// unresolved looks after writes of unknown outcome, by key (R14).
	unresolved map[string]*resolver
	// checking is held for a moment before each read of WithRowCheck.
	checking chan struct{}
	// reserved is, by key, for whom others' rows were found reserved (R20).
	reserved map[string]reservation
}

// init makes an empty table.
func (t *keyTable) init() {
	t.states, t.turns = map[string]*keyState{}, map[string]turn{}
	t.tracked, t.held = map[string]*Lease{}, map[string]*Lease{}
	t.unresolved, t.checking = map[string]*resolver{}, make(chan struct{}, 1)
	t.reserved = map[string]reservation{}
}

// keyState is where the acquires of one key by this client meet.
type keyState struct {
	// writing is held during an acquiring write: there is one at a time (R9).
	writing chan struct{}
	// freed gets a word when a lease of this client on the key has ended, so that
	// the first waiter looks at once.
	freed chan struct{}

	// users counts who is here. queue are those who wait, first come first served;
	// the first of them contends for the key. keyTable.mu guards both.
	users int
	queue []*waiter
	// known is who had the key when it was last looked at, and trouble why a later
	// look failed. keyTable.mu guards both.
	known   *rows.Found
	trouble error
	// entered: an entry of this client may be in the row's queue (R20).
	entered bool
}

// waiter is an Acquire in a key's queue.
type waiter struct {
	*request
	client *Client
	// first is closed when the waiter is the first.
	first chan struct{}
	// lease gets the lease that is handed over to it. Then it has left the queue.
	lease chan *Lease
	// emitted: the observer knows that it waits; troubled: because of an error.
	emitted, troubled bool
	// enterFailed is when the store last failed while it entered the queue (R20).
	enterFailed clock.Reading
}

// stateOf returns the state of a key. The caller leaves it with leaveState.
func (c *Client) stateOf(key string) *keyState {
	c.keys.mu.Lock()
	defer c.keys.mu.Unlock()
	g, ok := c.keys.states[key]
	if !ok {
		if g = c.keys.spare; g == nil {
			g = &keyState{writing: make(chan struct{}, 1), freed: make(chan struct{}, 1)}
		}
		c.keys.spare = nil
		c.keys.states[key] = g
	}
	g.users++
	return g
}

func (c *Client) leaveState(key string, g *keyState) {
	c.keys.mu.Lock()
	defer c.keys.mu.Unlock()
	if g.users--; g.users > 0 {
		return
	}
	delete(c.keys.states, key)
	select {
	case <-g.freed:
	default:
	}
	g.known, g.trouble, g.entered = nil, nil, false
	c.keys.spare = g // for the next key: an uncontended acquire makes none
}

// alone reports whether the caller is the only one who acquires its key.
func (c *Client) alone(g *keyState) bool {
	c.keys.mu.Lock()
	defer c.keys.mu.Unlock()
	return g.users == 1
}

// wake lets the first local waiter for key, if there is one, know that the key may
// be free.
func (c *Client) wake(key string) {
	c.sets.wake(key)
	c.keys.mu.Lock()
	defer c.keys.mu.Unlock()
	if g, ok := c.keys.states[key]; ok {
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

// enqueue puts a request at the end of its key's queue.
func (c *Client) enqueue(r *request) *waiter {
	w := &waiter{request: r, client: c, first: make(chan struct{}), lease: make(chan *Lease, 1)}
	c.keys.mu.Lock()
	defer c.keys.mu.Unlock()
	r.keyState.queue = append(r.keyState.queue, w)
	if len(r.keyState.queue) == 1 {
		close(w.first)
	}
	return w
}

// dequeue takes a waiter out of the queue, if it is still in it, and makes the next
// one the first.
func (c *Client) dequeue(w *waiter) {
	c.keys.mu.Lock()
	defer c.keys.mu.Unlock()
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

// nextWaiter returns the waiter to whom a lease may be handed over. It is nil if
// nobody waits, or if other processes get their chance now, or their turn (R20).
// The caller uses the state like an acquire, and leaves it.
func (c *Client) nextWaiter(l *Lease, r *row) *waiter {
	c.keys.mu.Lock()
	defer c.keys.mu.Unlock()
	g, ok := c.keys.states[l.key]
	if yields := c.endTurn(l); yields || !ok || len(g.queue) == 0 || len(r.record.Queue) > 0 {
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
	w := c.nextWaiter(l, r)
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
	record, err := w.record(c, s, &old)
	if err != nil {
		return nil, false // the waiter finds out for itself
	}
	c.track(record.Acq, nil)
	previous := r.pair()
	pair, err := c.store.AtomicPut(ctx, previous.Key, record.Options(previous, c.attempts)...)
	if err != nil {
		c.untrack(record.Acq)
		if errors.Is(err, kv.ErrUncertain) {
			r.unknown = true
			c.resolve(s, l.key, record, err)
		} else if current, _ := rows.CurrentPair(err); current != nil {
			r.adopt(current) // somebody has entered the queue
		}
		return nil, false
	}
	c.untrack(r.acq)
	return c.grant(ctx, s, w.request, pair, record, began), true
}

// send hands a lease to a waiter, unless it has given up.
func (c *Client) send(w *waiter, l *Lease) bool {
	c.keys.mu.Lock()
	defer c.keys.mu.Unlock()
	if !w.keyState.removeLocked(w) {
		return false
	}
	w.lease <- l
	return true
}

// releaseSoon releases a lease that its waiter does not want any more, to the next
// one if there is one (H23). It does not wait.
func (c *Client) releaseSoon(l *Lease) {
	c.life.Enter() // the waiter counts for itself
	c.life.Start(l.releaseUnused)
}

// track and untrack keep keyTable.tracked. l is nil until the write that makes it
// is known to be applied.
func (c *Client) track(acq string, l *Lease) {
	c.keys.mu.Lock()
	defer c.keys.mu.Unlock()
	c.keys.tracked[acq] = l
}

func (c *Client) untrack(acq string) {
	c.keys.mu.Lock()
	defer c.keys.mu.Unlock()
	if l := c.keys.tracked[acq]; l != nil && c.keys.held[l.key] == l {
		delete(c.keys.held, l.key)
	}
	delete(c.keys.tracked, acq)
}

// localHolder returns the lease of this client that has the key or is just giving
// it back, nil if there is none.
func (c *Client) localHolder(key string) *Lease {
	c.keys.mu.Lock()
	l := c.keys.held[key]
	c.keys.mu.Unlock()
	if l == nil {
		return nil
	}
	if lost := l.lost(); lost != nil &&
		lost.Reason != ReasonReleased && lost.Reason != ReasonRevoked && lost.Reason != ReasonMaxHold {
		return nil
	}
	if l.session.Reason() != "" {
		return nil
	}
	return l
}

// leasesOf returns the leases that depend on s and were not released.
func (c *Client) leasesOf(s *session.Session) []*Lease {
	return slices.DeleteFunc(c.leases(), func(l *Lease) bool { return l.session != s })
}

// leases returns those that were not released.
func (c *Client) leases() []*Lease {
	c.keys.mu.Lock()
	defer c.keys.mu.Unlock()
	var leases []*Lease
	for _, l := range c.keys.tracked {
		if l != nil {
			leases = append(leases, l)
		}
	}
	return leases
}

func (c *Client) owns(acq string) bool {
	c.keys.mu.Lock()
	defer c.keys.mu.Unlock()
	_, ok := c.keys.tracked[acq]
	return ok
}
