package lease

import (
	"bytes"
	"fmt"
	"time"

	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/internal/session"
	"github.com/dynalock/dynalock/kv"
)

// MaxValueSize bounds a lease's value, in bytes.
const MaxValueSize = 256 << 10

// acquireSettings is what the options of an acquire add up to.
type acquireSettings struct {
	value        []byte
	keep         bool
	replace      bool // a kept value too
	next         nextValue
	retention    time.Duration
	minRemaining time.Duration
	maxHold      time.Duration
	minHold      time.Duration
	lockDelay    time.Duration
	rowCheck     time.Duration
	private      bool        // no other client wants the key: it is not left to any
	noTurn       bool        // it does not enter the queue (R20)
	listing      *listing    // nil: none
	from         *rows.Found // nil: whatever the row says, or none
}

// AcquireOption is an option of Acquire and TryAcquire.
type AcquireOption func(*acquireSettings) error

// WithValue gives the lease a value, at most MaxValueSize bytes. Others see it
// with Inspect. It costs no request.
//
// The value goes when the lease is released, unless the key keeps its value (see
// KeepValue). For such a key this one is used only if the key has no value yet:
// WithReplaceValue is for the other case. Then an acquire that fails with an
// unknown outcome may leave it behind.
func WithValue(value []byte) AcquireOption {
	return func(a *acquireSettings) error {
		a.value, a.replace = bytes.Clone(value), false
		return checkValue("WithValue", value)
	}
}

// WithReplaceValue gives the lease a value as WithValue does, and replaces that
// which the key keeps. So an entry of a register is new with each acquisition,
// also over what a dead process has left.
//
// It costs no request. The write that acquires the key replaces the value: an
// acquire that fails with an unknown outcome may have done so, and what was kept
// is lost.
func WithReplaceValue(value []byte) AcquireOption {
	return func(a *acquireSettings) error {
		a.value, a.replace = bytes.Clone(value), true
		return checkValue("WithReplaceValue", value)
	}
}

// nextValue says what a lease's value is to be. See WithNextValue.
type nextValue func(kept []byte, died bool) ([]byte, error)

// WithNextValue makes the lease's value what next returns, at most MaxValueSize
// bytes. kept is the value that the key keeps, nil if there is none. died says
// that who had the key has died with it. The write that acquires the key replaces
// the very row that next was asked about, so that no newer value is lost. It costs
// no request, and takes the place of WithValue and WithReplaceValue.
//
// next may be called several times, and must not block. Its error ends the
// acquire, whose error matches it and ErrChanged. An acquire that fails with an
// unknown outcome may have written the value.
func WithNextValue(next func(kept []byte, died bool) ([]byte, error)) AcquireOption {
	return func(a *acquireSettings) error {
		if next == nil {
			return fmt.Errorf("lease: WithNextValue: want a function: %w", ErrInvalid)
		}
		a.next = next
		return nil
	}
}

func checkValue(what string, value []byte) error {
	if len(value) > MaxValueSize {
		return fmt.Errorf("lease: %s: a value of %d bytes, want at most %d: %w",
			what, len(value), MaxValueSize, ErrInvalid)
	}
	return nil
}

// KeepValue makes the key keep its value from then on, whoever releases or loses
// it: a checkpoint. Lease.Value is then what the last holder left, and Update
// changes it. The row stays in the store when nobody holds the key. Acquiring
// such a key costs two writes, or one when it was waited for.
func KeepValue() AcquireOption {
	return func(a *acquireSettings) error {
		a.keep = true
		return nil
	}
}

// WithRetention makes the key keep its value, as KeepValue does, but lets the
// store remove it once nobody has held the key for d. A second to ten years.
// Default: it is kept for ever.
//
// It is a hint, for garbage. dynamokv follows it, other drivers may not. It does
// not count for a key whose holder died or left it to Close, until somebody has
// taken and released that key.
func WithRetention(d time.Duration) AcquireOption {
	return func(a *acquireSettings) error {
		a.keep, a.retention = true, d
		return within("WithRetention", d, time.Second, tenYears)
	}
}

// WithMinRemaining makes the acquire grant no lease with less than d to go until
// its trust deadline: enough for work that cannot be interrupted. Where the
// session's trust is shorter, the acquire waits for a heartbeat, sent at once.
// d is at most what a healthy session always has: the TTL less its margin and
// 1.1 heartbeats, 8 s at the defaults. Default 0.
func WithMinRemaining(d time.Duration) AcquireOption {
	return func(a *acquireSettings) error {
		a.minRemaining = d
		return nil
	}
}

