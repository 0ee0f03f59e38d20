package kv

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// WriteSettings is what the options of a Put or AtomicPut add up to. Drivers
// get it from PutSettings and AtomicPutSettings, which check key, options and
// sizes.
type WriteSettings struct {
	// Value is the value to write. It may be nil for an empty one. The caller may change
	// it once the method has returned.
	Value []byte
	// Text tells that the value was given as text and is UTF-8.
	Text bool
	// TTL is the time to live, 0: for ever, unless KeepTTL.
	TTL time.Duration
	// KeepTTL asks to keep the expiry of the live pair.
	KeepTTL bool
	// Previous is the pair that AtomicPut depends on, nil: the key must have no live pair.
	Previous *KVPair
	// Fields are the pair's fields, a normalized copy.
	Fields Fields
	// SweepAfter is the hint of WithSweepAfter, 0: none.
	SweepAfter time.Duration
	// AttemptTimeout bounds an attempt, 0: the driver's own bound.
	AttemptTimeout time.Duration
	// Urgent: it should not wait behind others while the store throttles.
	Urgent bool
	// Size is what the pair counts towards MaxPairSize.
	Size int

	atomic, fieldsGiven bool
}

// ReadSettings is what the options of a read add up to. Drivers get it from
// GetSettings and ListSettings.
type ReadSettings struct {
	// Eventual allows a read to miss recent writes.
	Eventual bool
	// Limit is the greatest number of pairs to return, 0: no limit (ListPage: the driver's page).
	Limit int
	// StartKey is the token to go on from, not yet parsed: see ParseCursor.
	StartKey string
	// StartAfter is the key to begin behind, "": none. ParseCursor sees to it.
	StartAfter string
	// Descending reverses the order.
	Descending bool
	// WithoutValues leaves out values and fields.
	WithoutValues bool
	// Index names a secondary index, nil: none.
	Index *Index
	// AttemptTimeout bounds an attempt, 0: the driver's own bound.
	AttemptTimeout time.Duration

	listing bool
}

// Index names a secondary index: a local one if PartitionField is empty.
type Index struct {
	Name           string
	PartitionField string
	PartitionValue any
	SortField      string
}

// DeleteSettings is what the options of a Delete or AtomicDelete add up to.
type DeleteSettings struct {
	// AttemptTimeout bounds an attempt, 0: the driver's own bound.
	AttemptTimeout time.Duration
}

// PutSettings checks the arguments of a Put.
func PutSettings(key string, options []WriteOption) (WriteSettings, error) {
	s, err := writeSettings("Put", key, options)
	if err == nil && s.atomic {
		return WriteSettings{}, fmt.Errorf("kv: Put %q: WithPrevious is for AtomicPut: %w", key, ErrUnsupported)
	}
	return s, err
}

// AtomicPutSettings checks the arguments of an AtomicPut.
func AtomicPutSettings(key string, options []WriteOption) (WriteSettings, error) {
	s, err := writeSettings("AtomicPut", key, options)
	if err != nil {
		return WriteSettings{}, err
	}
	if s.KeepTTL && s.Previous == nil {
		return WriteSettings{}, fmt.Errorf("kv: AtomicPut %q: WithKeepTTL needs WithPrevious: %w", key, ErrInvalidOption)
	}
	if s.Previous != nil {
		if err := checkPrevious("AtomicPut", key, s.Previous); err != nil {
			return WriteSettings{}, err
		}
	}
	if s.KeepTTL && !isTime(s.Previous.Expires) {
		return WriteSettings{}, fmt.Errorf(
			"kv: AtomicPut %q: WithKeepTTL: the previous pair expires at %v, want none or the years 1970 to 9999: %w",
			key, s.Previous.Expires, ErrInvalidOption)
	}
	return s, nil
}

// isTime reports whether t is none, or an expiry that every driver can store.
func isTime(t time.Time) bool {
	return t.IsZero() || t.Unix() >= 0 && t.Unix() <= maxExpiry
}

// maxExpiry is the end of the year 9999, in seconds of the Unix epoch.
const maxExpiry = 253402300799

func writeSettings(verb, key string, options []WriteOption) (WriteSettings, error) {
	if err := CheckKey(key); err != nil {
		return WriteSettings{}, err
	}
	var s WriteSettings
	for _, option := range options {
		if err := option.applyWrite(&s); err != nil {
			return WriteSettings{}, fmt.Errorf("kv: %s %q: %w", verb, key, err)
		}
	}
	if s.KeepTTL && s.TTL != 0 {
		return WriteSettings{}, fmt.Errorf("kv: %s %q: WithTTL and WithKeepTTL contradict each other: %w",
			verb, key, ErrInvalidOption)
	}
	if s.Size = len(key) + len(s.Value) + s.Fields.size(); s.Size > MaxPairSize {
		return WriteSettings{}, fmt.Errorf("kv: %s %q: key, value and fields take %d bytes, at most %d fit: %w",
			verb, key, s.Size, MaxPairSize, ErrTooLarge)
	}
	return s, nil
}

