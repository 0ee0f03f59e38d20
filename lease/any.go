package lease

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/kv"
)

// MaxAnyKeys is how many keys AcquireAny chooses from at most.
const MaxAnyKeys = 10_000

// WithListing makes AcquireAny and TryAcquireAny list the keys that begin with
// prefix in one go, instead of reading each of the keys that they choose from.
// All of them must begin with prefix, and little else should. Any other acquire
// refuses it.
//
// If keys is not nil, it is given what was listed, in the order of the keys'
// bytes, and returns the keys to choose from, now and while the call waits. So a
// set can grow and shrink: a call that waits hears of it within its TTL, 15 s at
// most. Where keys returns none the call ends, with an error that matches
// ErrInvalid.
func WithListing(prefix string, keys func(listed []*Holder) []string) AcquireOption {
	return func(a *acquireSettings) error {
		a.listing = &listing{prefix: prefix, keys: keys}
		if prefix == "" {
			return fmt.Errorf("lease: WithListing(\"\"): want a prefix: %w", ErrInvalid)
		}
		return nil
	}
}

// listing is what WithListing sets.
type listing struct {
	prefix string
	keys   func(listed []*Holder) []string
}

// TryAcquireAny acquires one of keys, if there is one that nobody holds, or whose
// holder is proven dead (R21). Keys that nobody holds come first. If all are
// held, it returns a *HeldError with all Holders. On any other error the caller
// holds nothing. The client resolves a write of unknown outcome in the background
// (R14).
//
// keys are 1 to MaxAnyKeys. Their order does not matter: each client begins at
// another one. Lease.Key says which it is. The lease is one as any other.
//
// Costs, with WithListing; without it, a listing is one read per key:
//
//   - the first key that it looks at has no row: one write
//   - it has one: one listing and one write more
//   - all are held: one write, one listing, and a strong read of each holder's
//     session that was not seen lately
//   - this client holds all of them: nothing
func (c *Client) TryAcquireAny(ctx context.Context, keys []string, options ...AcquireOption) (*Lease, error) {
	return c.traced(ctx, Call{Op: "TryAcquireAny"}, func(ctx context.Context) (*Lease, error) {
		return c.acquireAny(ctx, keys, options, false)
	})
}

// AcquireAny blocks until this client holds one of keys, or ctx is done, or the
// client is closed. On failure the caller holds nothing. Everything else is as
// with TryAcquireAny.
//
// Goroutines of one client that wait for the same set, which is one prefix of
// WithListing or one list of keys, are served in the order in which they came.
// They share one poller: waiting costs one listing per poll, and one read of each
// holder's session per third of its TTL.
//
//	a holder dies          Its keys pass on together, as with Acquire.
//	an answer is lost      The call that waits finds its own row, or takes another
//	                       key. A try returns the error, and the row is given back.
//	the store is away      The call that waits goes on. A try returns the error.
//	a row cannot be read   It is left alone. The other keys are tried.
//	the session is lost    The call goes on with the next one.
//	ctx ends, or Close     The call ends. What it has written is given back.
func (c *Client) AcquireAny(ctx context.Context, keys []string, options ...AcquireOption) (*Lease, error) {
	return c.traced(ctx, Call{Op: "AcquireAny"}, func(ctx context.Context) (*Lease, error) {
		return c.acquireAny(ctx, keys, options, true)
	})
}

// anyRequest is one acquire of any of several keys.
type anyRequest struct {
	acquireSettings
	keys  []string // in order, each once
	call  uint64   // for events
	waits bool
	// began is when the call began, listed when it last listed, or began.
	began, listed clock.Reading
	// emitted: the observer knows that it waits; troubled: because of an error.
	emitted, troubled bool
	// holders are who had the keys when all were held, trouble is why a later look
	// failed.
	holders []Holder
	trouble error
}

// waitEnded says of a wait that ended with its caller's context what there was to
// wait for. err is the context's end.
func (r *anyRequest) waitEnded(c *Client, err error) error {
	e := &WaitError{
		Key: r.keys[0], Waited: c.clock.Now().MonotonicSince(r.began), Trouble: r.trouble, Err: err,
	}
	if len(r.holders) > 0 {
		first := r.holders[0]
		e.Key, e.Holder, e.Holders, e.Silent = first.Key, &first, r.holders, c.others.Silent(first.Session)
		e.Own = first.Session == c.Session()
	}
	return e
}

