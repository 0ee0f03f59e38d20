package lock

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/kv"
)

// Errors of slots that are settled, to be tested with errors.Is. See FinishedError.
var (
	// ErrDone: the slot was run and is done. Only Claim returns it.
	ErrDone = errors.New("lock: slot done")
	// ErrFailed: the slot was run and failed.
	ErrFailed = errors.New("lock: slot failed")
	// ErrAbandoned: the slot was begun. Whoever did so died or lost the lease before
	// its end.
	ErrAbandoned = errors.New("lock: slot abandoned")
)

// State says how far a slot has come.
type State string

// The states of a slot.
const (
	// StateNone: it was never started. It may be claimed.
	StateNone State = ""
	// StateRunning: its function was started and has not returned.
	StateRunning State = "running"
	// StateDone: its function returned nil.
	StateDone State = "done"
	// StateFailed: its function returned an error by itself, panicked or ended its
	// goroutine.
	StateFailed State = "failed"
	// StateAbandoned: it was running, or about to, when its process died, lost
	// the lease or closed its client. Or its function returned an error after its
	// context had ended, so that a job that was stopped politely is no worse off than
	// one that was killed. Or its value is not an outcome.
	StateAbandoned State = "abandoned"
)

// Outcome is what became of a slot. The zero Outcome is that of a slot that was never
// started.
type Outcome struct {
	// State is how far it has come. What follows is about the run that the state is about.
	State State `json:"state"`
	// Token is the run's fencing token, 0 if the run is not known any more,
	// since its function has overwritten the outcome.
	Token uint64 `json:"token"`
	// Owner is the name of the client that ran it, for people.
	Owner string `json:"owner"`
	// Attempt counts the runs, from 1.
	Attempt int `json:"attempt"`
	// Started is when the run was started, by the wall clock of who ran it. Ended is
	// when the outcome was recorded, by the wall clock of who recorded it.
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended,omitzero"`
	// Error is the text of a failed run's error or panic, up to 1 KiB.
	Error string `json:"error,omitempty"`
	// Value is what Run.Finish or OnceValue has left, at most MaxResultSize bytes.
	// nil: nothing.
	Value []byte `json:"value,omitempty"`
}

// FinishedError says that a slot will not be run, since it failed or was abandoned,
// or, from Claim, since it is done. It matches [ErrFailed], [ErrAbandoned] or
// [ErrDone].
type FinishedError struct {
	// Job and Slot name it.
	Job, Slot string
	// Outcome is what became of it.
	Outcome Outcome
}

// Error implements error.
func (e *FinishedError) Error() string {
	text := fmt.Sprintf("lock: slot %q of %q: %s", e.Slot, e.Job, e.Outcome.State)
	if e.Outcome.Token != 0 {
		text += fmt.Sprintf(", begun by %s at %s (token %d)",
			e.Outcome.Owner, e.Outcome.Started.UTC().Format(time.RFC3339), e.Outcome.Token)
	}
	if e.Outcome.Error != "" {
		text += ": " + e.Outcome.Error
	}
	return text
}

// Unwrap returns ErrDone, ErrFailed or ErrAbandoned.
func (e *FinishedError) Unwrap() error {
	switch e.Outcome.State {
	case StateDone:
		return ErrDone
	case StateFailed:
		return ErrFailed
	}
	return ErrAbandoned
}

// maxErrorText is the length in bytes of the longest error text that is kept.
const maxErrorText = 1 << 10

// outcomeFormat is the only format of an outcome there is so far.
const outcomeFormat = 1

// outcomeRecord is the value of a slot's row.
type outcomeRecord struct {
	Format int `json:"f"`
	Outcome
}

// unstarted is the value of a slot that was never started: not an empty one,
// so that a function that empties its slot does not make it look like this.
const unstarted = `{"f":1}`

// overwritten is what is known of a slot whose value is no outcome. Only its
// function can have put one there, with Update or ReleaseWith of the slot's
// lease, or somebody who has no business there: so it counts as started.
var overwritten = Outcome{
	State: StateAbandoned,
	Error: "its value is not an outcome, its function or somebody else has overwritten it",
}

// isOverwritten tells that outcome: every run has a number.
func (o Outcome) isOverwritten() bool { return o.State == StateAbandoned && o.Attempt == 0 }

func (o Outcome) encode() []byte {
	if o.State == StateNone {
		return []byte(unstarted)
	}
	if len(o.Error) > maxErrorText {
		o.Error = strings.ToValidUTF8(o.Error[:maxErrorText], "")
	}
	value, _ := json.Marshal(outcomeRecord{outcomeFormat, o}) // numbers, strings and times of this era
	return value
}

// decodeOutcome reads the value of a slot's row. An error matches
// kv.ErrFormat: another version of this package has written it.
func decodeOutcome(key string, value []byte) (Outcome, error) {
	var r outcomeRecord
	err := json.Unmarshal(value, &r)
	switch {
	case r.Format == 0:
		return overwritten, nil
	case r.Format != outcomeFormat:
		problem := fmt.Sprintf("outcome of format %d, this version knows %d", r.Format, outcomeFormat)
		return Outcome{}, formatError(key, problem)
	case err != nil:
		return Outcome{}, formatError(key, fmt.Sprintf("not an outcome of package lock: %v", err))
	}
	switch r.State {
	case StateNone, StateRunning, StateDone, StateFailed, StateAbandoned:
		return r.Outcome, nil
	}
	return Outcome{}, formatError(key, fmt.Sprintf("unknown state %q", r.State))
}

func formatError(key, problem string) error {
	return &kv.FormatError{Key: rows.LeasePrefix + key, Problem: problem}
}

// Slot names the period that t falls into, by its beginning in UTC. For any time of
// that hour and a period of an hour it is "2026-03-01T04:00:00Z". Periods count from
// the beginning of the year 1, so days begin at midnight and weeks on Mondays, in UTC.
//
// Pass the time for which the work was scheduled. A process may only know when it was
// woken, early or late by the skew of its clock. Then pass that time plus half a
// period: both sides of the boundary between two periods name the same one. A period
// that is not positive gives "", which Do refuses.
func Slot(t time.Time, period time.Duration) string {
	if period <= 0 {
		return ""
	}
	return t.UTC().Truncate(period).Format(time.RFC3339Nano)
}
