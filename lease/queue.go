package lease

import (
	"context"
	"fmt"
	"time"

	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/internal/session"
	"github.com/dynalock/dynalock/kv"
)

// DefaultTurnAfter is WithTurnAfter's default.
const DefaultTurnAfter = time.Second

// enterPause is how long an Acquire does not try again to enter a queue when the
// store has failed.
const enterPause = maxFailurePause

// WithTurnAfter sets for how long an Acquire of this client waits until it takes
// its place in the key's queue. From then on the key is granted in the order of
// that queue. Until then whoever comes first has it. 0 to 24 h, default 1 s.
//
// Taking a place costs a write, and one more when the key is released. Who is
// not the first of the queue reads the key once per longest poll, or twice in its
// TTL if that is more often. A client that does not answer when its turn has come
// is passed over, after two of its longest polls and a sixteenth, or its TTL and a
// sixteenth if that is shorter.
//
// A queue has 16 places at most, one per client. Only Acquire queues up, of keys
// that locks and leases have: not TryAcquire, AcquireAny, elections and pools.
// They all leave a key to whom it is reserved for, TryAcquire and AcquireAny for a
// minute.
func WithTurnAfter(d time.Duration) Option {
	return func(s *settings) error {
		s.turnAfter, s.noTurns = d, false
		return within("WithTurnAfter", d, 0, MaxTTL)
	}
}

// WithoutTurns makes the acquires of this client never take a place in a key's
// queue. They leave a key to whom it is reserved for, and beside a queue that never
// ends they may wait for ever.
func WithoutTurns() Option {
	return func(s *settings) error {
		s.noTurns = true
		return nil
	}
}

// reservation is for whom a key was found reserved, and when it was first so.
type reservation struct {
	entry string
	first time.Duration // by the monotonic clock
}

// noteReservation notes for whom a key is reserved, nil: for nobody, and returns for
// how long it has been so. It counts from the receipt of the first read that
// showed the entry, whatever else has changed in the row since (R20).
func (c *Client) noteReservation(key string, e *rows.Entry) time.Duration {
	c.keys.mu.Lock()
	defer c.keys.mu.Unlock()
	if e == nil {
		delete(c.keys.reserved, key)
		return 0
	}
	now := c.clock.Now().Mono
	r := c.keys.reserved[key]
	if r.entry != e.ID {
		for other := range c.keys.reserved {
			if len(c.keys.reserved) < maxTurns {
				break
			}
			delete(c.keys.reserved, other)
		}
		r = reservation{entry: e.ID, first: now}
		c.keys.reserved[key] = r
	}
	return now - r.first
}

// mayTakeUnowned is mayTake of a row that nobody has. It may be reserved for
// somebody.
func (c *Client) mayTakeUnowned(s *session.Session, r *request, row *rows.Found) (move, error) {
	e := row.Record.Reserved()
	since := c.noteReservation(r.key, e)
	record := *row.Record
	switch {
	case row.Record.IsFirst(s.ID()):
		return move{row: row}, nil
	case since >= e.PassAfter():
		record.Queue = record.Queue[1:]
	case r.doesNotWait() && !record.TryBlocked(c.clock.Now().Wall):
		record.Queue = nil // it cannot wait for them one by one
	default:
		return move{}, &heldRow{Found: row, recheck: e.PassAfter() - since}
	}
	passed := &rows.Found{Pair: row.Pair, Record: &record}
	return move{row: passed, reserve: !record.IsFirst(s.ID())}, nil
}

// doesNotWait reports whether the request takes what it finds, as it waits for no
// single key.
func (r *request) doesNotWait() bool { return !r.waits || r.any }

// reserve reserves the row of m for the first of its queue. On success the error is
// *heldRow. current is what stood in the way.
func (c *Client) reserve(ctx context.Context, r *request, m move) (current *kv.KVPair, err error) {
	record := m.row.Record.Freed(c.clock.Now().Wall)
	record.Taken = m.row.Record.Taken || m.dead // of an orphan of ours too
	pair, err := c.store.AtomicPut(ctx, r.row, record.Options(m.row.Pair, c.attempts)...)
	if err == nil {
		first := record.First()
		left := first.PassAfter() - c.noteReservation(r.key, first)
		return nil, &heldRow{Found: &rows.Found{Pair: pair, Record: &record}, recheck: left}
	}
	current, conflict := rows.CurrentPair(err)
	if conflict || current != nil {
		return current, nil
	}
	return nil, fmt.Errorf("lease: acquiring %q: %w", r.key, err)
}

// isReservedForUs reports whether the row of a key is reserved for this client.
func (c *Client) isReservedForUs(record *rows.Lease) bool {
	e := record.Reserved()
	return e != nil && e.Session == c.Session()
}

// isOpen reports whether one who tries the row once may take it: nobody has it,
// and it is reserved for nobody else.
func (c *Client) isOpen(row *rows.Found) bool {
	record := row.Record
	return record.Session == "" && (c.isReservedForUs(record) || !record.TryBlocked(c.clock.Now().Wall))
}