// acquireAny runs an acquire of any of keys, as acquireKey does for one.
func (c *Client) acquireAny(ctx context.Context, keys []string, options []AcquireOption, waits bool) (*Lease, error) {
	r := &anyRequest{call: c.events.calls.Add(1), waits: waits, began: c.clock.Now()}
	r.listed = r.began
	if err := c.apply(&r.acquireSettings, options); err != nil {
		return nil, err
	}
	if r.from != nil {
		return nil, fmt.Errorf("lease: acquiring any of %d keys: From is for one key: %w", len(keys), ErrInvalid)
	}
	if err := r.choose(keys); err != nil {
		return nil, err
	}
	caller := ctx
	ctx, use, err := c.life.Begin(ctx)
	if err != nil {
		return nil, err
	}
	defer use.End()
	var l *Lease
	if waits {
		l, err = c.awaitAny(ctx, r)
	} else {
		l, err = c.inTime(ctx, r.keys[0], func(ctx context.Context) (*Lease, error) { return c.attemptAny(ctx, r) })
	}
	if err != nil {
		c.emitFailure(r.keys[0], r.call, r.began, err, ctx.Err() != nil)
		if waits {
			err = endOfWait(ctx, err)
		}
		err = c.life.Explain(err)
		if waits && caller.Err() != nil && !errors.Is(err, ErrClosed) {
			err = r.waitEnded(c, err)
		}
		return nil, err
	}
	use.Stays = true
	return l, nil
}

// choose makes keys those to choose from, unless they are bad.
func (r *anyRequest) choose(keys []string) error {
	if len(keys) == 0 || len(keys) > MaxAnyKeys {
		return fmt.Errorf("lease: acquiring any of %d keys: want 1 to %d: %w", len(keys), MaxAnyKeys, ErrInvalid)
	}
	for _, key := range keys {
		if err := checkKey(key); err != nil {
			return err
		}
		if r.listing != nil && !strings.HasPrefix(key, r.listing.prefix) {
			return fmt.Errorf("lease: acquiring any: key %.40q: want one that begins with %q, as WithListing says: %w",
				key, r.listing.prefix, ErrInvalid)
		}
	}
	r.keys = slices.Compact(slices.Sorted(slices.Values(keys)))
	return nil
}

// allHeld says that every key is held.
type allHeld struct {
	holders []Holder
	// recheck is when a holder's session is worth asking about again.
	recheck time.Duration
	// err is why one of them could not be asked about, nil if all are alive.
	err error
}

func (a *allHeld) Error() string {
	return fmt.Sprintf("lease: all of %d keys are held", len(a.holders))
}

// attemptAny tries once, and says who holds the keys otherwise.
func (c *Client) attemptAny(ctx context.Context, r *anyRequest) (*Lease, error) {
	l, err := c.tryAny(ctx, r, nil, true)
	var full *allHeld
	switch {
	case !errors.As(err, &full):
		return l, err
	case full.err != nil:
		return nil, full.err
	}
	return nil, &HeldError{Holder: full.holders[0], Holders: full.holders}
}

// tryAny is one round (R21). It returns *allHeld if all keys are held. blind: a
// create is worth a try before anything is read. set is that of a call that
// waits, else nil.
func (c *Client) tryAny(ctx context.Context, r *anyRequest, set *anySet, blind bool) (*Lease, error) {
	if _, err := c.current(ctx); err != nil {
		return nil, err
	}
	if here := c.allHere(r.keys); here != nil && !r.listingDue(c) {
		return nil, &allHeld{holders: here, recheck: c.ttl}
	}
	if key := c.anyUntouched(r); blind && key != "" {
		l, err := c.tryOne(ctx, r, key, nil)
		if err == nil || !isTaken(err) {
			return l, err
		}
	}
	for round := 0; ; round++ {
		if err := c.contentionBackoff(ctx, r.keys[0], round, nil); err != nil {
			return nil, err
		}
		l, err := c.listAndTake(ctx, r, set)
		if !errors.Is(err, errOvertaken) {
			return l, err
		}
	}
}

// listingDue reports whether the keys may be others by now: they come with a
// listing.
func (r *anyRequest) listingDue(c *Client) bool {
	return r.listing != nil && r.listing.keys != nil && c.clock.Now().Since(r.listed) >= min(c.ttl, DefaultTTL)
}

// inTurn are the keys from where this client begins, so that clients that begin at
// the same time do not meet.
func (c *Client) inTurn(keys []string) iter.Seq[string] {
	h := fnv.New32a()
	_, _ = h.Write([]byte(c.Session()))
	first := int(h.Sum32() % uint32(len(keys))) //nolint:gosec // at most MaxAnyKeys
	return func(yield func(string) bool) {
		for i := range keys {
			if !yield(keys[(first+i)%len(keys)]) {
				return
			}
		}
	}
}

// allHere is who has the keys, if this client has all of them.
func (c *Client) allHere(keys []string) []Holder {
	holders := make([]Holder, 0, len(keys))
	for _, key := range keys {
		l := c.localHolder(key)
		if l == nil {
			return nil
		}
		holders = append(holders, l.holder())
	}
	return holders
}

// What this client does with a key that it does not hold.
const (
	untouched = iota
	yielded   // it leaves the key to others for a while (R15)
	acquiring // a call of this client is at it
)

// touch is which of these it is.
func (c *Client) touch(key string) int {
	c.keys.mu.Lock()
	_, underWay := c.keys.states[key]
	c.keys.mu.Unlock()
	switch {
	case underWay:
		return acquiring
	case c.yieldLeft(key) > 0:
		return yielded
	}
	return untouched
}

