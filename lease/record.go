package lease

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/dynalock/dynalock/kv"
)

// Where the rows live. The prefixes are not the user's.
const (
	sessionPrefix = "session/"
	leasePrefix   = "lease/"
)

// format is the only row format there is so far.
const format = 1

// acqField is the field of a lease row that holds its acquisition id, for conditions
// of other writes.
const acqField = "acq"

// sessionRecord is the value of a session row.
type sessionRecord struct {
	Format    int               `json:"f"`
	Owner     string            `json:"owner"`
	TTL       int64             `json:"ttl_ms"`
	Host      string            `json:"host,omitempty"`
	PID       int               `json:"pid,omitempty"`
	Since     time.Time         `json:"since"`
	RenewedAt time.Time         `json:"renewed_at"` // wall clock, for people only
	Metadata  map[string]string `json:"meta,omitempty"`
	Beat      string            `json:"beat"` // 64 random bits of the latest heartbeat
	// Joined are the groups that the client takes part in.
	Joined []string `json:"joined,omitempty"`
	// Revoked are the leases that operators took from it, as key@token.
	Revoked []string `json:"revoked,omitempty"`
}

func (r *sessionRecord) ttl() time.Duration { return time.Duration(r.TTL) * time.Millisecond }

// driftMargin is d of R10, what a contender adds to the row's ttl. It covers clock
// rates that differ by 3 %.
func (r *sessionRecord) driftMargin() time.Duration { return r.ttl() / 16 }

// leaseRecord is the value of a lease row. A row without a session is free and keeps
// its value.
type leaseRecord struct {
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
	// Note is what others than the holder say of the key. They may change it while
	// the key is held: the acquisition stays as it is, and its holder adopts the
	// note.
	Note []byte `json:"note,omitempty"`
}

// token is the fencing token of the acquisition that pair shows.
func (r *leaseRecord) token(pair *kv.KVPair) uint64 {
	if r.Token != 0 {
		return r.Token
	}
	return pair.Version
}

// unowned is the record that frees the row of a record with Keep (R19).
func (r *leaseRecord) unowned() leaseRecord {
	return leaseRecord{Format: format, Keep: true, Value: r.Value, Sweep: r.Sweep, Note: r.Note}
}

// options are what a write of the record over previous carries, nil: a create.
func (r *leaseRecord) options(previous *kv.KVPair, attempts kv.CallOption) []kv.WriteOption {
	options := make([]kv.WriteOption, 0, 4)
	options = append(options, kv.WithJSON(r), attempts)
	if previous != nil {
		options = append(options, kv.WithPrevious(previous))
	}
	switch {
	case r.Acq != "":
		options = append(options, kv.WithFields(kv.Fields{acqField: r.Acq}))
	case r.Sweep > 0:
		options = append(options, kv.WithSweepAfter(time.Duration(r.Sweep)*time.Millisecond))
	}
	return options
}

// decodeSession reads a session row. What it cannot read is a *FormatError, never
// death (R18).
func decodeSession(pair *kv.KVPair) (*sessionRecord, error) {
	var r sessionRecord
	if err := decode(pair, &r); err != nil {
		return nil, err
	}
	if r.Format != format {
		return nil, &FormatError{Row: pair.Key, Problem: fmt.Sprintf("format %d, this version knows %d", r.Format, format)}
	}
	if r.TTL < MinTTL.Milliseconds() || r.TTL > MaxTTL.Milliseconds() {
		problem := fmt.Sprintf("ttl of %d ms is outside %v to %v", r.TTL, MinTTL, MaxTTL)
		return nil, &FormatError{Row: pair.Key, Problem: problem}
	}
	return &r, nil
}

// decodeLease reads a lease row, with the same rule.
func decodeLease(pair *kv.KVPair) (*leaseRecord, error) {
	var r leaseRecord
	if err := decode(pair, &r); err != nil {
		return nil, err
	}
	switch {
	case r.Format != format:
		return nil, &FormatError{Row: pair.Key, Problem: fmt.Sprintf("format %d, this version knows %d", r.Format, format)}
	case (r.Session == "") != (r.Acq == ""):
		return nil, &FormatError{Row: pair.Key, Problem: "session and acq do not go together"}
	case r.Session == "" && !r.Keep:
		return nil, &FormatError{Row: pair.Key, Problem: "neither a session nor a value to keep"}
	}
	r.MaxHold = bounded(r.MaxHold, 0)
	r.Sweep = bounded(r.Sweep, time.Second)
	return &r, nil
}

// found is a row of a key as it was read.
type found struct {
	pair   *kv.KVPair
	record *leaseRecord
}

// readRow decodes a row.
func readRow(pair *kv.KVPair) (*found, error) {
	record, err := decodeLease(pair)
	if err != nil {
		return nil, err
	}
	return &found{pair: pair, record: record}, nil
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
		return &FormatError{Row: pair.Key, Problem: fmt.Sprintf("not a record of package lease: %v", err)}
	}
	return nil
}

// randomID returns n random bytes in hex. Ids are made when they are needed, never
// at init: a snapshot of the process must not give two clones the same one.
func randomID(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails: crypto/rand ends the program instead
	return hex.EncodeToString(b)
}
