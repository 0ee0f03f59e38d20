package lease

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/retry"
	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/internal/session"
	"github.com/dynalock/dynalock/kv"
)

// TryAcquire acquires key if nobody holds it or its holder is proven dead. If
// somebody holds it, it returns a *HeldError that names the holder, who may be
// another goroutine of this client. So it does for a minute if it is another's
// turn (see WithTurnAfter). On any other error the caller holds nothing.
// The client resolves a write of unknown outcome in the background (R14).
//
// Proof of death takes the holder's TTL from the first look. The client remembers
// what it saw, so calling now and then is enough.
//
// Costs:
//
//   - a free key: one write, and one more the first time, for the session
//   - a held key: one write, and one strong read of the holder's session
//   - a key that this client holds: nothing
//
// It takes at most 3 s, whatever the store does, unless ctx has a deadline. While
// the store does not answer, calls do not wait in turn: those that need a session
// share one attempt to open it, which lasts 10 s at most, less with a short TTL,
// and goes on when their contexts end.
func (c *Client) TryAcquire(ctx context.Context, key string, options ...AcquireOption) (*Lease, error) {
	return c.traced(ctx, Call{"TryAcquire", key}, func(ctx context.Context) (*Lease, error) {
		return c.acquireKey(ctx, key, options, false)
	})
}

// Acquire blocks until this client holds key, or ctx is done, or the client is
// closed. On success the lease is held until Release, or until its context ends,
// whichever is first. On failure the caller holds nothing. The client resolves a
// write of unknown outcome in the background (R14). A wait that ctx ended is a
// *WaitError, which says who has the key and what the store did.
//
// While the store fails, Acquire waits, in pauses that grow to 5 s: until ctx
// ends, or for as long as WithRefusedLimit allows where the store refuses. A store
// that has never answered this client is not waited for: its failure is returned.
//
// Goroutines of one client get the key in the order in which they came. They
// share one poller: waiting costs one read of the key per poll, and one read of
// the holder's session per third of its TTL. After a second the client takes a
// place in the key's queue, for one write: see WithTurnAfter. A free key costs one
// write.
func (c *Client) Acquire(ctx context.Context, key string, options ...AcquireOption) (*Lease, error) {
	return c.traced(ctx, Call{"Acquire", key}, func(ctx context.Context) (*Lease, error) {
		return c.acquireKey(ctx, key, options, true)
	})
}

// acquireKey runs an acquire of key, which Close interrupts and waits for. The
// lease that comes of it counts on as a user of the client.
func (c *Client) acquireKey(ctx context.Context, key string, options []AcquireOption, wait bool) (*Lease, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	r := &request{
		key: key, row: rows.LeasePrefix + key, call: c.events.calls.Add(1), began: c.clock.Now(), waits: wait,
	}
	if err := c.apply(&r.acquireSettings, options); err != nil {
		return nil, err
	}
	if r.listing != nil {
		return nil, fmt.Errorf("lease: acquiring %q: WithListing is for AcquireAny: %w", key, ErrInvalid)
	}
	if r.from != nil && r.from.Pair.Key != r.row {
		return nil, fmt.Errorf("lease: acquiring %q: From of row %q: want what was read of the same key: %w",
			key, r.from.Pair.Key, ErrInvalid)
	}
	caller := ctx
	ctx, use, err := c.life.Begin(ctx)
	if err != nil {
		return nil, err
	}
	defer use.End()
	r.keyState = c.stateOf(key)
	defer c.leaveState(key, r.keyState)
	var l *Lease
	if wait {
		l, err = c.acquire(ctx, r)
	} else {
		l, err = c.inTime(ctx, key, func(ctx context.Context) (*Lease, error) { return c.attempt(ctx, r) })
	}
	if err != nil {
		c.emitFailure(r.key, r.call, r.began, err, ctx.Err() != nil)
		if wait {
			err = endOfWait(ctx, err)
		}
		err = c.life.Explain(err)
		if wait && caller.Err() != nil && !errors.Is(err, ErrClosed) {
			err = c.waitEnded(r, err)
		}
		return nil, err
	}
	use.Stays = true
	return l, nil
}