// untilTurn is for how long w waits until it takes a place in the queue of the row,
// 0 or less: it does so now. never: not at all, or it has one.
func (w *waiter) untilTurn(b *heldRow) (left time.Duration, never bool) {
	c := w.client
	s := c.trusted()
	if c.noTurns || w.noTurn || b == nil || b.err != nil || s == nil || b.Record.Session == s.ID() ||
		!b.Record.Queue.HasRoomFor(s.ID()) {
		return 0, true
	}
	now := c.clock.Now()
	left = c.turnAfter - now.MonotonicSince(w.began)
	if !w.enterFailed.IsZero() {
		left = max(left, enterPause-now.MonotonicSince(w.enterFailed))
	}
	return left, false
}

// enter takes a place in the key's queue if it is time. Whoever was faster than
// this write is seen at the next poll.
func (c *Client) enter(ctx context.Context, w *waiter, b *heldRow) {
	left, never := w.untilTurn(b)
	if never || left > 0 {
		return
	}
	record := b.Queued(b.Record.Queue.With(c.newEntry()))
	w.setEntered()
	pair, err := c.store.AtomicPut(ctx, w.row, record.Options(b.Pair, c.attempts)...)
	_, conflict := rows.CurrentPair(err)
	switch {
	case err == nil:
		b.Found = &rows.Found{Pair: pair, Record: &record}
	case !conflict:
		w.enterFailed = c.clock.Now()
	}
}

// newEntry is an entry of this client, which has a session. Its grace is two of
// its longest polls. See queuedPause.
func (c *Client) newEntry() rows.Entry {
	return rows.NewEntry(c.Session(), c.owner, min(2*c.pollMax, c.ttl))
}

func (w *waiter) setEntered() {
	w.client.keys.mu.Lock()
	defer w.client.keys.mu.Unlock()
	w.keyState.entered = true
}

// lineUpAgain adds an entry of this client to a row that is being freed for
// others, if goroutines of this client wait for the key. It reports whether it did.
func (c *Client) lineUpAgain(key string, free *rows.Lease) bool {
	id := c.Session()
	c.keys.mu.Lock()
	defer c.keys.mu.Unlock()
	g, ok := c.keys.states[key]
	if !ok || len(g.queue) == 0 || g.queue[0].noTurn || c.noTurns ||
		len(free.Queue) == 0 || !free.Queue.HasRoomFor(id) {
		return false
	}
	free.Queue = free.Queue.With(c.newEntry())
	g.entered = true
	return true
}

// noteLinedUp notes the row with the entry that lineUpAgain has added, so that who
// leaves before it has looked takes the entry along.
func (c *Client) noteLinedUp(key string, free *rows.Found) {
	c.keys.mu.Lock()
	defer c.keys.mu.Unlock()
	if g, ok := c.keys.states[key]; ok {
		g.known = free
	}
}

// queuedPause is how long this client waits for its next look at a row in whose
// queue it is, and pause where it is not. It looks twice in its grace, and no more
// often while others come before it.
func (c *Client) queuedPause(record *rows.Lease, pause time.Duration) time.Duration {
	id := c.Session()
	longest := min(c.pollMax, c.ttl/2)
	switch {
	case !record.Queue.Has(id):
		return pause
	case !record.IsFirst(id):
		return longest
	}
	return min(pause, longest)
}

// leaveQueue takes the entry of a client out of which nobody waits any more. It
// costs a write, in the background. Where that fails others pass the entry over.
func (c *Client) leaveQueue(r *request) {
	s := c.trusted()
	c.keys.mu.Lock()
	g := r.keyState
	known := g.known
	leaves := s != nil && g.entered && len(g.queue) == 0 && known != nil && known.Record.Queue.Has(s.ID())
	g.entered = g.entered && len(g.queue) > 0
	c.keys.mu.Unlock()
	if !leaves {
		return
	}
	c.life.Enter() // Close waits for it
	c.life.Start(func(ctx context.Context) {
		defer c.life.Leave()
		c.removeEntry(ctx, r, s.ID(), known)
	})
}

// removeEntry writes the row without the entries of a session. Who was faster is
// looked at again, a dozen times: those who began to wait together often leave
// together, and each entry that stays is waited for.
func (c *Client) removeEntry(ctx context.Context, r *request, id string, known *rows.Found) {
	ctx, cancel := c.clock.WithTimeout(ctx, c.attemptTimeout())
	defer cancel()
	for round := 0; known != nil && known.Record.Queue.Has(id); round++ {
		if c.contentionBackoff(ctx, r.key, round, known) != nil {
			return
		}
		current, _ := rows.CurrentPair(c.writeWithout(ctx, r, id, known))
		if current == nil {
			return
		}
		known, _ = rows.Read(current) // what cannot be read has no queue
	}
}

// writeWithout writes the row as known without the entries of a session.
func (c *Client) writeWithout(ctx context.Context, r *request, id string, known *rows.Found) error {
	record := known.Queued(known.Record.Queue.Without(id))
	if record.Session == "" {
		if record.Taken && !record.Keep && len(record.Queue) == 0 {
			return nil // no row would say that it was taken from the dead: others pass the entry over
		}
		return c.freeVersion(ctx, &row{key: r.key, row: r.row, version: known.Pair.Version, record: record})
	}
	_, err := c.store.AtomicPut(ctx, r.row, record.Options(known.Pair, c.attempts)...)
	return err
}
