package rows

import (
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// MaxQueue is how many entries a row's queue has at most (R20).
const MaxQueue = 16

// maxOwner is how much of a waiter's name its entry has, in bytes.
const maxOwner = 40

// reservedFor is how long those who try a key once leave it to whom it is
// reserved for, by the wall clock.
const reservedFor = time.Minute

// reservedSweepAfter is when the store may remove a reserved row that keeps no
// value.
const reservedSweepAfter = 24 * time.Hour

// Entry is a client that waits for its turn (R20).
type Entry struct {
	ID      string `json:"id"` // 64 random bits, new each time
	Session string `json:"s"`
	Owner   string `json:"o,omitempty"` // for people
	Grace   int64  `json:"g"`
}

// NewEntry is an entry of a session whose client looks at the row at least twice
// in the time of grace.
func NewEntry(session, owner string, grace time.Duration) Entry {
	owner = strings.ToValidUTF8(owner[:min(len(owner), maxOwner)], "") // whole characters
	return Entry{ID: RandomID(8), Session: session, Owner: owner, Grace: grace.Milliseconds()}
}

// PassAfter is for how long a row must be seen reserved for the entry until others
// may pass it over.
func (e *Entry) PassAfter() time.Duration {
	grace := time.Duration(min(bounded(e.Grace, 0), MaxTTL.Milliseconds())) * time.Millisecond
	return grace + grace/16
}

// Queue is who waits for a key, in order.
type Queue []Entry

// UnmarshalJSON never fails. Of a queue that cannot be read only the order is
// lost, and of one that is too long the end.
func (q *Queue) UnmarshalJSON(data []byte) error {
	var entries []Entry
	if json.Unmarshal(data, &entries) != nil {
		entries = nil
	}
	entries = slices.DeleteFunc(entries, func(e Entry) bool { return e.ID == "" || e.Session == "" })
	*q = entries[:min(len(entries), MaxQueue)]
	return nil
}

// Has reports whether the session has an entry.
func (q Queue) Has(session string) bool {
	return slices.ContainsFunc(q, func(e Entry) bool { return e.Session == session })
}

// HasRoomFor reports whether the session may take a place.
func (q Queue) HasRoomFor(session string) bool {
	return session != "" && len(q) < MaxQueue && !q.Has(session)
}

// Without is the queue without the entries of a session.
func (q Queue) Without(session string) Queue {
	return slices.DeleteFunc(slices.Clone(q), func(e Entry) bool { return e.Session == session })
}

// until is a time by the wall clock in milliseconds, 0: none.
type until int64

// UnmarshalJSON never fails. A time that cannot be read is long over.
func (u *until) UnmarshalJSON(data []byte) error {
	var ms int64
	if json.Unmarshal(data, &ms) != nil || ms <= 0 {
		ms = 1
	}
	if string(data) != "null" {
		*u = until(ms)
	}
	return nil
}

// First is the entry whose turn is next, nil if nobody waits. The key of a row
// without a session is reserved for it.
func (r *Lease) First() *Entry {
	if len(r.Queue) == 0 {
		return nil
	}
	return &r.Queue[0]
}

// Reserved is the entry that the key is reserved for, nil: none.
func (r *Lease) Reserved() *Entry {
	if r.Session != "" {
		return nil
	}
	return r.First()
}

// IsFirst reports whether it is the session's turn, or nobody waits.
func (r *Lease) IsFirst(session string) bool {
	first := r.First()
	return first == nil || first.Session == session
}

// TryBlocked reports whether one who tries the key once leaves it to whom it is
// reserved for. It does so for a minute. A time that is further off than that was
// made by a clock that is not ours.
func (r *Lease) TryBlocked(now time.Time) bool {
	left := time.UnixMilli(int64(r.Until)).Sub(now)
	return r.Reserved() != nil && left > 0 && left <= reservedFor
}

// Freed is the record that frees the row. One that keeps its value stays (R19),
// and so does one that somebody waits for: it is reserved for the first (R20).
func (r *Lease) Freed(now time.Time) Lease {
	free := Lease{Keep: r.Keep, Note: r.Note, Queue: r.Queue, Taken: r.Session == "" && r.Taken}
	if r.Keep {
		free.Value, free.Sweep = r.Value, r.Sweep
	}
	if len(r.Queue) > 0 {
		free.Until = until(now.Add(reservedFor).UnixMilli())
	}
	return free
}

// Queued is the record with another queue, for a write by others than the holder.
// The acquisition stays what it is, and so does its token, though the version rises.
func (f *Found) Queued(q Queue) Lease {
	next := f.Rewritten()
	next.Queue = q
	return next
}

// With is the queue with one more entry at the end.
func (q Queue) With(e Entry) Queue { return append(slices.Clip(q), e) }

// stored is the record as it is written. A reserved row names whom it is reserved
// for as its holder, for versions that know no queue: they take the key for held.
func (r *Lease) stored() *Lease {
	e := r.Reserved()
	if e == nil {
		return r
	}
	s := *r
	s.Session, s.Acq, s.Owner = e.Session, e.ID, e.Owner
	if s.Until == 0 {
		s.Until = 1
	}
	return &s
}

// read undoes stored.
func (r *Lease) read() {
	if r.Until != 0 {
		r.Session, r.Acq, r.Owner, r.Acquired = "", "", "", time.Time{}
	}
}
