package lease

import (
	"errors"
	"fmt"
	"time"
)

// Errors that this package returns, to be tested with errors.Is. Errors of the
// store come through wrapped. A row that this version of the package does not
// understand is a *kv.FormatError. Such a row is never taken, killed or thought
// dead (R18).
var (
	// ErrHeld: another acquisition has the key. See HeldError.
	ErrHeld = errors.New("lease: held")
	// ErrLost: the lease was lost, not released. See LostError.
	ErrLost = errors.New("lease: lost")
	// ErrNotHeld: the lease was released.
	ErrNotHeld = errors.New("lease: not held")
	// ErrClosed: the client was closed.
	ErrClosed = errors.New("lease: client closed")
	// ErrChanged: the row of a key is not any more what it was when it was read.
	// Nothing was written.
	ErrChanged = errors.New("lease: changed since it was read")
	// ErrInvalid: an argument or option is out of bounds. Nothing was sent.
	ErrInvalid = errors.New("lease: invalid argument")
)

// HeldError says that a key is held, or reserved for somebody who waits for it
// (see WithTurnAfter). It matches [ErrHeld].
type HeldError struct {
	// Holder is who has it. See Holder.Reserved.
	Holder Holder
	// Holders are those of all keys, from AcquireAny and TryAcquireAny, else nil.
	Holders []Holder
}

// Error implements error.
func (e *HeldError) Error() string {
	text := fmt.Sprintf("%q is held by %s (token %d)", e.Holder.Key, e.Holder.Owner, e.Holder.Token)
	if next := e.Holder.Reserved(); next != nil {
		text = fmt.Sprintf("%q is reserved for %s, who waits", e.Holder.Key, next.Owner)
	}
	if len(e.Holders) > 1 {
		return fmt.Sprintf("lease: all of %d keys are held: %s", len(e.Holders), text)
	}
	return "lease: " + text
}

// Unwrap returns ErrHeld.
func (e *HeldError) Unwrap() error { return ErrHeld }

// WaitError says that a wait for a key ended with its context. It matches what
// Err and Trouble match, and [ErrHeld] if somebody held the key.
type WaitError struct {
	// Key is the key.
	Key string
	// Waited is how long the call took.
	Waited time.Duration
	// Holder is who had the key when it was last looked at, nil if nobody was seen
	// to have it.
	Holder *Holder
	// Holders are, from AcquireAny, who had the keys, Holder first.
	Holders []Holder
	// Own: the holder is this client.
	Own bool
	// Silent is for how long no heartbeat of the holder was seen, 0 if this client
	// has not watched it.
	Silent time.Duration
	// Trouble is why the last look at the key failed, nil if it did not.
	Trouble error
	// Err is the end of the context.
	Err error
}

// Error implements error.
func (e *WaitError) Error() string {
	text := fmt.Sprintf("lease: waited %v for %q: %v", e.Waited.Round(time.Millisecond), e.Key, e.Err)
	switch {
	case e.Own:
		text += fmt.Sprintf(" (held by this client, token %d)", e.Holder.Token)
	case e.Holder != nil && e.Holder.Reserved() != nil:
		text += fmt.Sprintf(" (reserved for %s)", e.Holder.Reserved().Owner)
	case e.Holder != nil && e.Silent > 0:
		text += fmt.Sprintf(" (held by %s, token %d, last heartbeat seen %v ago)",
			e.Holder.Owner, e.Holder.Token, e.Silent.Round(time.Millisecond))
	case e.Holder != nil:
		text += fmt.Sprintf(" (held by %s, token %d)", e.Holder.Owner, e.Holder.Token)
	}
	if e.Trouble != nil {
		text += fmt.Sprintf(" (last look at it: %v)", e.Trouble)
	}
	return text
}

// Unwrap returns what the error matches.
func (e *WaitError) Unwrap() []error {
	errs := []error{e.Err}
	if e.Holder != nil {
		errs = append(errs, ErrHeld)
	}
	if e.Trouble != nil {
		errs = append(errs, e.Trouble)
	}
	return errs
}

// Reason says why a lease ended.
type Reason string

// The reasons for which a lease ends (R6).
const (
	// ReasonExpired: no heartbeat was acknowledged until the trust deadline.
	ReasonExpired Reason = "expired"
	// ReasonKilled: another client took the session for dead, or somebody
	// changed or removed the session's row.
	ReasonKilled Reason = "killed"
	// ReasonRevoked: an operator took the lease away, with Break.
	ReasonRevoked Reason = "revoked"
	// ReasonBroken: somebody else changed or removed the lease's row, as Break
	// does with BreakForce.
	ReasonBroken Reason = "broken"
	// ReasonMaxHold: the lease was held for as long as WithMaxHold allows.
	ReasonMaxHold Reason = "max-hold"
	// ReasonReleased: Release was called.
	ReasonReleased Reason = "released"
	// ReasonClosed: the client was closed.
	ReasonClosed Reason = "closed"
)

// LostError is the cause of a lease's context. It matches [ErrNotHeld] if the
// lease was released, else [ErrLost].
type LostError struct {
	// Key is the lease's key. It is empty where the error is about a session.
	Key string
	// Reason is why the lease ended.
	Reason Reason
}

// Error implements error.
func (e *LostError) Error() string {
	switch {
	case e.Reason == ReasonReleased:
		return fmt.Sprintf("lease: %q was released", e.Key)
	case e.Key == "":
		return fmt.Sprintf("lease: session lost: %s", e.Reason)
	default:
		return fmt.Sprintf("lease: %q lost: %s", e.Key, e.Reason)
	}
}

// Unwrap returns ErrNotHeld or ErrLost.
func (e *LostError) Unwrap() error {
	if e.Reason == ReasonReleased {
		return ErrNotHeld
	}
	return ErrLost
}
