// Package rows is what the rows of package lease say: their keys, their formats,
// how they are read and written. Nothing in it acts.
package rows

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/dynalock/dynalock/kv"
)

// Where the rows live. The prefixes are not the user's.
const (
	SessionPrefix = "session/"
	LeasePrefix   = "lease/"
)

// What the keys of the recipes begin with. A lock.Mutex refuses them.
const (
	OnceKeys      = "once/"
	SemaphoreKeys = "semaphore/"
	RWKeys        = "rw/"
	ElectionKeys  = "election/"
	PoolKeys      = "pool/"
)

// format is the only row format there is. Format 1 had another name for the
// nonce, and partitions of package pool in other places.
const format = 2

// AcqField is the field of a lease row that holds its acquisition id, for
// conditions of other writes.
const AcqField = "acq"

// Bounds of what rows say.
const (
	MinTTL   = 3 * time.Second
	MaxTTL   = 24 * time.Hour
	tenYears = 10 * 365 * 24 * time.Hour
)

// Session is the value of a session row.
type Session struct {
	Format    int               `json:"f"`
	Owner     string            `json:"owner"`
	TTL       int64             `json:"ttl_ms"`
	Host      string            `json:"host,omitempty"`
	PID       int               `json:"pid,omitempty"`
	Since     time.Time         `json:"since"`
	RenewedAt time.Time         `json:"renewed_at"`        // wall clock, for people and as a hint (R10)
	Next      int64             `json:"next_ms,omitempty"` // how long after RenewedAt the next heartbeat is due
	Metadata  map[string]string `json:"meta,omitempty"`
	Nonce     string            `json:"nonce"` // 64 random bits of the latest heartbeat
	// Joined are the groups that the client takes part in.
	Joined []string `json:"joined,omitempty"`
	// Revoked are the leases that operators took from it, as key@token.
	Revoked []string `json:"revoked,omitempty"`
}

// Lifetime is the TTL.
func (r *Session) Lifetime() time.Duration { return time.Duration(r.TTL) * time.Millisecond }

// NextBeat is how long after RenewedAt the holder means to heartbeat again, 0 if
// it does not say.
func (r *Session) NextBeat() time.Duration { return time.Duration(r.Next) * time.Millisecond }

// OverdueAfter is how long a session may be silent before people are told. Two
// heartbeats were due.
func (r *Session) OverdueAfter() time.Duration { return OverdueAfter(r.Lifetime()) }

// OverdueAfter is that of a session with this TTL.
func OverdueAfter(ttl time.Duration) time.Duration { return ttl * 2 / 3 }

// DeadAfter is that of a session with this TTL. The sixteenth is d of R10: it covers
// clock rates that differ by 3 %.
func DeadAfter(ttl time.Duration) time.Duration { return ttl + ttl/16 }

// DeadAfter is for how long a contender has to see no heartbeat (R10).
func (r *Session) DeadAfter() time.Duration { return DeadAfter(r.Lifetime()) }

// Lease is the value of a lease row. A row without a session is free and keeps its
// value.
type Lease struct {
	Format   int       `json:"f"`
	Session  string    `json:"session,omitempty"`
	Acq      string    `json:"acq,omitempty"`
	Owner    string    `json:"owner,omitempty"`
	Acquired time.Time `json:"acquired_at,omitzero"` // wall clock, for people only
	Keep     bool      `json:"keep,omitempty"`
	Value    []byte    `json:"value,omitempty"`
	Token    uint64    `json:"token,omitempty"` // where it differs from the row's version
	MaxHold  int64     `json:"max_hold_ms,omitempty"`
	// Taken: the acquisition took the key over from a dead session.
	Taken bool `json:"taken,omitempty"`
	// Sweep is how long after the last write the store keeps the row when nobody
	// holds it. 0: for ever.
	Sweep int64 `json:"sweep_ms,omitempty"`
	// Delay is how long who takes the key over from a dead session waits first.
	Delay int64 `json:"delay_ms,omitempty"`
	// Note is what others than the holder say of the key. They may change it while
	// the key is held: the acquisition stays as it is, and its holder adopts the
	// note.
	Note []byte `json:"note,omitempty"`
	// Queue is who waits for the key (R20).
	Queue Queue `json:"queue,omitempty"`
	// Until marks a row that is reserved for the first of its queue: for how long
	// those who try once leave it to that one.
	Until until `json:"until_ms,omitempty"`
}

// TokenIn is the fencing token of the acquisition that pair shows.
func (r *Lease) TokenIn(pair *kv.KVPair) uint64 {
	if r.Token != 0 {
		return r.Token
	}
	return pair.Version
}