// anyUntouched is the first key that this client neither holds nor asks for,
// "" if there is none.
func (c *Client) anyUntouched(r *anyRequest) string {
	for key := range c.inTurn(r.keys) {
		if c.localHolder(key) == nil && c.touch(key) == untouched {
			return key
		}
	}
	return ""
}

// isTaken reports whether err says that somebody has the key, or may have: what
// is not understood is left alone (R18).
func isTaken(err error) bool {
	var b *heldRow
	return errors.As(err, &b) || errors.Is(err, errHeldHere) || errors.Is(err, ErrHeld) || errors.Is(err, kv.ErrFormat)
}

// tryOne tries to get one key of the set: over the row that was listed, or by a
// create. A row that stands in the way is not asked about.
func (c *Client) tryOne(ctx context.Context, r *anyRequest, key string, row *rows.Found) (*Lease, error) {
	one := &request{
		acquireSettings: r.acquireSettings, key: key, row: rows.LeasePrefix + key, call: r.call, began: r.began,
		waits: r.waits, any: true,
	}
	one.keyState = c.stateOf(key)
	defer c.leaveState(key, one.keyState)
	return c.tryRow(ctx, one, row)
}

// errOvertaken says that keys were free and others were faster.
var errOvertaken = errors.New("lease: others were faster")

// candidate is a key that may be taken, with its row as it was listed, nil: none.
type candidate struct {
	key   string
	row   *rows.Found
	touch int
}

// listAndTake lists the set and takes what it can.
func (c *Client) listAndTake(ctx context.Context, r *anyRequest, set *anySet) (*Lease, error) {
	listed, err := c.listAny(ctx, r, set)
	if err != nil {
		return nil, err
	}
	var free, others []candidate
	full := &allHeld{recheck: c.ttl}
	for key := range c.inTurn(r.keys) {
		row, here := listed.rows[key], c.localHolder(key)
		switch {
		case listed.unreadable[key] != nil:
			err = listed.unreadable[key] // R18
		case here != nil:
			full.holders = append(full.holders, here.holder())
		case row == nil || c.isOpen(row) || c.isOrphan(row):
			free = append(free, candidate{key, row, c.touch(key)})
		case row.Record.Session == "", row.Record.Session == c.Session(): // reserved, or a call of ours is under way
			full.holders = append(full.holders, showHolder(key, row))
		default:
			others = append(others, candidate{key: key, row: row})
		}
	}
	slices.SortStableFunc(free, func(a, b candidate) int { return a.touch - b.touch })
	for _, k := range free {
		if l, err := c.tryOne(ctx, r, k.key, k.row); err == nil || !isTaken(err) {
			return l, err
		}
	}
	switch {
	case len(free) > 0:
		return nil, errOvertaken
	case len(others)+len(full.holders) == 0:
		return nil, err
	}
	return c.takeDead(ctx, r, others, full)
}

// takeDead takes a key of others whose holder is dead. Where there is none, the
// error is full, completed.
func (c *Client) takeDead(ctx context.Context, r *anyRequest, others []candidate, full *allHeld) (*Lease, error) {
	overtaken, unknown := false, map[string]bool{}
	for _, k := range others {
		full.holders = append(full.holders, showHolder(k.key, k.row))
		session := k.row.Record.Session
		if unknown[session] {
			continue // one failure is enough
		}
		dead, next, err := c.isDead(ctx, k.row.Record)
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case errors.Is(err, kv.ErrFormat):
			continue // R18
		case err != nil:
			unknown[session] = true
			full.err = fmt.Errorf("lease: asking after the holder of %q: %w", k.key, err)
			continue
		case !dead:
			full.recheck = min(full.recheck, next)
			continue
		}
		if l, err := c.tryOne(ctx, r, k.key, k.row); err == nil || !isTaken(err) {
			return l, err
		}
		overtaken = true
	}
	if overtaken {
		return nil, errOvertaken
	}
	slices.SortFunc(full.holders, func(a, b Holder) int { return strings.Compare(a.Key, b.Key) })
	return nil, full
}

// isOrphan reports whether a row names this client's session and no acquisition
// of it (R9.2).
func (c *Client) isOrphan(row *rows.Found) bool {
	return row.Record.Session == c.Session() && !c.owns(row.Record.Acq)
}

// emitWaiting emits that the call waits, as waiter.emitWaiting does.
func (r *anyRequest) emitWaiting(c *Client, full *allHeld, err error) {
	e := Event{Type: EventWaiting, Key: r.keys[0], Call: r.call, Err: err}
	if full != nil {
		h := full.holders[0]
		e.Key, e.Owner, e.Token, e.Err = h.Key, h.Owner, h.Token, full.err
	}
	if r.emitted && r.troubled == (e.Err != nil) {
		return
	}
	r.emitted, r.troubled = true, e.Err != nil
	c.emit(e)
}
