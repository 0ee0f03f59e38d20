package kvtest_test

import (
	"context"
	"iter"
	"time"

	"github.com/dynalock/dynalock/kv"
)

// watching is a store whose watch is spoiled. relay gets each event of a sound
// watch and a function that tells one; both return whether to go on.
type watching struct {
	sound
	relay func() func(event kv.Event, tell func(kv.Event) bool) bool
}

func (s *watching) WatchPrefix(ctx context.Context, prefix string,
	settings kv.WatchSettings) iter.Seq2[kv.Event, error] {
	return func(yield func(kv.Event, error) bool) {
		relay := s.relay()
		for event, err := range kv.WatchByListing(ctx, s.Store, prefix, settings) {
			if err != nil {
				if !yield(kv.Event{}, err) {
					return
				}
				continue
			}
			if !relay(event, func(event kv.Event) bool { return yield(event, nil) }) {
				return
			}
		}
	}
}

// without leaves out the events that drop names.
func without(drop func(event kv.Event, synced bool) bool) func() func(kv.Event, func(kv.Event) bool) bool {
	return func() func(kv.Event, func(kv.Event) bool) bool {
		synced := false
		return func(event kv.Event, tell func(kv.Event) bool) bool {
			synced = synced || event.Type == kv.EventSynced
			return drop(event, synced) || tell(event)
		}
	}
}

// The ways in which a watch is spoiled.
var (
	repeating = func() func(kv.Event, func(kv.Event) bool) bool {
		return func(event kv.Event, tell func(kv.Event) bool) bool {
			first := tell(event)
			return first && tell(event)
		}
	}
	unsynced      = without(func(event kv.Event, _ bool) bool { return event.Type == kv.EventSynced })
	deafToPuts    = without(func(event kv.Event, synced bool) bool { return event.Type == kv.EventPut && synced })
	deafToDeletes = without(func(event kv.Event, _ bool) bool { return event.Type == kv.EventDelete })
	startsSynced  = without(func(event kv.Event, synced bool) bool { return event.Type == kv.EventPut && !synced })

	// deafToExpiry tells deletes, except of pairs that had an expiry.
	deafToExpiry = func() func(kv.Event, func(kv.Event) bool) bool {
		expire := map[string]bool{}
		return func(event kv.Event, tell func(kv.Event) bool) bool {
			if event.Pair != nil {
				expire[event.Key] = !event.Pair.Expires.IsZero()
			}
			return event.Type == kv.EventDelete && expire[event.Key] || tell(event)
		}
	}

	// disordered tells a pair's state once more behind a newer one.
	disordered = func() func(kv.Event, func(kv.Event) bool) bool {
		last := map[string]kv.Event{}
		return func(event kv.Event, tell func(kv.Event) bool) bool {
			before, known := last[event.Key]
			last[event.Key] = event
			return tell(event) && (!known || event.Type == kv.EventSynced || tell(before))
		}
	}

	// restless tells of a key again and again, as if it were deleted and
	// created, and of nothing else.
	restless = func() func(kv.Event, func(kv.Event) bool) bool {
		return func(event kv.Event, tell func(kv.Event) bool) bool {
			if event.Pair == nil {
				return tell(event)
			}
			for version := event.Pair.Version; ; version++ {
				if !tell(kv.Event{Type: kv.EventPut, Key: event.Key, Pair: kv.NewPair(event.Key, version, nil, time.Time{}, nil)}) {
					return false
				}
			}
		}
	}

	// syncedLast tells the synced mark behind the first change, not before it.
	syncedLast = func() func(kv.Event, func(kv.Event) bool) bool {
		var held *kv.Event
		return func(event kv.Event, tell func(kv.Event) bool) bool {
			if event.Type == kv.EventSynced {
				held = &event
				return true
			}
			if held == nil {
				return tell(event)
			}
			mark := *held
			held = nil
			return tell(event) && tell(mark)
		}
	}
)

// leaving leaves a goroutine behind for each watch, until its context ends.
type leaving struct{ sound }

func (s *leaving) WatchPrefix(ctx context.Context, prefix string,
	settings kv.WatchSettings) iter.Seq2[kv.Event, error] {
	return func(yield func(kv.Event, error) bool) {
		go func() { <-ctx.Done() }()
		kv.WatchByListing(ctx, s.Store, prefix, settings)(yield)
	}
}

// endless goes on with its watch behind the context's error, a while.
type endless struct{ sound }

func (s *endless) WatchPrefix(ctx context.Context, prefix string,
	settings kv.WatchSettings) iter.Seq2[kv.Event, error] {
	return func(yield func(kv.Event, error) bool) {
		for event, err := range kv.WatchByListing(ctx, s.Store, prefix, settings) {
			if !yield(event, err) {
				return
			}
		}
		time.Sleep(time.Millisecond)
		yield(kv.Event{Type: kv.EventSynced}, nil)
	}
}
