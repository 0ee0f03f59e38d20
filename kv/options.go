package kv

import (
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"
)

// WriteOption is an option of Put and AtomicPut.
type WriteOption interface {
	applyWrite(*WriteSettings) error
}

// ReadOption is an option of Get, Exists, List and ListPage. Those about order,
// paging and indexes are for List and ListPage only: the others refuse them
// with ErrUnsupported.
type ReadOption interface {
	applyRead(*ReadSettings) error
}

// DeleteOption is an option of Delete and AtomicDelete.
type DeleteOption interface {
	applyDelete(*DeleteSettings) error
}

type writeOption func(*WriteSettings) error

func (o writeOption) applyWrite(s *WriteSettings) error { return o(s) }

type readOption func(*ReadSettings) error

func (o readOption) applyRead(s *ReadSettings) error { return o(s) }

// WithBytes sets the value. It is not copied before the method is called.
func WithBytes(value []byte) WriteOption {
	return writeOption(func(s *WriteSettings) error {
		s.Value, s.Text = value, false
		return nil
	})
}

// WithString sets the value. If it is UTF-8, DynamoDB stores it as a string, readable
// in the console.
func WithString(value string) WriteOption {
	return writeOption(func(s *WriteSettings) error {
		s.Value, s.Text = []byte(value), utf8.ValidString(value)
		return nil
	})
}

// WithJSON sets the value to v's JSON. What encoding/json cannot marshal is an ErrInvalidOption.
func WithJSON(v any) WriteOption {
	return writeOption(func(s *WriteSettings) error {
		value, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("WithJSON: %w: %w", ErrInvalidOption, err)
		}
		s.Value, s.Text = value, true
		return nil
	})
}

// within refuses a duration outside its option's bounds.
func within(option string, d, shortest, longest time.Duration) error {
	if d < shortest || d > longest {
		return fmt.Errorf("%s(%v): want %v to %v: %w", option, d, shortest, longest, ErrInvalidOption)
	}
	return nil
}

// WithTTL lets the pair expire ttl after the operation's start, by this
// machine's wall clock. ttl is 1 ms to [MaxTTL] and is cut to whole
// milliseconds. Without it the pair does not expire.
func WithTTL(ttl time.Duration) WriteOption {
	return writeOption(func(s *WriteSettings) error {
		s.TTL = ttl
		return within("WithTTL", ttl, time.Millisecond, MaxTTL)
	})
}

// WithKeepTTL keeps the expiry that the pair has. AtomicPut takes it only together with
// WithPrevious. Put costs a second write when the key has no live pair, or one
// that does not expire and was given to WithSweepAfter.
func WithKeepTTL() WriteOption {
	return writeOption(func(s *WriteSettings) error {
		s.KeepTTL = true
		return nil
	})
}

// WithPrevious makes AtomicPut depend on the pair that the caller has read. nil: on
// there being none, as without this option.
func WithPrevious(previous *KVPair) WriteOption {
	return writeOption(func(s *WriteSettings) error {
		s.Previous, s.atomic = previous, true
		return nil
	})
}

// WithFields sets named values beside the value. Put merges them into those that the
// pair has. AtomicPut replaces all.
func WithFields(fields Fields) WriteOption {
	return writeOption(func(s *WriteSettings) error {
		normalized, err := fields.normalize()
		s.Fields, s.fieldsGiven = normalized, true
		return err
	})
}

// WithSweepAfter allows the driver to remove the pair any time later than d
// after this write, to save room. It is a hint, not an expiry: the pair may as
// well stay, and nothing should depend on it. d is 1 s to [MaxTTL].
func WithSweepAfter(d time.Duration) WriteOption {
	return writeOption(func(s *WriteSettings) error {
		s.SweepAfter = d
		return within("WithSweepAfter", d, time.Second, MaxTTL)
	})
}

// CallOption is an option of every method.
type CallOption interface {
	WriteOption
	ReadOption
	DeleteOption
}

type attemptTimeout time.Duration

// WithAttemptTimeout bounds each attempt of the operation, on drivers that make
// several. d is 10 ms to 1 min, more than 30 s being 30 s. Default: the driver's
// own bound. That of dynamokv is 1 s and what the pair takes at 100 kB/s, and 5 s
// for reads.
func WithAttemptTimeout(d time.Duration) CallOption { return attemptTimeout(d) }

func (d attemptTimeout) check() (time.Duration, error) {
	return time.Duration(d), within("WithAttemptTimeout", time.Duration(d), 10*time.Millisecond, time.Minute)
}