// GetSettings checks the arguments of a Get or Exists.
func GetSettings(key string, options []ReadOption) (ReadSettings, error) {
	if err := CheckKey(key); err != nil {
		return ReadSettings{}, err
	}
	s, err := readSettings(key, options)
	if err == nil && s.listing {
		return ReadSettings{}, fmt.Errorf("kv: Get %q: an option is for List and ListPage: %w", key, ErrUnsupported)
	}
	return s, err
}

// ListSettings checks the arguments of a List or ListPage but for the token: see ParseCursor.
func ListSettings(prefix string, options []ReadOption) (ReadSettings, error) {
	if len(prefix) > MaxKeySize || !utf8.ValidString(prefix) {
		return ReadSettings{}, fmt.Errorf("kv: prefix %.40q of %d bytes is not at most %d bytes of UTF-8: %w",
			prefix, len(prefix), MaxKeySize, ErrInvalidKey)
	}
	s, err := readSettings(prefix, options)
	switch {
	case err != nil || s.StartAfter == "":
		return s, err
	case s.Index != nil:
		return ReadSettings{}, fmt.Errorf("kv: WithStartAfter in a listing of index %q: %w", s.Index.Name, ErrUnsupported)
	case !strings.HasPrefix(s.StartAfter, prefix):
		return ReadSettings{}, fmt.Errorf("kv: WithStartAfter(%.40q): want a key that begins with the prefix %.40q: %w",
			s.StartAfter, prefix, ErrInvalidOption)
	}
	return s, nil
}

// readSettings returns its result by value so that a read without options allocates nothing.
func readSettings(key string, options []ReadOption) (ReadSettings, error) {
	if len(options) == 0 {
		return ReadSettings{}, nil
	}
	s := new(ReadSettings)
	for _, option := range options {
		if err := option.applyRead(s); err != nil {
			return ReadSettings{}, fmt.Errorf("kv: reading %q: %w", key, err)
		}
	}
	return *s, nil
}

// CheckDelete checks the arguments of a Delete.
func CheckDelete(key string, options []DeleteOption) (DeleteSettings, error) {
	if err := CheckKey(key); err != nil {
		return DeleteSettings{}, err
	}
	s := new(DeleteSettings)
	for _, option := range options {
		if err := option.applyDelete(s); err != nil {
			return DeleteSettings{}, fmt.Errorf("kv: Delete %q: %w", key, err)
		}
	}
	return *s, nil
}

// CheckAtomicDelete checks the arguments of an AtomicDelete.
func CheckAtomicDelete(key string, previous *KVPair, options []DeleteOption) (DeleteSettings, error) {
	s, err := CheckDelete(key, options)
	if err != nil {
		return DeleteSettings{}, err
	}
	if previous == nil {
		return DeleteSettings{}, fmt.Errorf("kv: AtomicDelete %q: the previous pair is nil, want one that was read: %w",
			key, ErrInvalidOption)
	}
	return s, checkPrevious("AtomicDelete", key, previous)
}

// checkPrevious refuses a pair that cannot be a previous state of key.
func checkPrevious(verb, key string, previous *KVPair) error {
	if previous.Key != key {
		return fmt.Errorf("kv: %s %q: the previous pair is of key %q: %w", verb, key, previous.Key, ErrInvalidOption)
	}
	if previous.Version == 0 {
		return fmt.Errorf("kv: %s %q: the previous pair has version 0, so no store returned it: %w",
			verb, key, ErrInvalidOption)
	}
	return nil
}

// CheckKey returns an error that matches ErrInvalidKey unless key is 1 to
// MaxKeySize bytes of UTF-8.
func CheckKey(key string) error {
	switch {
	case key == "":
		return fmt.Errorf("kv: the key is empty: %w", ErrInvalidKey)
	case len(key) > MaxKeySize:
		return fmt.Errorf("kv: key %.40q… has %d bytes, at most %d are allowed: %w",
			key, len(key), MaxKeySize, ErrInvalidKey)
	case !utf8.ValidString(key):
		return fmt.Errorf("kv: key %q is not UTF-8: %w", key, ErrInvalidKey)
	}
	return nil
}