// request is one acquire of one key.
type request struct {
	acquireSettings
	key      string
	row      string // its key in the store
	call     uint64 // for events
	keyState *keyState
	began    clock.Reading
	// waits: the caller waits until it has the key. blocked: another client was
	// found to have it.
	waits, blocked bool
	// any: the key is one of several. One that is taken is not asked about (R21).
	any  bool
	pace pace
	// taken: the key is, or was about to be, taken over from a dead session. The
	// lease says so, whatever it takes to get it.
	taken bool
	// acq is the acquisition id of the latest write.
	acq string
}

func checkKey(key string) error {
	if key == "" || len(key) > MaxKeySize || !utf8.ValidString(key) {
		return fmt.Errorf("lease: key %.40q of %d bytes: want 1 to %d bytes of UTF-8: %w",
			key, len(key), MaxKeySize, ErrInvalid)
	}
	return nil
}

// errHeldHere says that a lease of this client has the key.
var errHeldHere = errors.New("lease: held by this client")

// heldRow says that a key is held, and what the waiter has to know.
type heldRow struct {
	*rows.Found
	// recheck is when the holder's session is worth asking about again.
	recheck time.Duration
	// err is why the session could not be asked about, nil if it is alive.
	err error
}

func (b *heldRow) Error() string { return "lease: held, or reserved for another" }

func (b *heldRow) held(key string) *HeldError {
	return &HeldError{Holder: showHolder(key, b.Found)}
}

// tryTimeout bounds a call that does not wait and whose context has no deadline.
const tryTimeout = 3 * time.Second

// inTime calls attempt, with tryTimeout if ctx has no deadline. key is for the
// error.
func (c *Client) inTime(
	ctx context.Context, key string, attempt func(context.Context) (*Lease, error),
) (*Lease, error) {
	if _, ok := ctx.Deadline(); ok {
		return attempt(ctx)
	}
	limited, cancel := c.clock.WithTimeout(ctx, tryTimeout)
	defer cancel()
	l, err := attempt(limited)
	if err != nil && limited.Err() != nil && ctx.Err() == nil && !retry.IsClassified(err) {
		return nil, fmt.Errorf("lease: trying %q: no answer within %v: %w", key, tryTimeout, kv.ErrUnavailable)
	}
	return l, err
}

// attempt tries to get key once, and says who holds it otherwise.
func (c *Client) attempt(ctx context.Context, r *request) (*Lease, error) {
	if l := c.localHolder(r.key); l != nil {
		return nil, &HeldError{Holder: l.holder()}
	}
	l, err := c.tryRow(ctx, r, nil)
	var b *heldRow
	switch {
	case errors.Is(err, errHeldHere):
		if l := c.localHolder(r.key); l != nil {
			return nil, &HeldError{Holder: l.holder()}
		}
		return nil, &HeldError{Holder: Holder{Key: r.key, Owner: c.owner}} // until just now
	case !errors.As(err, &b):
		return l, err
	case b.err != nil:
		return nil, fmt.Errorf("lease: asking after the holder of %q: %w", r.key, b.err)
	}
	return nil, b.held(r.key)
}

// tryRow tries to get the key once (R9.1, R9.2, R9.4). It returns *heldRow if the
// key is held. known is the row if it has just been read, else nil.
func (c *Client) tryRow(ctx context.Context, r *request, known *rows.Found) (*Lease, error) {
	if err := c.beginWriting(ctx, r); err != nil {
		return nil, err
	}
	defer func() { <-r.keyState.writing }()
	if c.localHolder(r.key) != nil {
		return nil, errHeldHere // who had the slot before has got it
	}
	if known == nil || !c.isReservedForUs(known.Record) {
		if err := c.yield(ctx, r); err != nil {
			return nil, err
		}
	}
	for round := 0; ; round++ {
		if err := c.contentionBackoff(ctx, r.key, round, known); err != nil {
			return nil, err
		}
		s, err := c.healthy(ctx, r.minRemaining)
		if err != nil {
			return nil, err
		}
		if known, err = r.begin(known); err != nil {
			return nil, err
		}
		if r.any && round > 0 && known != nil {
			return nil, &heldRow{Found: known, recheck: c.pollMin}
		}
		l, current, err := c.tryOver(ctx, s, r, known)
		if l != nil || err != nil {
			return l, err
		}
		// nil: freed meanwhile, or the session was lost: once more from the start.
		if known, err = r.inTheWay(current); err != nil {
			return nil, err
		}
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case c.life.Open().Err() != nil:
			return nil, ErrClosed
		}
	}
}

