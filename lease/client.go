package lease

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/dynalock/dynalock/internal/lifecycle"
	"github.com/dynalock/dynalock/internal/liveness"
	"github.com/dynalock/dynalock/internal/retry"
	"github.com/dynalock/dynalock/internal/session"
	"github.com/dynalock/dynalock/kv"
)

// Client is one process's participation. It owns one session at a time, on which
// all its leases depend. Make one per process and share it. It is safe for
// concurrent use. It starts no goroutine and sends nothing before the first
// acquire. Close it when the process ends.
type Client struct {
	settings
	store kv.Store
	// attempts bounds each attempt of a store call (R3).
	attempts kv.CallOption
	// writeDelay bounds how late after its operation returned a write of unknown
	// outcome may land (S6).
	writeDelay time.Duration
	others     *liveness.Observer
	groups     session.Groups
	events     events
	life       *lifecycle.Lifecycle

	mu      sync.Mutex
	session *session.Session
	// opening is the attempt to open one that is under way, nil: none.
	opening *opening
	// ending holds the lost sessions whose rows may still be there.
	ending map[*session.Session]struct{}
	states map[string]*keyState
	spare  *keyState
	turns  map[string]turn
	// tracked holds the acquisition ids of live leases, writes under way and
	// pending releases, with the lease where there is one. A row that names our
	// session with another id is an orphan of ours (R9.2).
	tracked map[string]*Lease
	// held is, by key, the latest lease that was granted and is covered.
	held map[string]*Lease
	// unresolved looks after writes of unknown outcome, by key (R14).
	unresolved map[string]*resolver
}

// New makes a client of store. It checks the options and does no I/O.
func New(store kv.Store, options ...Option) (*Client, error) {
	if store == nil {
		return nil, fmt.Errorf("lease: New(nil): want a store: %w", ErrInvalid)
	}
	s, err := newSettings(options)
	if err != nil {
		return nil, err
	}
	if s.heartbeats == nil {
		s.heartbeats = store
	}
	c := &Client{
		settings: s, store: store, attempts: kv.WithAttemptTimeout(s.attemptTimeout()),
		writeDelay: min(max(kv.MaxWriteDelay(store), 0), tenYears),
		life:       lifecycle.New(ErrClosed),
		ending:     map[*session.Session]struct{}{}, states: map[string]*keyState{}, turns: map[string]turn{},
		tracked: map[string]*Lease{}, held: map[string]*Lease{}, unresolved: map[string]*resolver{},
	}
	c.others = liveness.New(liveness.Config{
		Store: store, Attempts: c.attempts, Clock: c.clock, MaxSkew: c.maxSkew, Soon: c.pollMin,
		Killed: func(session, owner string) {
			c.emit(Event{Type: EventSessionKilled, Session: session, Owner: owner})
		},
	})
	return c, nil
}

// Store returns the store that New was given. Keys that begin with session/ or
// lease/ are this package's.
func (c *Client) Store() kv.Store { return c.store }

// Owner returns the name that WithOwner gave the client, or the one made up for
// it.
func (c *Client) Owner() string { return c.owner }

// track and uncover keep c.covered. l is nil until the write that makes it is
// known to be applied.
func (c *Client) track(acq string, l *Lease) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tracked[acq] = l
}

func (c *Client) untrack(acq string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.tracked[acq]; l != nil && c.held[l.key] == l {
		delete(c.held, l.key)
	}
	delete(c.tracked, acq)
}

// localHolder returns the lease of this client that has the key or is just giving
// it back, nil if there is none.
func (c *Client) localHolder(key string) *Lease {
	c.mu.Lock()
	l := c.held[key]
	c.mu.Unlock()
	if l == nil {
		return nil
	}
	if lost := l.lost(); lost != nil && lost.Reason != ReasonReleased && lost.Reason != ReasonRevoked && lost.Reason != ReasonMaxHold {
		return nil
	}
	if l.session.Reason() != "" {
		return nil
	}
	return l
}

// leasesOf returns the leases that depend on s and were not released.
func (c *Client) leasesOf(s *session.Session) []*Lease {
	c.mu.Lock()
	defer c.mu.Unlock()
	var leases []*Lease
	for _, l := range c.tracked {
		if l != nil && l.session == s {
			leases = append(leases, l)
		}
	}
	return leases
}

func (c *Client) owns(acq string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.tracked[acq]
	return ok
}

// untilKnown calls write until it returns nil or ctx ends. Between failures it
// pauses for 100 ms to 30 s.
func (c *Client) untilKnown(ctx context.Context, write func() error) error {
	return retry.UntilKnown(ctx, c.clock, write)
}
