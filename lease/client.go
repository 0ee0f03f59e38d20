package lease

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/contact"
	"github.com/dynalock/dynalock/internal/lifecycle"
	"github.com/dynalock/dynalock/internal/liveness"
	"github.com/dynalock/dynalock/internal/retry"
	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/internal/seam"
	"github.com/dynalock/dynalock/internal/session"
	"github.com/dynalock/dynalock/kv"
)

// Client is one process's participation. It owns one session at a time, on which
// all its leases depend. Make one per process and share it. It is safe for
// concurrent use. It starts no goroutine and sends nothing before the first
// acquire. Close it when the process ends.
type Client struct {
	settings
	// store is the one that New was given, whose answers contact listens to.
	store   kv.Store
	given   kv.Store
	contact *contact.Contact
	// attempts bounds each attempt of a store call (R3).
	attempts kv.CallOption
	// writeDelay bounds how late after its operation returned a write of unknown
	// outcome may land (S6).
	writeDelay time.Duration
	others     *liveness.Detector
	groups     session.Groups
	events     events
	life       *lifecycle.Lifecycle
	keys       keyTable
	sets       anySets
	// id tells the client from others in keys of recipes. It is made when it is first
	// asked for.
	id func() string

	mu      sync.Mutex
	session *session.Session
	// opening is the attempt to open one that is under way, nil: none.
	opening *opening
	// ending holds the lost sessions whose rows may still be there, with when the
	// loss was noticed.
	ending map[*session.Session]clock.Reading
	// unlanded holds the session rows whose creates have unknown outcomes.
	unlanded map[*session.Unlanded]struct{}
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
	c := &Client{
		settings: s, given: store, attempts: kv.WithAttemptTimeout(s.attemptTimeout()),
		writeDelay: min(max(kv.MaxWriteDelay(store), 0), tenYears),
		life:       lifecycle.New(ErrClosed),
		id:         sync.OnceValue(func() string { return rows.RandomID(8) }),
		ending:     map[*session.Session]clock.Reading{},
		unlanded:   map[*session.Unlanded]struct{}{},
	}
	c.contact = contact.New(c.clock, c.ttl/3, c.warnOfStore)
	c.store = c.contact.Listen(store)
	if c.heartbeats == nil {
		c.heartbeats = c.store
	} else {
		c.heartbeats = c.contact.Listen(c.heartbeats)
	}
	c.keys.init()
	c.others = liveness.New(liveness.Config{
		Store: c.store, Attempts: c.attempts, Clock: c.clock, MaxSkew: c.maxSkew, Soon: c.pollMin, Late: c.pollMax,
		Overdue: func(session, owner string, ttl time.Duration) {
			c.emit(Event{Type: EventSessionOverdue, Session: session, Owner: owner, TTL: ttl})
		},
		Killed: func(session, owner string) {
			c.emit(Event{Type: EventSessionKilled, Session: session, Owner: owner})
		},
	})
	return c, nil
}

// Store returns the store that New was given. Keys that begin with session/ or
// lease/ are this package's.
func (c *Client) Store() kv.Store { return c.given }

// Owner returns the name that WithOwner gave the client, or the one made up for
// it.
func (c *Client) Owner() string { return c.owner }

// Check returns nil if the store answers, or nothing was asked of it. The error
// says that it has answered no request for two TTLs, though some were made, and
// wraps the last failure. It costs nothing: it tells what was seen.
func (c *Client) Check() error {
	if err := c.contact.Check(2 * c.ttl); err != nil {
		return fmt.Errorf("lease: %w", err)
	}
	return nil
}

// warnOfStore logs that the store does not answer.
func (c *Client) warnOfStore(lasts time.Duration, err error) {
	c.life.StartForeign(func(ctx context.Context) {
		c.log.LogAttrs(ctx, slog.LevelWarn, "lease: the store does not answer",
			slog.Duration("lasts", lasts), slog.Any("error", err))
	})
}

// untilKnown calls write until it returns nil or ctx ends. Between failures it
// pauses for 100 ms to 30 s.
func (c *Client) untilKnown(ctx context.Context, write func() error) error {
	return retry.UntilKnown(ctx, c.clock, write)
}

// What the recipes may know.
func init() {
	seam.Private = AcquireOption(func(a *acquireSettings) error {
		a.private = true
		return nil
	})
	seam.NoTurn = AcquireOption(func(a *acquireSettings) error {
		a.noTurn = true
		return nil
	})
	seam.ReleaseUnused = func(ctx context.Context, l any) { l.(*Lease).releaseUnused(ctx) }
	seam.Of = func(client any) seam.Client {
		c := client.(*Client)
		return seam.Client{
			Clock: c.clock, Log: c.log, TTL: c.ttl, Heartbeat: c.heartbeat, AttemptTimeout: c.attemptTimeout(),
			PollMin: c.pollMin, PollMax: c.pollMax, RefusedLimit: c.refusedLimit, Met: c.contact.Met,
			ID: c.id,
			Begin: func(ctx context.Context) (context.Context, func(), error) {
				ctx, use, err := c.life.Begin(ctx)
				if err != nil {
					return nil, nil, err
				}
				return ctx, use.End, nil
			},
			Go: c.life.Go,
			Emit: func(event any) {
				e := event.(Event)
				e.quiet = true
				c.emit(e)
			},
		}
	}
}
