package pool

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// format is the only format of a partition's value and note there is so far.
const format = 1

// state is what a partition's holder says of it. It is the head of the key's
// value: a line of JSON. The rest is the checkpoint.
type state struct {
	Format int `json:"f"`
	// Done: finished for good. Failed: given up, after Failures attempts.
	Done   bool `json:"done,omitempty"`
	Failed bool `json:"failed,omitempty"`
	// Failures are the attempts in a row that have failed, and Error is why the
	// last one did. Trying: an attempt has begun that has not got on yet. If its
	// holder dies, that is one more.
	Failures int    `json:"failures,omitempty"`
	Error    string `json:"error,omitempty"`
	Trying   bool   `json:"trying,omitempty"`
	// Saved is when the checkpoint was written, by its writer's wall clock, for
	// people only. Zero: there is none.
	Saved time.Time `json:"saved_at,omitzero"`
}

// ended reports whether nobody is to work on the partition unless it is reopened.
func (s state) ended() bool { return s.Done || s.Failed }

// of is s as the state of the partition whose state was old: with its checkpoint.
func (s state) of(old state) state {
	s.Format, s.Saved = old.Format, old.Saved
	return s
}

// maxHead bounds the head of a value, in bytes, and maxError the error in it. A
// byte of that may take six in JSON.
const (
	maxHead  = 2 << 10
	maxError = 256
)

// shorten is the first line of an error, as far as there is room for it.
func shorten(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return strings.ToValidUTF8(line[:min(len(line), maxError)], "")
}

// encode is the value of a partition.
func (s state) encode(checkpoint []byte) []byte {
	s.Format = format
	head, _ := json.Marshal(s) // which cannot fail
	return append(append(head, '\n'), checkpoint...)
}

// decodeState reads the value of a partition. checkpoint is nil if there is none.
func decodeState(value []byte) (s state, checkpoint []byte, err error) {
	head, tail, ok := bytes.Cut(value, []byte("\n"))
	if !ok || json.Unmarshal(head, &s) != nil {
		return s, nil, errors.New("its value is not a partition's")
	}
	if s.Format != format {
		return s, nil, fmt.Errorf("a partition of format %d, this version knows %d", s.Format, format)
	}
	if s.Saved.IsZero() {
		return s, nil, nil
	}
	return s, tail, nil
}

// marks are what operators say of a partition. They are the key's note, none if
// nothing is said.
type marks struct {
	Format int `json:"f"`
	// Paused: nobody is to work on it. Removed: nor ever again, and the row is
	// about to go.
	Paused  bool `json:"paused,omitempty"`
	Removed bool `json:"removed,omitempty"`
	// Weight is what it counts for in balancing, 0: 1.
	Weight int `json:"weight,omitempty"`
}

func (m marks) weight() int { return max(1, m.Weight) }

// encode is the note of a partition.
func (m marks) encode() []byte {
	if m.Weight == 1 {
		m.Weight = 0
	}
	if m == (marks{Format: m.Format}) {
		return nil
	}
	m.Format = format
	note, _ := json.Marshal(m) // which cannot fail
	return note
}

// decodeMarks reads the note of a partition.
func decodeMarks(note []byte) (m marks, err error) {
	if len(note) == 0 {
		return marks{Format: format}, nil
	}
	if err := json.Unmarshal(note, &m); err != nil {
		return m, fmt.Errorf("its note is not a partition's: %w", err)
	}
	if m.Format != format {
		return m, fmt.Errorf("a note of format %d, this version knows %d", m.Format, format)
	}
	return m, nil
}

// row is a partition as its row was read.
type row struct {
	name string
	*lease.Holder
	state      state
	marks      marks
	checkpoint []byte
}

// idle reports whether nobody is to work on the partition.
func (r *row) idle() bool { return r.state.ended() || r.marks.Paused || r.marks.Removed }

// decode reads a partition's row. The error matches kv.ErrFormat.
func decode(name string, h *lease.Holder) (*row, error) {
	r := &row{name: name, Holder: h}
	var err error
	if !h.Kept {
		err = errors.New("it keeps no value")
	}
	if err == nil {
		r.state, r.checkpoint, err = decodeState(h.Value)
	}
	if err == nil {
		r.marks, err = decodeMarks(h.Note)
	}
	if err != nil {
		return nil, &kv.FormatError{Key: rows.LeasePrefix + h.Key, Problem: err.Error()}
	}
	return r, nil
}
