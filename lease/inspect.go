package lease

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

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
	// MaxHold is that of WithMaxHold, 0: none.
	MaxHold time.Duration
	// Member is the holder's session, which Inspect reads after the key. Where
	// Inspect names a Session and no Member, the holder is dead: the next acquire
	// gets the key. HeldError and Holders leave it out.
	Member *Member
}

// Held reports whether anybody held the key.
func (h *Holder) Held() bool { return h.Session != "" }

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
}

// holder is what the row of key says.
func (r *leaseRecord) holder(key string, pair *kv.KVPair) Holder {
	h := Holder{Key: key, Value: r.Value}
	if r.Session != "" {
		h.Owner, h.Token, h.Session, h.Acquired = r.Owner, r.token(pair), r.Session, r.Acquired
		h.MaxHold = time.Duration(r.MaxHold) * time.Millisecond
	}
	return h
}

// holder is what the row of a lease of this client says.
func (l *Lease) holder() Holder {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.record.holder(l.key, kv.NewPair("", l.token, nil, time.Time{}, nil))
	h.Value = bytes.Clone(h.Value)
	return h
}

func (r *sessionRecord) member(row string) *Member {
	return &Member{
		Session: strings.TrimPrefix(row, sessionPrefix), Owner: r.Owner, Host: r.Host, PID: r.PID, Metadata: r.Metadata,
		Since: r.Since, RenewedAt: r.RenewedAt, TTL: r.ttl(), Joined: r.Joined,
	}
}

// Inspect returns who holds key. See Holder.Held. It changes nothing and needs no
// session. It costs one strong read of the key, and one of the session if there
// is a holder. A row that this package cannot read is an error that matches
// ErrFormat.
func (c *Client) Inspect(ctx context.Context, key string) (*Holder, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	pair, err := c.store.Get(ctx, leasePrefix+key, c.attempts)
	switch {
	case errors.Is(err, kv.ErrKeyNotFound):
		return &Holder{Key: key}, nil
	case err != nil:
		return nil, fmt.Errorf("lease: inspecting %q: %w", key, err)
	}
	record, err := decodeLease(pair)
	if err != nil {
		return nil, err
	}
	h := record.holder(key, pair)
	if !h.Held() {
		return &h, nil
	}
	switch h.Member, err = c.member(ctx, h.Session); {
	case errors.Is(err, kv.ErrKeyNotFound):
		return &h, nil
	case err != nil:
		return nil, fmt.Errorf("lease: inspecting the holder of %q: %w", key, err)
	}
	return &h, nil
}

// member reads a session's row.
func (c *Client) member(ctx context.Context, session string) (*Member, error) {
	pair, err := c.store.Get(ctx, sessionPrefix+session, c.attempts)
	if err != nil {
		return nil, err
	}
	record, err := decodeSession(pair)
	if err != nil {
		return nil, err
	}
	return record.member(pair.Key), nil
}

// Holders returns the keys that begin with prefix and are held, in the order of
// their bytes. Holders that have died may be among them. It costs a listing of
// all keys with the prefix that are held or keep a value.
//
// An error comes with a nil Holder. The error of an unreadable row matches
// ErrFormat, and the listing goes on. Any other error ends it.
func (c *Client) Holders(ctx context.Context, prefix string) iter.Seq2[*Holder, error] {
	return listed(ctx, c.store, leasePrefix+prefix, func(pair *kv.KVPair) (*Holder, error) {
		record, err := decodeLease(pair)
		if err != nil || record.Session == "" {
			return nil, err
		}
		h := record.holder(strings.TrimPrefix(pair.Key, leasePrefix), pair)
		return &h, nil
	})
}

// Members returns the sessions there are, this client's among them. It costs a
// listing of them. Errors are as with Holders.
func (c *Client) Members(ctx context.Context) iter.Seq2[*Member, error] {
	return listed(ctx, c.store, sessionPrefix, func(pair *kv.KVPair) (*Member, error) {
		record, err := decodeSession(pair)
		if err != nil {
			return nil, err
		}
		return record.member(pair.Key), nil
	})
}

// listed decodes the pairs under prefix. It leaves out those of which decode returns
// nothing.
func listed[T any](
	ctx context.Context, store kv.Store, prefix string, decode func(*kv.KVPair) (*T, error),
) iter.Seq2[*T, error] {
	return func(yield func(*T, error) bool) {
		for pair, err := range kv.All(ctx, store, prefix) {
			if err != nil {
				yield(nil, fmt.Errorf("lease: listing %q: %w", prefix, err))
				return
			}
			item, err := decode(pair)
			if (item != nil || err != nil) && !yield(item, err) {
				return
			}
		}
	}
}
