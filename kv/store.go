package kv

import (
	"context"
	"time"
)

// Limits of every driver, in bytes. They are DynamoDB's: a sort key of 1,024 bytes and an item of
// 400 KiB, of which 4 KiB are left to the driver's own attributes.
const (
	MaxKeySize  = 1024
	MaxPairSize = 396 << 10
)

// MaxTTL is the longest time of [WithTTL] and [WithSweepAfter], on every
// driver: 100 years of 365 days.
const MaxTTL = 100 * 365 * 24 * time.Hour

// Store holds pairs. The package comment says what its methods have in common (S1 to S6).
//
// A Store is safe for concurrent use. Pairs that it returns are the caller's to keep and change;
// bytes that it is given may be changed once the method has returned. Every method refuses an
// invalid key ([ErrInvalidKey]) and an option that it cannot honour ([ErrInvalidOption],
// [ErrUnsupported]) before any request, and returns an error that matches ctx.Err() when ctx ends:
// for a write that may have been sent, one that matches [ErrUncertain] too. A closed
// store returns [ErrClosed].
type Store interface {
	// Put writes a pair whatever was there before. Without a value option the
	// value is empty. Without WithTTL or WithKeepTTL an earlier expiry is
	// cleared. Given fields are merged into the pair's fields, the others stay.
	// It costs one write; on DynamoDB a second one over a pair that has expired
	// or was deleted by Delete.
	//
	// It depends on nothing, so nothing stops it: one that was sent again, or was late on
	// the wire, overwrites what is newer. After a *UncertainError that may still come,
	// until MaxWriteDelay has passed. Where it matters, use AtomicPut.
	Put(ctx context.Context, key string, options ...WriteOption) error

	// Get returns the live pair of key, or a *NotFoundError. It costs one read.
	Get(ctx context.Context, key string, options ...ReadOption) (*KVPair, error)

	// List returns all live pairs whose keys begin with prefix, in the byte order of their
	// keys; none is not an error. The empty prefix lists everything. It is not a snapshot: a
	// pair that is not written meanwhile is returned exactly once. It costs a read for each
	// page of the store's (DynamoDB: 1 MB) and holds the result in memory: see All for another way.
	List(ctx context.Context, prefix string, options ...ReadOption) ([]*KVPair, error)

	// Delete removes the pair of key, if there is one. It costs one write. Like Put it
	// may come late, over what is newer.
	Delete(ctx context.Context, key string, options ...DeleteOption) error

	// Exists reports whether key has a live pair. It costs what Get costs.
	Exists(ctx context.Context, key string, options ...ReadOption) (bool, error)

	// AtomicPut writes a pair only if the live pair has the version of the one given by
	// WithPrevious or, without that option, only if key has no live pair. It replaces the pair
	// whole, fields included.
	//
	// On success it returns the pair as it is now. A lost race is a *ConflictError that
	// matches ErrKeyExists (without WithPrevious) or ErrKeyModified (with it) and carries the
	// current pair; nothing was written. Only a live pair makes an ErrKeyExists,
	// and the error carries it: a key that is deleted and created over and over
	// while the call looks for a free moment is an ErrThrottled, and nothing was
	// written. *UncertainError: the pair may have been written, now or later.
	// It costs one write, also when the race is lost; on DynamoDB another one each
	// time that the key was deleted meanwhile, or by a machine whose clock is
	// ahead and less long ago than the clocks differ.
	AtomicPut(ctx context.Context, key string, options ...WriteOption) (*KVPair, error)

	// AtomicDelete removes the pair of key only if its version is that of previous. Its errors
	// and its cost are those of AtomicPut with WithPrevious.
	AtomicDelete(ctx context.Context, key string, previous *KVPair, options ...DeleteOption) error

	// ListPage returns one page of what List returns: at most WithLimit live pairs, from the
	// start or from WithStartKey on. It costs one read, more where dead pairs fill a page.
	ListPage(ctx context.Context, prefix string, options ...ReadOption) (*Page, error)
}

// WriteDelayer is implemented by drivers whose writes can land late (S6).
type WriteDelayer interface {
	// MaxWriteDelay returns how long after its sending a write whose outcome is unknown may
	// still be applied. 0: never after the operation has returned.
	MaxWriteDelay() time.Duration
}

// DefaultMaxWriteDelay is assumed of a driver that does not implement [WriteDelayer].
const DefaultMaxWriteDelay = 20 * time.Minute

// MaxWriteDelay returns the write delay of store's driver, through any wrappers.
func MaxWriteDelay(store Store) time.Duration {
	if d, ok := As[WriteDelayer](store); ok {
		return d.MaxWriteDelay()
	}
	return DefaultMaxWriteDelay
}

// Wrapper is implemented by stores that wrap another, such as those that Prefixed and
// Instrument return.
type Wrapper interface {
	// Unwrap returns the store that this one wraps.
	Unwrap() Store
}

// As finds the first store in the chain of wrappers from store to its driver that implements T,
// an optional interface such as [WriteDelayer], as errors.As does with errors.
func As[T any](store Store) (T, bool) {
	for store != nil {
		if t, ok := store.(T); ok {
			return t, true
		}
		w, ok := store.(Wrapper)
		if !ok {
			break
		}
		store = w.Unwrap()
	}
	var zero T
	return zero, false
}