// tryOver writes over a row, or creates one, if session s may, or reserves the row
// for whose turn it is. It returns what write does.
func (c *Client) tryOver(
	ctx context.Context, s *session.Session, r *request, row *rows.Found,
) (*Lease, *kv.KVPair, error) {
	if row == nil {
		return c.write(ctx, s, r, nil)
	}
	m, err := c.mayTake(ctx, s, r, row)
	if err != nil {
		r.blocked = true
		return nil, nil, err
	}
	if m.reserve {
		r.blocked = true
		current, err := c.reserve(ctx, r, m)
		return nil, current, err
	}
	r.taken = r.taken || m.dead
	return c.write(ctx, s, r, m.row)
}

// beginWriting takes the key's slot for acquiring writes. Who waits for it
// must not repeat in turn what the store does not answer: it shares the opening
// of a session, and does not wait for longer than that takes.
func (c *Client) beginWriting(ctx context.Context, r *request) error {
	if _, err := c.current(ctx); err != nil {
		return err
	}
	select {
	case r.keyState.writing <- struct{}{}:
		return nil
	default:
	}
	timeout := c.sessionTimeout()
	t := c.clock.NewTimer(timeout)
	defer t.Stop()
	select {
	case r.keyState.writing <- struct{}{}:
		return nil
	case <-t.C():
		return fmt.Errorf("lease: acquiring %q: another attempt of this client has had no answer for %v: %w",
			r.key, timeout, kv.ErrUncertain)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// healthy returns the client's session when it has at least so much trust left. If
// it has less, it is heartbeated first.
func (c *Client) healthy(ctx context.Context, remaining time.Duration) (*session.Session, error) {
	for {
		s, err := c.current(ctx)
		if err != nil || s.Remaining() >= remaining {
			return s, err
		}
		err = s.Refresh(ctx, func() bool { return s.Remaining() >= remaining })
		if err != nil && !errors.Is(err, ErrLost) {
			return nil, err
		}
	}
}

// contentionBackoff slows an attempt down in which others were faster again and
// again. It ends the attempt after a dozen rounds.
func (c *Client) contentionBackoff(ctx context.Context, key string, round int, known *rows.Found) error {
	switch {
	case round < 3:
		return nil
	case round > 12:
		holder := Holder{Key: key, Owner: "others in quick succession"}
		if known != nil {
			holder = showHolder(key, known)
		}
		return &HeldError{Holder: holder}
	}
	return clock.Sleep(ctx, c.clock, clock.Spread(c.clock, c.pollMin/2, 1))
}

// permanent reports whether err is one that waiting does not mend.
func permanent(err error) bool {
	return retry.IsPermanent(err, ErrClosed, ErrChanged, ErrInvalid)
}

// move is what an acquire may do to a row.
type move struct {
	// row is the row, without the entries that are passed over.
	row *rows.Found
	// reserve: it is another's turn, so the row is only reserved for that one.
	reserve bool
	// dead: the session in the row is.
	dead bool
}

// mayTake decides what session s may do to the row (R9.2, R20). The error is
// *heldRow if that is nothing.
func (c *Client) mayTake(ctx context.Context, s *session.Session, r *request, row *rows.Found) (move, error) {
	others := !row.Record.IsFirst(s.ID())
	switch row.Record.Session {
	case "":
		return c.mayTakeUnowned(s, r, row)
	case s.ID():
		if c.owns(row.Record.Acq) {
			return move{}, &heldRow{Found: row, recheck: c.ttl}
		}
		return move{row: row, reserve: others && row.Record.Acq != r.acq}, nil // an orphan of our own
	}
	dead, next, err := c.isDead(ctx, row.Record)
	switch {
	case permanent(err):
		return move{}, err
	case err != nil:
		return move{}, &heldRow{Found: row, recheck: c.pollMin, err: err}
	case !dead:
		return move{}, &heldRow{Found: row, recheck: next}
	}
	return move{row: row, reserve: others, dead: true}, nil
}

// write sends the acquiring write on row; nil makes it a create. It returns a
// lease, or the row that stood in the way, or an error. Without any of them no row
// is live any more. The resolver gets a write of unknown outcome.
func (c *Client) write(
	ctx context.Context, s *session.Session, r *request, row *rows.Found,
) (*Lease, *kv.KVPair, error) {
	var old *rows.Lease
	var previous *kv.KVPair
	if row != nil {
		old, previous = row.Record, row.Pair
	}
	began := c.clock.Now()
	record, err := r.record(c, s, old)
	if err != nil {
		return nil, nil, err
	}
	// An orphan of our own may have been taken over, and a reserved row too.
	record.Taken = r.taken || (old != nil && (old.Session == s.ID() || old.Session == "") && old.Taken)
	r.acq = record.Acq
	c.track(record.Acq, nil)
	pair, err := c.store.AtomicPut(ctx, r.row, record.Options(previous, c.attempts)...)
	if err == nil {
		return c.grant(ctx, s, r, pair, record, began), nil, nil
	}
	c.untrack(record.Acq)
	if errors.Is(err, kv.ErrUncertain) {
		c.resolve(s, r.key, record, err)
	}
	current, conflict := rows.CurrentPair(err)
	if conflict || current != nil {
		return nil, current, nil
	}
	return nil, nil, fmt.Errorf("lease: acquiring %q: %w", r.key, err)
}

// grant makes the lease of a row just written. If its session is not to be trusted
// any more, it gives the row back and returns nil (R9.4).
func (c *Client) grant(
	ctx context.Context, s *session.Session, r *request, pair *kv.KVPair, record rows.Lease, began clock.Reading,
) *Lease {
	l := &Lease{
		client: c, session: s, key: r.key, row: r.row, token: pair.Version, version: pair.Version, record: record,
	}
	if r.maxHold > 0 {
		l.hold = &hold{began: began, limit: r.maxHold}
	}
	l.minHold = r.minHold
	c.beginTurn(r, l)
	l.ctx, l.cancel = context.WithCancelCause(s.Leases()) // already ended if Close began just now
	c.track(record.Acq, l)
	revoked := s.IsRevoked(func() string { return revocation(r.key, l.token) })
	if s.Remaining() < r.minRemaining || revoked || c.life.Open().Err() != nil || l.lost() != nil {
		c.refuse(ctx, l)
		return nil
	}
	if l.hold != nil {
		l.mu.Lock()
		l.hold.timer = c.clock.AfterFunc(l.untilHoldCheck(), l.watchHold)
		l.mu.Unlock()
	}
	c.keys.mu.Lock()
	if c.keys.tracked[record.Acq] == l { // else it was taken away meanwhile, and is given back
		c.keys.held[r.key] = l
	}
	c.keys.mu.Unlock()
	if r.rowCheck > 0 {
		c.life.Start(func(context.Context) { l.checkRow(r.rowCheck) })
	}
	c.emit(Event{
		Type: EventAcquired, Key: r.key, Token: l.token, Session: s.ID(), Owner: c.owner, Call: r.call,
		TakenOver: record.Taken, Waited: c.clock.Now().MonotonicSince(r.began),
	})
	return l
}

// refuse gives a row back that was written and is not granted. Nobody has had the
// lease, so neither an operator nor an event finds it.
func (c *Client) refuse(ctx context.Context, l *Lease) {
	c.track(l.record.Acq, nil)
	l.emitted.Store(true)
	l.mu.Lock()
	l.releasing = true
	l.mu.Unlock()
	l.lose(ReasonExpired)
	ctx, cancel := c.clock.WithTimeout(context.WithoutCancel(ctx), c.attemptTimeout())
	defer cancel()
	r := &row{key: l.key, row: l.row, acq: l.record.Acq, version: l.version, record: l.record}
	_, _ = c.freeOrGoOn(ctx, l.session, r) // what fails now goes on
}
