package lease

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/kv"
)

// Holder says who holds a key, as its row said when it was read. It is for people,
// logs and Break. Owners identify nothing: do not compare them.
type Holder struct {
	// Key is the key asked about.
	Key string
	// Owner is the name of the holder's client, "" if nobody holds the key.
	Owner string
	// Token is the acquisition's fencing token, 0 if nobody holds the key.
	Token uint64
	// Session is the id of the session that the lease depends on, "" if nobody
	// holds the key.
	Session string
	// Acquired is when the holder acquired it, by its own wall clock.
	Acquired time.Time
	// Value is the lease's value. If nobody holds the key, it is the value that the
	// key keeps. nil: there is none.
	Value []byte
	// Kept: the key keeps its value when nobody holds it. See KeepValue.
	Kept bool
	// Note is what was said of a key that keeps its value. See Client.Annotate.
	Note []byte
	// Version is that of the row, which rises with every write. 0: there is no row.
	Version uint64
	// MaxHold is that of WithMaxHold, 0: none.
	MaxHold time.Duration
	// LockDelay is that of WithLockDelay, 0: none.
	LockDelay time.Duration
	// Waiters are the clients that have a place in the key's queue, the first of
	// them first. See WithTurnAfter. Others may wait as well.
	Waiters []Waiter
	// Member is the holder's session, which Inspect reads after the key. Where
	// Inspect names a Session and no Member, the holder is dead: the next acquire
	// gets the key. HeldError and the listings leave it out.
	Member *Member

	row *rows.Found // nil: there is none
}

// Waiter is a client that has a place in a key's queue.
type Waiter struct {
	// Owner is the beginning of its name.
	Owner string
	// Session is the id of its session.
	Session string
}

// Held reports whether anybody held the key.
func (h *Holder) Held() bool { return h.Session != "" }

// Reserved returns the client for whom the key was reserved. It is nil if somebody
// held the key, or nobody waited for it. Who does not come is passed over.
func (h *Holder) Reserved() *Waiter {
	if h.Held() || len(h.Waiters) == 0 {
		return nil
	}
	return &h.Waiters[0]
}

// Member is a client that has a session. It is alive, or nobody has watched it for
// long enough to prove it dead.
type Member struct {
	// Session is the id of the session.
	Session string
	// Owner, Host, PID and Metadata say who it is.
	Owner    string
	Host     string
	PID      int
	Metadata map[string]string
	// Since is when the session was opened, by the member's own wall clock.
	Since time.Time
	// RenewedAt is when its last heartbeat was sent, by the same clock.
	RenewedAt time.Time
	// TTL is the session's time to live.
	TTL time.Duration
	// Joined are the groups it takes part in. See Client.Join.
	Joined []string
	// Version is that of the row. It rises with every heartbeat, and when somebody
	// breaks one of the member's leases.
	Version uint64
	// DeadIn is, from Alive, in how long the member may turn out to be dead, if it
	// is silent until then.
	DeadIn time.Duration
}

// OverdueAfter is for how long no heartbeat of the member may be seen until people
// should look at it: two were due. Others have its leases after DeadAfter.
func (m *Member) OverdueAfter() time.Duration { return rows.OverdueAfter(m.TTL) }

// DeadAfter is for how long a contender has to see no heartbeat of the member to
// prove it dead: its TTL and a sixteenth (R10).
func (m *Member) DeadAfter() time.Duration { return rows.DeadAfter(m.TTL) }

// showHolder is what the row of key says.
func showHolder(key string, f *rows.Found) Holder {
	r := f.Record
	h := Holder{
		Key: key, Value: bytes.Clone(r.Value), Kept: r.Keep, Note: bytes.Clone(r.Note), Version: f.Pair.Version, row: f,
	}
	if r.Session != "" {
		h.Owner, h.Token, h.Session, h.Acquired = r.Owner, r.TokenIn(f.Pair), r.Session, r.Acquired
		h.MaxHold = time.Duration(r.MaxHold) * time.Millisecond
		h.LockDelay = time.Duration(r.Delay) * time.Millisecond
	}
	for _, e := range r.Queue {
		h.Waiters = append(h.Waiters, Waiter{Owner: e.Owner, Session: e.Session})
	}
	return h
}

// holder is what the row of a lease of this client says.
func (l *Lease) holder() Holder {
	l.mu.Lock()
	defer l.mu.Unlock()
	record := l.record
	record.Token = l.token
	f := &rows.Found{Pair: kv.NewPair(l.row, l.version, nil, time.Time{}, nil), Record: &record}
	return showHolder(l.key, f)
}

