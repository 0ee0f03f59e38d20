package kv

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
)

// EventType says what an Event tells.
type EventType int

// The types of events.
const (
	// EventPut: the key has the pair.
	EventPut EventType = iota + 1
	// EventDelete: the key has no live pair any more; it was deleted or has expired.
	EventDelete
	// EventSynced: all pairs that were there when the watch began have come. It comes
	// once and has no key.
	EventSynced
)

// String returns the type's name in lower case.
func (t EventType) String() string {
	switch t {
	case EventPut:
		return "put"
	case EventDelete:
		return "delete"
	case EventSynced:
		return "synced"
	}
	return fmt.Sprintf("EventType(%d)", int(t))
}

// Event is what a watch has seen. It belongs to whoever got it.
type Event struct {
	Type EventType
	// Key is the pair's key, "" with EventSynced.
	Key string
	// Pair is the live pair with EventPut, else nil.
	Pair *KVPair
}

// Watch tells what happens to the pairs whose keys begin with prefix:
//
//  1. an EventPut for each live pair;
//  2. one EventSynced;
//  3. changes as they come. Expiry shows as an EventDelete.
//
// The events of one key are in the order of its versions. States that are soon replaced
// may be left out, the latest never is. So a pair that was deleted and created again may
// show as one EventPut.
//
// An error comes with a zero Event. When the caller goes on, so does the watch, and
// misses nothing for it. Four errors are the last: ctx's, ErrClosed, ErrInvalidKey and
// ErrInvalidOption. A watch ends with one of them, or when the caller breaks off. It
// runs while the caller asks for the next event. A slow caller holds up nobody. Each
// iteration starts anew.
//
// A driver that implements [Watcher] watches in its own way. The pairs of others are
// listed over and over, at the price of a List for every WithWatchInterval. A watch
// keeps the key and version of each pair in memory.
func Watch(ctx context.Context, store Store, prefix string, options ...WatchOption) iter.Seq2[Event, error] {
	settings, err := watchSettings(prefix, options)
	if err != nil {
		return func(yield func(Event, error) bool) { yield(Event{}, err) }
	}
	if w, ok := As[Watcher](store); ok {
		return w.WatchPrefix(ctx, prefix, settings)
	}
	return WatchByListing(ctx, store, prefix, settings)
}

// Watcher is implemented by drivers that know of changes without listing, and by
// wrappers that change keys.
type Watcher interface {
	// WatchPrefix does what Watch does. Its arguments have been checked.
	WatchPrefix(ctx context.Context, prefix string, settings WatchSettings) iter.Seq2[Event, error]
}

// WatchSettings is what the options of a Watch add up to.
type WatchSettings struct {
	// Interval is that of WithWatchInterval, 0: the driver's own.
	Interval time.Duration
}

// WatchOption is an option of Watch.
type WatchOption func(*WatchSettings) error

// Bounds and default of WithWatchInterval.
const (
	minWatchInterval     = 10 * time.Millisecond
	maxWatchInterval     = time.Hour
	defaultWatchInterval = time.Second
)

// WithWatchInterval sets how often a store is asked for changes if it does not tell of
// them by itself: 10 ms to 1 h. The default is 1 s, sqlkv's 100 ms. On memkv it has no
// effect.
func WithWatchInterval(d time.Duration) WatchOption {
	return func(s *WatchSettings) error {
		s.Interval = d
		return within("WithWatchInterval", d, minWatchInterval, maxWatchInterval)
	}
}

func watchSettings(prefix string, options []WatchOption) (WatchSettings, error) {
	if _, err := ListSettings(prefix, nil); err != nil {
		return WatchSettings{}, err
	}
	var s WatchSettings
	for _, option := range options {
		if err := option(&s); err != nil {
			return WatchSettings{}, fmt.Errorf("kv: Watch %q: %w", prefix, err)
		}
	}
	return s, nil
}

// WatchByListing is the watch of a driver without one. It waits on the system's clock.
func WatchByListing(ctx context.Context, store Store, prefix string, settings WatchSettings) iter.Seq2[Event, error] {
	interval := settings.Interval
	if interval == 0 {
		interval = defaultWatchInterval
	}
	return WatchListings(ctx,
		func(ctx context.Context) ([]*KVPair, error) { return store.List(ctx, prefix) },
		func(ctx context.Context) error { return clock.Sleep(ctx, clock.System, interval) })
}

// WatchListings makes a watch, for drivers, by comparing listings. list returns the live
// pairs, sorted by key. wait returns when they may have changed since list was called.
// Their errors are the watch's.
func WatchListings(
	ctx context.Context, list func(context.Context) ([]*KVPair, error), wait func(context.Context) error,
) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		known := listing{}
		synced := false
		for {
			pairs, err := list(ctx)
			if err == nil {
				if !known.update(pairs, yield) {
					return
				}
				if !synced && !yield(Event{Type: EventSynced}, nil) {
					return
				}
				synced = true
				err = wait(ctx)
			} else if ctx.Err() == nil && !errors.Is(err, ErrClosed) {
				if !yield(Event{}, err) {
					return
				}
				err = wait(ctx)
			}
			switch {
			case ctx.Err() != nil:
				yield(Event{}, ctx.Err())
				return
			case errors.Is(err, ErrClosed):
				yield(Event{}, err)
				return
			case err != nil && !yield(Event{}, err):
				return
			}
		}
	}
}

// listing is what a watch has told: the version of each live pair.
type listing map[string]uint64

// update tells in what pairs differ from l, and remembers them. It returns false once yield has.
func (l listing) update(pairs []*KVPair, yield func(Event, error) bool) bool {
	present := make(map[string]struct{}, len(pairs))
	for _, pair := range pairs {
		present[pair.Key] = struct{}{}
	}
	var deleted []string
	for key := range l {
		if _, ok := present[key]; !ok {
			deleted = append(deleted, key)
		}
	}
	slices.Sort(deleted)
	for _, key := range deleted {
		delete(l, key)
		if !yield(Event{Type: EventDelete, Key: key}, nil) {
			return false
		}
	}
	for _, pair := range pairs {
		if l[pair.Key] == pair.Version {
			continue
		}
		l[pair.Key] = pair.Version
		if !yield(Event{Type: EventPut, Key: pair.Key, Pair: pair}, nil) {
			return false
		}
	}
	return true
}
