package web

import (
	"context"
	"sync"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
)

// readTimeout bounds one reading: a store that does not answer is an answer, too.
const readTimeout = 10 * time.Second

// feed reads one thing for all who look at it. It has no goroutine: whoever finds
// what was read too old reads it again, and the others wait for that. So it costs
// the same for one viewer as for many, and nothing when nobody looks.
type feed[T any] struct {
	clock clock.Clock
	read  func(ctx context.Context) (T, error)
	// every is how long what was read is good for.
	every func(T) time.Duration
	// slot is held by whoever reads.
	slot chan struct{}

	mu   sync.Mutex
	last reading[T]
}

// reading is what a feed has.
type reading[T any] struct {
	// value was received at. It is zero if nothing was read yet.
	value T
	at    clock.Reading
	// tried is when the latest attempt ended. err says why it failed, nil: it did
	// not, and since is when the first of the failures in a row ended.
	tried, since clock.Reading
	err          error
	// next is for how long there is nothing newer.
	next time.Duration
}

func newFeed[T any](c clock.Clock, every func(T) time.Duration, read func(context.Context) (T, error)) *feed[T] {
	return &feed[T]{clock: c, read: read, every: every, slot: make(chan struct{}, 1)}
}

// current returns what was read lately, by somebody else or now. An error is ctx's:
// what the store answers is in the reading.
func (f *feed[T]) current(ctx context.Context) (reading[T], error) {
	if r := f.latest(); r.next > 0 {
		return r, nil
	}
	select {
	case f.slot <- struct{}{}:
		defer func() { <-f.slot }()
	case <-ctx.Done():
		return reading[T]{}, context.Cause(ctx)
	}
	if r := f.latest(); r.next > 0 {
		return r, nil
	}
	limited, cancel := f.clock.WithTimeout(ctx, readTimeout)
	defer cancel()
	value, err := f.read(limited)
	if ctx.Err() != nil {
		return reading[T]{}, context.Cause(ctx) // it says nothing of the store
	}
	f.note(value, err)
	return f.latest(), nil
}

// note notes how an attempt ended.
func (f *feed[T]) note(value T, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.clock.Now()
	f.last.tried = now
	switch {
	case err == nil:
		f.last.value, f.last.at = value, now
	case f.last.err == nil:
		f.last.since = now
	}
	f.last.err = err
}

// latest is what was read last, and for how long it is good.
func (f *feed[T]) latest() reading[T] {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.last
	if !r.tried.IsZero() {
		r.next = f.every(r.value) - f.clock.Now().MonotonicSince(r.tried)
	}
	return r
}

// maxFeeds bounds how many things of one kind are remembered.
const maxFeeds = 100

// feeds are the feeds of things that have names.
type feeds[T any] struct {
	make func(name string) *feed[T]

	mu     sync.Mutex
	byName map[string]*feed[T]
}

// of returns the feed of name. When there are too many, it forgets those that nobody
// looks at, or else any: then those who look share it no more.
func (s *feeds[T]) of(name string) *feed[T] {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f, ok := s.byName[name]; ok {
		return f
	}
	for old, f := range s.byName {
		if len(s.byName) >= maxFeeds && f.latest().next <= 0 {
			delete(s.byName, old)
		}
	}
	for old := range s.byName {
		if len(s.byName) < maxFeeds {
			break
		}
		delete(s.byName, old)
	}
	if s.byName == nil {
		s.byName = map[string]*feed[T]{}
	}
	f := s.make(name)
	s.byName[name] = f
	return f
}
