// Package contact is what a client knows of how its store answers.
package contact

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/retry"
	"github.com/dynalock/dynalock/kv"
)

// warnEvery is how often a store that does not answer is warned of.
const warnEvery = time.Minute

// Contact listens to the calls of a store. Make one with New.
type Contact struct {
	clock clock.Clock
	// warn is told of failures that last for longer than limit.
	limit time.Duration
	warn  func(lasts time.Duration, err error)
	// met: the store has answered once. failing: it has failed since it last did.
	met, failing atomic.Bool

	mu sync.Mutex
	// err is the last failure, which began at began. The first of those in a row
	// was noted at since, and the last warning given at warned.
	err                  error
	began, since, warned clock.Reading
}

// New makes a Contact. warn is told, once a minute, of failures that go on for
// longer than limit, after the first answer.
func New(c clock.Clock, limit time.Duration, warn func(lasts time.Duration, err error)) *Contact {
	return &Contact{clock: c, limit: limit, warn: warn}
}

// Listen returns store, whose answers Contact listens to from now on.
func (c *Contact) Listen(store kv.Store) kv.Store { return &listened{Store: store, contact: c} }

// listened overrides the methods that a client calls. It is no kv.Instrument,
// which would make a closure for each call.
type listened struct {
	kv.Store
	contact *Contact
}

// Unwrap implements kv.Wrapper.
func (l *listened) Unwrap() kv.Store { return l.Store }

func (l *listened) Get(ctx context.Context, key string, options ...kv.ReadOption) (*kv.KVPair, error) {
	began := l.contact.begin()
	pair, err := l.Store.Get(ctx, key, options...)
	l.contact.note(ctx, began, err)
	return pair, err
}

func (l *listened) ListPage(ctx context.Context, prefix string, options ...kv.ReadOption) (*kv.Page, error) {
	began := l.contact.begin()
	page, err := l.Store.ListPage(ctx, prefix, options...)
	l.contact.note(ctx, began, err)
	return page, err
}

func (l *listened) AtomicPut(ctx context.Context, key string, options ...kv.WriteOption) (*kv.KVPair, error) {
	began := l.contact.begin()
	pair, err := l.Store.AtomicPut(ctx, key, options...)
	l.contact.note(ctx, began, err)
	return pair, err
}

func (l *listened) AtomicDelete(
	ctx context.Context, key string, previous *kv.KVPair, options ...kv.DeleteOption,
) error {
	began := l.contact.begin()
	err := l.Store.AtomicDelete(ctx, key, previous, options...)
	l.contact.note(ctx, began, err)
	return err
}

// begin is when a call begins, which matters until the store has answered.
func (c *Contact) begin() clock.Reading {
	if c.met.Load() {
		return clock.Reading{}
	}
	return c.clock.Now()
}

// note takes the outcome of a call.
func (c *Contact) note(ctx context.Context, began clock.Reading, err error) {
	switch {
	case retry.IsAnswer(err):
		if !c.met.Load() || c.failing.Load() {
			c.answered()
		}
	case retry.IsPermanent(err): // a mistake of the caller's, whatever the store does
	case ctx.Err() != nil && !retry.IsClassified(err): // the caller's time was up
	default:
		c.failed(began, err)
	}
}

func (c *Contact) answered() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.met.Store(true)
	c.failing.Store(false)
	c.err, c.since = nil, clock.Reading{}
}

func (c *Contact) failed(began clock.Reading, err error) {
	now := c.clock.Now()
	c.mu.Lock()
	if c.err == nil {
		c.since = now
	}
	c.err, c.began = err, began
	c.failing.Store(true)
	lasts := now.MonotonicSince(c.since)
	warn := c.met.Load() && lasts >= c.limit &&
		(c.warned.IsZero() || now.MonotonicSince(c.warned) >= warnEvery)
	if warn {
		c.warned = now
	}
	c.mu.Unlock()
	if warn {
		c.warn(lasts, err)
	}
}

// Met reports whether the store has ever answered. Until then nothing says that
// it will.
func (c *Contact) Met() bool { return c.met.Load() }

// Unmet is why a store that never answered has failed since a time, nil if it
// was not tried again.
func (c *Contact) Unmet(since clock.Reading) error {
	if c.met.Load() {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil || c.began.MonotonicSince(since) < 0 {
		return nil
	}
	return c.err
}

// Check returns an error if no request was answered for longer than limit
// while some were made. It says for how long, and wraps the last failure.
func (c *Contact) Check(limit time.Duration) error {
	if !c.failing.Load() {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		return nil
	}
	lasts := c.clock.Now().MonotonicSince(c.since)
	if lasts < limit {
		return nil
	}
	return fmt.Errorf("the store has not answered for %v: %w", lasts.Round(time.Millisecond), c.err)
}