// showMember is what a session's row says.
func showMember(pair *kv.KVPair, r *rows.Session) *Member {
	return &Member{
		Session: strings.TrimPrefix(pair.Key, rows.SessionPrefix), Owner: r.Owner, Host: r.Host, PID: r.PID,
		Metadata: r.Metadata, Since: r.Since, RenewedAt: r.RenewedAt, TTL: r.Lifetime(), Joined: r.Joined,
		Version: pair.Version,
	}
}

// Inspect returns who holds key. See Holder.Held. It changes nothing and needs no
// session. It costs one strong read of the key, and one of the session if there
// is a holder. A row that this package cannot read is an error that matches
// kv.ErrFormat.
func (c *Client) Inspect(ctx context.Context, key string) (*Holder, error) {
	h, err := c.Holder(ctx, key)
	if err != nil || !h.Held() {
		return h, err
	}
	switch h.Member, err = c.member(ctx, h.Session); {
	case errors.Is(err, kv.ErrKeyNotFound):
		return h, nil
	case err != nil:
		return nil, fmt.Errorf("lease: inspecting the holder of %q: %w", key, err)
	}
	return h, nil
}

// Holder returns what the row of key says, as Inspect does without asking after
// the holder, who may be dead. It costs one strong read.
func (c *Client) Holder(ctx context.Context, key string) (*Holder, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	pair, err := c.store.Get(ctx, rows.LeasePrefix+key, c.attempts)
	switch {
	case errors.Is(err, kv.ErrKeyNotFound):
		return &Holder{Key: key}, nil
	case err != nil:
		return nil, fmt.Errorf("lease: inspecting %q: %w", key, err)
	}
	return readHolder(pair)
}

// readHolder is what a row says, nil if it cannot be read.
func readHolder(pair *kv.KVPair) (*Holder, error) {
	h, err := holderOf(pair)
	if err != nil {
		return nil, err
	}
	return h, nil
}

// holderOf is what a row says, its key alone if it cannot be read.
func holderOf(pair *kv.KVPair) (*Holder, error) {
	key := strings.TrimPrefix(pair.Key, rows.LeasePrefix)
	row, err := rows.Read(pair)
	if err != nil {
		return &Holder{Key: key}, err
	}
	h := showHolder(key, row)
	return &h, nil
}

// memberOf is what a session's row says, its id alone if it cannot be read.
func memberOf(pair *kv.KVPair) (*Member, error) {
	s, err := readSession(pair)
	return s.Member, err
}

// member reads a session's row.
func (c *Client) member(ctx context.Context, session string) (*Member, error) {
	pair, err := c.store.Get(ctx, rows.SessionPrefix+session, c.attempts)
	if err != nil {
		return nil, err
	}
	return memberOf(pair)
}

// Holders returns the keys that begin with prefix and are held, in the order of
// their bytes. Holders that have died may be among them. It costs a listing of
// all keys with the prefix that are held or keep a value.
//
// The error of a row that this package cannot read comes with a Holder that has
// its Key and nothing else, and the listing goes on. An error without a Holder
// ends it.
func (c *Client) Holders(ctx context.Context, prefix string) iter.Seq2[*Holder, error] {
	return func(yield func(*Holder, error) bool) {
		for h, err := range c.Keys(ctx, prefix) {
			if (err != nil || h.Held()) && !yield(h, err) {
				return
			}
		}
	}
}

// Keys returns the keys that begin with prefix and are held or keep a value, in
// the order of their bytes. It costs a listing of them: a strong one, unless the
// options say kv.EventuallyConsistent. Errors are as with Holders.
func (c *Client) Keys(ctx context.Context, prefix string, options ...kv.ReadOption) iter.Seq2[*Holder, error] {
	return listed(ctx, c.store, rows.LeasePrefix+prefix, holderOf, c.readOptions(options))
}

// readOptions adds the bound of each attempt to a caller's options, whose slice it
// leaves alone.
func (c *Client) readOptions(options []kv.ReadOption) []kv.ReadOption {
	return append(slices.Clip(options), c.attempts)
}

// Members returns the sessions there are, this client's among them. It costs a
// listing of them: a strong one, unless the options say kv.EventuallyConsistent.
// Errors are as with Holders: a Member has its Session.
func (c *Client) Members(ctx context.Context, options ...kv.ReadOption) iter.Seq2[*Member, error] {
	return listed(ctx, c.store, rows.SessionPrefix, memberOf, c.readOptions(options))
}

// listed shows the pairs under prefix.
func listed[T any](
	ctx context.Context, store kv.Store, prefix string, show func(*kv.KVPair) (*T, error), options []kv.ReadOption,
) iter.Seq2[*T, error] {
	return func(yield func(*T, error) bool) {
		for pair, err := range kv.All(ctx, store, prefix, options...) {
			if err != nil {
				yield(nil, fmt.Errorf("lease: listing %q: %w", prefix, err))
				return
			}
			if !yield(show(pair)) {
				return
			}
		}
	}
}