// WithMaxHold ends the lease d after it was acquired, however healthy its holder
// is. Its context's cause then says ReasonMaxHold. The client gives the key back
// when the holder has had its margin to stop. A second to ten years. Default: no
// bound.
func WithMaxHold(d time.Duration) AcquireOption {
	return func(a *acquireSettings) error {
		a.maxHold = d
		return within("WithMaxHold", d, time.Second, tenYears)
	}
}

// From makes the acquire begin with the row as h shows it: what Holder, Keys,
// Inspect or a HeldError returned of the same key. That spares a key that keeps
// its value the write that finds this out. The acquire never makes the row. If it
// is gone by then, or its note is another one (see Annotate), the error matches
// ErrChanged.
func From(h *Holder) AcquireOption {
	return func(a *acquireSettings) error {
		if h == nil || h.row == nil {
			return fmt.Errorf("lease: From: want a holder of a row that was read, "+
				"as Holder, Keys, Inspect or a HeldError has it: %w", ErrInvalid)
		}
		a.from = h.row
		return nil
	}
}

// begin returns the row that an attempt begins with. Where the acquire is to find
// one, that is the known row, or else the one that it was given.
func (r *request) begin(known *rows.Found) (*rows.Found, error) {
	if r.from == nil {
		return known, nil
	}
	if known == nil {
		known = r.from
	}
	if !bytes.Equal(known.Record.Note, r.from.Record.Note) {
		return nil, fmt.Errorf("lease: acquiring %q: it has another note: %w", r.key, ErrChanged)
	}
	return known, nil
}

// inTheWay reads the row that a refused write has met, nil if there was none.
func (r *request) inTheWay(current *kv.KVPair) (*rows.Found, error) {
	switch {
	case current != nil:
		return rows.Read(current)
	case r.from != nil:
		return nil, fmt.Errorf("lease: acquiring %q: its row is gone: %w", r.key, ErrChanged)
	}
	return nil, nil
}

// apply adds the options up and checks them against the client's.
func (c *Client) apply(a *acquireSettings, options []AcquireOption) error {
	for _, option := range options {
		if option == nil {
			return fmt.Errorf("lease: acquiring with a nil option: %w", ErrInvalid)
		}
		if err := option(a); err != nil {
			return err
		}
	}
	if err := a.checkHolds(); err != nil {
		return err
	}
	limit := c.ttl - c.margin - c.heartbeat*11/10
	if a.minRemaining < 0 || a.minRemaining > limit {
		return fmt.Errorf("lease: WithMinRemaining(%v): want 0s to %v, with a TTL of %v and a heartbeat every %v: %w",
			a.minRemaining, limit, c.ttl, c.heartbeat, ErrInvalid)
	}
	return nil
}

// record is the row of an acquisition by s over old. A key without a row has a
// nil old (R19).
func (r *request) record(c *Client, s *session.Session, old *rows.Lease) (rows.Lease, error) {
	record := rows.Lease{
		Session: s.ID(), Acq: rows.RandomID(16), Owner: c.owner, Acquired: c.clock.Now().Wall,
		Keep: r.keep, Value: r.value, MaxHold: r.maxHold.Milliseconds(), Sweep: r.retention.Milliseconds(),
		Delay: r.lockDelay.Milliseconds(),
	}
	if old != nil {
		record.Queue = old.Queue.Without(s.ID())
	}
	if old != nil && old.Keep {
		record.Keep, record.Note = true, old.Note
		if !r.replace {
			record.Value = old.Value
		}
		if record.Sweep == 0 {
			record.Sweep = old.Sweep
		}
	}
	if r.next == nil {
		return record, nil
	}
	var kept []byte
	if old != nil && old.Keep {
		kept = old.Value
	}
	died := old != nil && (old.Session == "" && old.Taken || old.Session != "" && old.Session != s.ID())
	value, err := r.next(bytes.Clone(kept), died)
	if err != nil {
		return record, fmt.Errorf("lease: acquiring %q: %w: %w", r.key, ErrChanged, err)
	}
	record.Value = bytes.Clone(value)
	return record, checkValue("WithNextValue", value)
}
