package kv

import (
	"errors"
	"fmt"
)

// Errors that the methods of a Store return, to be tested with errors.Is. They
// are disjoint: an error matches one of them at most, and context errors
// besides.
var (
	// ErrKeyNotFound: the key has no live pair.
	ErrKeyNotFound = errors.New("kv: key not found")
	// ErrKeyExists: AtomicPut without a previous pair found a live one, which the
	// ConflictError carries.
	ErrKeyExists = errors.New("kv: key exists")
	// ErrKeyModified: the live pair is not the previous one, or there is none. See ConflictError.
	ErrKeyModified = errors.New("kv: key modified")
	// ErrUncertain: whether the write was applied is not known. See UncertainError.
	ErrUncertain = errors.New("kv: outcome unknown")
	// ErrUnavailable: the store could not be reached, or did not answer a read.
	// Nothing was written. It may work later.
	ErrUnavailable = errors.New("kv: store unavailable")
	// ErrRefused: the store answered, or what is in its place, and will not do it
	// however often it is asked: no permission, no valid credentials, no such
	// table. Nothing was written. Somebody has to mend it first. As long as a store
	// has never answered, it is also what cannot be a store: a certificate that is
	// not trusted, a port that speaks something else.
	ErrRefused = errors.New("kv: refused by the store")
	// ErrClock: this machine's clock is too wrong for the store to work with.
	// Nothing was written. Time mends it, as a clock is set after a suspension.
	ErrClock = errors.New("kv: local clock is wrong")
	// ErrThrottled: there was too much load on the store, or on the key, for every
	// attempt. Nothing was written.
	ErrThrottled = errors.New("kv: throttled")
	// ErrTooLarge: key, value and fields together exceed MaxPairSize. Nothing was sent.
	ErrTooLarge = errors.New("kv: pair too large")
	// ErrInvalidKey: the key is empty, longer than MaxKeySize or not UTF-8. Nothing was sent.
	ErrInvalidKey = errors.New("kv: invalid key")
	// ErrInvalidOption: an option's value is out of bounds, or options contradict each
	// other. Nothing was sent.
	ErrInvalidOption = errors.New("kv: invalid option")
	// ErrReservedField: a field has a name that the drivers use themselves. Nothing was sent.
	ErrReservedField = errors.New("kv: reserved field name")
	// ErrIndexNotSupported: the driver has no secondary indexes. Nothing was sent.
	ErrIndexNotSupported = errors.New("kv: indexes are not supported by this driver")
	// ErrUnsupported: this method, driver or table cannot honour what was asked.
	// Nothing was written.
	ErrUnsupported = errors.New("kv: not supported")
	// ErrFormat: what the store holds under the key is not understood. See
	// FormatError.
	ErrFormat = errors.New("kv: unknown format")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("kv: store closed")
)

// NotFoundError says that a key has no live pair. It matches [ErrKeyNotFound].
type NotFoundError struct {
	Key string
	// Version is that of the tombstone or the expired pair that the store still has, 0
	// if it has neither.
	Version uint64
}

// Error implements error.
func (e *NotFoundError) Error() string { return fmt.Sprintf("kv: key %q not found", e.Key) }

// Unwrap returns ErrKeyNotFound.
func (e *NotFoundError) Unwrap() error { return ErrKeyNotFound }

// ConflictError says that a conditional write was not applied, and why. It matches
// [ErrKeyExists] or [ErrKeyModified].
type ConflictError struct {
	Key string
	// Create tells that the write was an AtomicPut without a previous pair, so that the error
	// matches ErrKeyExists, not ErrKeyModified.
	Create bool
	// Current is the live pair that stood in the way. It is never nil if Create
	// is true. Else nil says that the key has no live pair.
	Current *KVPair
	// Version is that of the store's row, live or not; 0 if it has none.
	Version uint64
}

// Error implements error.
func (e *ConflictError) Error() string {
	switch {
	case e.Current == nil:
		return fmt.Sprintf("kv: key %q has no live pair (another writer was faster)", e.Key)
	case e.Create:
		return fmt.Sprintf("kv: key %q exists at version %d", e.Key, e.Version)
	default:
		return fmt.Sprintf("kv: key %q was modified: it is at version %d", e.Key, e.Version)
	}
}

// Unwrap returns ErrKeyExists or ErrKeyModified.
func (e *ConflictError) Unwrap() error {
	if e.Create {
		return ErrKeyExists
	}
	return ErrKeyModified
}

// UncertainError says that a write may have been applied, or may be until MaxWriteDelay has passed.
// It matches [ErrUncertain] and what Err matches.
type UncertainError struct {
	Key string
	// Current is the live pair that the last attempt was shown, nil if it was shown none.
	Current *KVPair
	// Version is that which the write gives the pair if it is applied, 0 for a blind
	// write. Once the store shows a pair or tombstone of this or a greater version, the
	// write cannot be applied any more.
	Version uint64
	// Err is why the outcome is unknown: the last attempt's error.
	Err error
}

// Error implements error.
func (e *UncertainError) Error() string {
	return fmt.Sprintf("kv: writing %q: outcome unknown: %v", e.Key, e.Err)
}

// Unwrap returns ErrUncertain and the cause.
func (e *UncertainError) Unwrap() []error {
	if e.Err == nil {
		return []error{ErrUncertain}
	}
	return []error{ErrUncertain, e.Err}
}

// FormatError says that whoever reads what the store holds under a key, a driver
// or a package above it, does not understand it: another version or another
// program has written it, or a person. It matches [ErrFormat].
type FormatError struct {
	Key string
	// Problem names what is wrong, for a person.
	Problem string
}

// Error implements error.
func (e *FormatError) Error() string {
	return fmt.Sprintf("kv: row of key %q: %s", e.Key, e.Problem)
}

// Unwrap returns ErrFormat.
func (e *FormatError) Unwrap() error { return ErrFormat }