// Options are what a write of the record over previous carries, nil: a create.
func (r *Lease) Options(previous *kv.KVPair, attempts kv.CallOption) []kv.WriteOption {
	r.Format = format
	options := make([]kv.WriteOption, 0, 4)
	options = append(options, kv.WithJSON(r.stored()), attempts)
	if previous != nil {
		options = append(options, kv.WithPrevious(previous))
	}
	switch {
	case r.Acq != "":
		options = append(options, kv.WithFields(kv.Fields{AcqField: r.Acq}))
	case r.Sweep > 0:
		options = append(options, kv.WithSweepAfter(time.Duration(r.Sweep)*time.Millisecond))
	case !r.Keep: // reserved
		options = append(options, kv.WithSweepAfter(reservedSweepAfter))
	}
	return options
}

// sweepAfter is when the store may remove the row of a dead session that nobody
// contended for.
const sweepAfter = 7 * 24 * time.Hour

// Options are what a write of the record over previous carries, nil: a create.
func (r *Session) Options(previous *kv.KVPair, attempts kv.CallOption) []kv.WriteOption {
	r.Format = format
	return []kv.WriteOption{kv.WithJSON(r), kv.WithPrevious(previous), kv.WithSweepAfter(sweepAfter), attempts}
}

// DecodeSession reads a session row. What it cannot read is a *kv.FormatError,
// never death (R18).
func DecodeSession(pair *kv.KVPair) (*Session, error) {
	var r Session
	if err := decode(pair, &r); err != nil {
		return nil, err
	}
	if r.Format != format {
		return nil, unknownFormat(pair, r.Format)
	}
	if r.TTL < MinTTL.Milliseconds() || r.TTL > MaxTTL.Milliseconds() {
		return nil, problem(pair, "ttl of %d ms is outside %v to %v", r.TTL, MinTTL, MaxTTL)
	}
	return &r, nil
}

// DecodeLease reads a lease row, with the same rule.
func DecodeLease(pair *kv.KVPair) (*Lease, error) {
	var r Lease
	if err := decode(pair, &r); err != nil {
		return nil, err
	}
	r.read()
	switch {
	case r.Format != format:
		return nil, unknownFormat(pair, r.Format)
	case (r.Session == "") != (r.Acq == ""):
		return nil, problem(pair, "session and acq do not go together")
	case r.Session == "" && !r.Keep && r.Until == 0:
		return nil, problem(pair, "neither a session nor a value to keep")
	}
	r.MaxHold = bounded(r.MaxHold, 0)
	r.Sweep = bounded(r.Sweep, time.Second)
	r.Delay = min(bounded(r.Delay, 0), MaxTTL.Milliseconds())
	return &r, nil
}

// Found is a row of a key as it was read.
type Found struct {
	Pair   *kv.KVPair
	Record *Lease
}

// Rewritten is the record for a write by others than the holder: the token stays
// what it is, though the version rises.
func (f *Found) Rewritten() Lease {
	next := *f.Record
	if next.Session != "" {
		next.Token = next.TokenIn(f.Pair)
	}
	return next
}

// Read decodes a lease row.
func Read(pair *kv.KVPair) (*Found, error) {
	record, err := DecodeLease(pair)
	if err != nil {
		return nil, err
	}
	return &Found{Pair: pair, Record: record}, nil
}

// Carries reports whether a row carries the acquisition id.
func Carries(pair *kv.KVPair, acq string) bool {
	record, err := DecodeLease(pair)
	return err == nil && record.Acq == acq
}

// bounded is a span of milliseconds of a row, 0 or less: none, as one that the
// options allow.
func bounded(ms int64, least time.Duration) int64 {
	if ms <= 0 {
		return 0
	}
	return min(max(ms, least.Milliseconds()), tenYears.Milliseconds())
}

func decode(pair *kv.KVPair, record any) error {
	if err := json.Unmarshal(pair.Bytes(), record); err != nil {
		return problem(pair, "not a record of package lease: %v", err)
	}
	return nil
}

func unknownFormat(pair *kv.KVPair, found int) error {
	return problem(pair, "format %d, this version knows %d", found, format)
}

func problem(pair *kv.KVPair, text string, args ...any) error {
	return &kv.FormatError{Key: pair.Key, Problem: fmt.Sprintf(text, args...)}
}

// CurrentPair extracts from a failed write the pair that stood in its way.
// conflict: the write is known not to be applied.
func CurrentPair(err error) (current *kv.KVPair, conflict bool) {
	var c *kv.ConflictError
	if errors.As(err, &c) {
		return c.Current, true
	}
	var u *kv.UncertainError
	if errors.As(err, &u) {
		return u.Current, false
	}
	return nil, false
}

// RandomID returns n random bytes in hex. Ids are made when they are needed, never
// at init: a snapshot of the process must not give two clones the same one.
func RandomID(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails: crypto/rand ends the program instead
	return hex.EncodeToString(b)
}