func (d attemptTimeout) applyWrite(s *WriteSettings) (err error) {
	s.AttemptTimeout, err = d.check()
	return err
}

func (d attemptTimeout) applyRead(s *ReadSettings) (err error) {
	s.AttemptTimeout, err = d.check()
	return err
}

func (d attemptTimeout) applyDelete(s *DeleteSettings) (err error) {
	s.AttemptTimeout, err = d.check()
	return err
}

// Urgent marks a write that many things depend on, as a session's heartbeat is. A
// driver whose store throttles sends it before others, and tries again sooner.
// That is dynamokv. Others may ignore it.
func Urgent() WriteOption {
	return writeOption(func(s *WriteSettings) error {
		s.Urgent = true
		return nil
	})
}

// EventuallyConsistent allows a read to miss recent writes. On DynamoDB it costs half.
func EventuallyConsistent() ReadOption {
	return readOption(func(s *ReadSettings) error {
		s.Eventual = true
		return nil
	})
}

// WithLimit bounds how many live pairs List or ListPage returns: at least 1.
func WithLimit(n int) ReadOption {
	return listOption(func(s *ReadSettings) error {
		if n < 1 {
			return fmt.Errorf("WithLimit(%d): want at least 1: %w", n, ErrInvalidOption)
		}
		s.Limit = n
		return nil
	})
}

// WithStartKey continues a listing where a page ended: token is its Next. The prefix and
// the other options must be those of that page, but for the limit. An empty token
// starts at the beginning.
func WithStartKey(token string) ReadOption {
	return listOption(func(s *ReadSettings) error {
		s.StartKey = token
		return nil
	})
}

// WithStartAfter makes a listing begin behind key, in the listing's order, whether or
// not there is such a pair: so it leaves out what is of no interest. key must begin with
// the prefix. A WithStartKey that is not empty goes further, and counts alone. Not for
// indexes.
func WithStartAfter(key string) ReadOption {
	return listOption(func(s *ReadSettings) error {
		s.StartAfter = key
		return CheckKey(key)
	})
}

// Descending reverses the order of a listing.
func Descending() ReadOption {
	return listOption(func(s *ReadSettings) error {
		s.Descending = true
		return nil
	})
}

// WithoutValues leaves values and fields out of a listing. It saves bytes on the wire,
// not units of DynamoDB's bill.
func WithoutValues() ReadOption {
	return listOption(func(s *ReadSettings) error {
		s.WithoutValues = true
		return nil
	})
}

// WithLocalIndex lists by a local secondary index. Prefix and order are of the string
// field that is the index's sort key. The index must project all attributes, else the
// listing fails. DynamoDB only. Elsewhere it is an ErrIndexNotSupported.
func WithLocalIndex(index, sortField string) ReadOption {
	return indexOption(Index{Name: index, SortField: sortField})
}

// WithGlobalIndex lists by a global secondary index: the pairs of this Store whose
// partitionField has partitionValue (a string, []byte or number). Prefix and order are
// of the string field sortField. It is "" for an index without a sort key: then the
// prefix must be empty, and the order is any.
//
// Such a read needs EventuallyConsistent, as there is no other. The index must project
// all attributes. DynamoDB only. Elsewhere it is an ErrIndexNotSupported.
func WithGlobalIndex(index, partitionField string, partitionValue any, sortField string) ReadOption {
	return indexOption(Index{
		Name: index, PartitionField: partitionField, PartitionValue: partitionValue, SortField: sortField,
	})
}

func indexOption(index Index) ReadOption {
	return listOption(func(s *ReadSettings) error {
		if index.Name == "" {
			return fmt.Errorf("an index needs a name: %w", ErrInvalidOption)
		}
		var partitionValue any // the option may be used by several goroutines: it keeps nothing
		if index.PartitionField != "" {
			value, err := normalizeField(index.PartitionValue)
			if err != nil {
				return fmt.Errorf("WithGlobalIndex %q: partition value: %w", index.Name, err)
			}
			partitionValue = value
		}
		if s.Index != nil {
			return fmt.Errorf("indexes %q and %q: want one: %w", s.Index.Name, index.Name, ErrInvalidOption)
		}
		s.Index = &Index{
			Name: index.Name, PartitionField: index.PartitionField, PartitionValue: partitionValue,
			SortField: index.SortField,
		}
		return nil
	})
}

// listOption is a ReadOption that Get and Exists cannot honour.
type listOption func(*ReadSettings) error

func (o listOption) applyRead(s *ReadSettings) error {
	s.listing = true
	return o(s)
}
