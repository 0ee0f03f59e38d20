package lease

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/kv"
)

// Alive is Members without those that are known to be dead. It watches the
// members of group, "" being all: one whose heartbeats it has not seen for its
// TTL and a sixteenth, over several calls, is asked after and ended (R10). So a
// member that crashed while it held nothing does not stay. Member.DeadIn says
// when it is worth looking again.
//
// It costs a listing of the sessions, a strong one unless the options say
// kv.EventuallyConsistent, and a read and a write for each that is found dead.
// Errors are as with Members: a session whose row cannot be read may be alive
// (R18).
func (c *Client) Alive(ctx context.Context, group string, options ...kv.ReadOption) iter.Seq2[*Member, error] {
	return func(yield func(*Member, error) bool) {
		for s, err := range listed(ctx, c.store, rows.SessionPrefix, readSession, c.readOptions(options)) {
			if s == nil {
				yield(nil, err)
				return
			}
			m := s.Member
			if err == nil && m.Session != c.Session() && (group == "" || slices.Contains(m.Joined, group)) {
				m.DeadIn = c.watchListed(ctx, s)
			}
			if !c.others.KnownDead(m.Session) && !yield(m, err) {
				return
			}
		}
	}
}

// listedSession is a session's row as it was listed. record is nil if it cannot be
// read.
type listedSession struct {
	*Member
	pair   *kv.KVPair
	record *rows.Session
}

func readSession(pair *kv.KVPair) (*listedSession, error) {
	record, err := rows.DecodeSession(pair)
	if err != nil {
		return &listedSession{Member: &Member{Session: strings.TrimPrefix(pair.Key, rows.SessionPrefix)}}, err
	}
	return &listedSession{showMember(pair, record), pair, record}, nil
}

// watchListed notes a session that was listed, and asks after it if it has been
// silent for long enough. It returns in how long that may be.
func (c *Client) watchListed(ctx context.Context, s *listedSession) time.Duration {
	deadIn := c.others.Note(s.Session, s.pair, s.record)
	if deadIn <= 0 {
		// Where it cannot be asked after, the next call asks again.
		_, deadIn, _ = c.others.IsDead(ctx, s.Session)
	}
	return max(deadIn, c.pollMin)
}

// Dead reports whether a session is proven dead: its row is gone, or this client
// has not seen it change for its TTL and a sixteenth, and ends it then (R10).
// False says that it is alive, or was not watched for long enough: ask again. It
// costs one strong read, unless one showed it alive and no heartbeat was due
// since, and a write to end it.
func (c *Client) Dead(ctx context.Context, session string) (bool, error) {
	dead, _, err := c.others.IsDead(ctx, session)
	return dead, err
}

// Free reports whether an acquire would get a key, as h shows it: what Holder,
// Keys, Inspect or a HeldError returned. It is free if one of these is true:
//
//   - Nobody holds it, and it is reserved for nobody else.
//   - Its holder is proven dead, and the time of WithLockDelay is over.
//   - Its row is what a write of this client has left that nobody waits for, and
//     that the client is about to give back.
//
// False says that it is held, or that its holder was not watched for long enough:
// ask again. It costs what Dead costs if the row names another session, else
// nothing.
func (c *Client) Free(ctx context.Context, h *Holder) (bool, error) {
	switch {
	case h == nil:
		return false, fmt.Errorf("lease: Free: want a holder that was read, not nil: %w", ErrInvalid)
	case h.row == nil:
		return true, nil
	case h.row.Record.Session == "":
		return c.isOpen(h.row), nil
	case h.row.Record.Session == c.Session():
		return c.isOrphan(h.row), nil
	}
	dead, _, err := c.isDead(ctx, h.row.Record)
	if err != nil {
		return false, fmt.Errorf("lease: asking after the holder of %q: %w", h.Key, err)
	}
	return dead, nil
}

// Session returns the id of the client's session, "" if it has none that is
// trusted now. Every acquire that follows a loss may have another one. No I/O.
func (c *Client) Session() string {
	if s := c.trusted(); s != nil {
		return s.ID()
	}
	return ""
}

// Context returns a context that ends when Close begins, with ErrClosed as its
// cause: for what goes on for as long as the client does.
func (c *Client) Context() context.Context { return c.life.Open() }
