package lease

import (
	"context"
	"errors"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
)

// EventType says what an Event tells.
type EventType string

// The types of events. Each names the fields that it carries, beside Time.
const (
	// EventSessionOpened: this client has a session, and can hold leases under
	// it. Session, TTL, Remaining.
	EventSessionOpened EventType = "session opened"
	// EventSessionLost: this client's session ended, and every lease under it.
	// Session, Reason.
	EventSessionLost EventType = "session lost"
	// EventSessionClosed: Close ended the session and freed whatever it held.
	// Session.
	EventSessionClosed EventType = "session closed"
	// EventSessionOverdue: this client has watched the session of another one, whose
	// leases it wants, and seen no heartbeat for two thirds of its TTL. After a TTL
	// and a sixteenth it ends it. It comes once for each silence. Session and Owner
	// are the silent one's, TTL.
	EventSessionOverdue EventType = "session overdue"
	// EventSessionKilled: this client ended the dead session of another one.
	// Session and Owner are the dead one's.
	EventSessionKilled EventType = "session killed"
	// EventHeartbeat: a heartbeat was acknowledged. Session, Remaining, Took.
	EventHeartbeat EventType = "heartbeat"
	// EventJeopardy: a heartbeat failed. Without another one the session is lost
	// in Remaining. Session, Remaining, Took, Err.
	EventJeopardy EventType = "jeopardy"
	// EventWaiting: an Acquire has to wait, for Owner or because of Err. It comes
	// again when one becomes the other. Key, Call, and Owner and Token, or Err.
	EventWaiting EventType = "waiting"
	// EventAcquired: a lease was granted. Key, Token, Session, Owner, Call, Waited,
	// TakenOver.
	EventAcquired EventType = "acquired"
	// EventRefused: a TryAcquire found the key held. Key, Call, Waited, and Owner
	// and Token of who has it.
	EventRefused EventType = "refused"
	// EventGaveUp: a call ended without the key for another reason. Err is that
	// reason. It is nil where the caller's context ended or the client was closed.
	// A grant that came too late to be wanted has an EventAcquired of its own
	// before. Key, Call, Waited, Err.
	EventGaveUp EventType = "gave up"
	// EventReleased: a lease was released. The event comes before the write. Key,
	// Token, Session, Held.
	EventReleased EventType = "released"
	// EventLost: a lease was lost. Key, Token, Session, Held, Reason.
	EventLost EventType = "lost"
)

// Event is something that happened to a client. It is for metrics, logs and
// tests. A lease is lost when its context says so, not when the event comes.
type Event struct {
	// Type says what happened.
	Type EventType
	// Time is when, by this machine's wall clock.
	Time time.Time
	// Session is the id of the session in question.
	Session string
	// Key and Token name the lease.
	Key   string
	Token uint64
	// Owner holds the key, or has the session that is overdue or was killed.
	Owner string
	// Call numbers the calls of Acquire, AcquireAny and their Try forms within a
	// client, from 1. It tells which of them an event is about.
	Call uint64
	// Waited is how long the Acquire or TryAcquire took.
	Waited time.Duration
	// Held is how long the lease was held, from its grant.
	Held time.Duration
	// Took is how long the store took to answer the heartbeat, or to fail it.
	Took time.Duration
	// TTL is that of the session.
	TTL time.Duration
	// Remaining is how long the session is trusted without another heartbeat.
	Remaining time.Duration
	// TakenOver: the key was taken from a dead session.
	TakenOver bool
	// Reason is why it ended.
	Reason Reason
	// Err is what went wrong.
	Err error
	// Dropped counts the events left out before this one, because the observer
	// was too slow.
	Dropped int

	quiet bool // for observers, not for the log
}

// Observer is told of events, one at a time and in order, on a goroutine of its
// own. A slow one misses events, which the next one counts in Dropped. One that
// panics is logged as an error, and told of the next event. Close waits for it,
// so it must not call Close.
type Observer func(Event)

// maxEvents bounds the events that wait for a slow observer.
const maxEvents = 10_000

// events are those that wait to be told.
type events struct {
	mu       sync.Mutex
	queue    []Event
	dropped  int
	draining bool
	// calls is how many there were of Acquire and TryAcquire.
	calls atomic.Uint64
}

// level is at which level an event is logged.
func (e *Event) level() slog.Level {
	switch e.Type {
	case EventSessionLost, EventJeopardy:
		return slog.LevelWarn
	case EventLost:
		return e.Reason.level()
	case EventSessionOverdue, EventSessionKilled:
		return slog.LevelInfo
	case EventAcquired:
		if e.TakenOver {
			return slog.LevelInfo
		}
	case EventWaiting:
		if e.Err != nil {
			return slog.LevelInfo
		}
	}
	return slog.LevelDebug
}

// level is at which level the loss of one lease is logged. That of a session is an
// event of its own.
func (r Reason) level() slog.Level {
	switch r {
	case ReasonRevoked, ReasonBroken, ReasonMaxHold:
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

// attributes are what is known of an event.
func (e *Event) attributes() []slog.Attr {
	var a []slog.Attr
	add := func(known bool, attr slog.Attr) {
		if known {
			a = append(a, attr)
		}
	}
	add(e.Session != "", slog.String("session", e.Session))
	add(e.Key != "", slog.String("key", e.Key))
	add(e.Token != 0, slog.Uint64("token", e.Token))
	add(e.Owner != "", slog.String("owner", e.Owner))
	add(e.Waited != 0, slog.Duration("waited", e.Waited))
	add(e.Held != 0, slog.Duration("held", e.Held))
	add(e.Took != 0, slog.Duration("took", e.Took))
	add(e.TTL != 0, slog.Duration("ttl", e.TTL))
	add(e.Remaining != 0, slog.Duration("remaining", e.Remaining))
	add(e.TakenOver, slog.Bool("taken_over", true))
	add(e.Reason != "", slog.String("reason", string(e.Reason)))
	add(e.Err != nil, slog.Any("error", e.Err))
	return a
}

// emit tells the observer and the log of an event. It does so on a goroutine
// that lasts as long as there is something to tell: neither a heartbeat nor
// anybody's lock waits for user code (R7). The caller may hold no mutex.
func (c *Client) emit(e Event) {
	e.quiet = e.quiet || !c.log.Enabled(context.Background(), e.level())
	if c.observer == nil && e.quiet {
		return
	}
	e.Time = c.clock.Now().Wall
	q := &c.events
	q.mu.Lock()
	if len(q.queue) >= maxEvents {
		q.dropped++
		q.mu.Unlock()
		return
	}
	e.Dropped, q.dropped = q.dropped, 0
	q.queue = append(q.queue, e)
	start := !q.draining
	q.draining = true
	q.mu.Unlock()
	if start {
		c.life.StartForeign(c.drainEvents)
	}
}

// drainEvents drains the queue.
func (c *Client) drainEvents(ctx context.Context) {
	q := &c.events
	for {
		q.mu.Lock()
		batch := q.queue
		q.queue = nil
		q.draining = len(batch) > 0
		q.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		for i := range batch {
			e := &batch[i]
			if !e.quiet {
				c.log.LogAttrs(ctx, e.level(), "lease: "+string(e.Type), e.attributes()...)
			}
			if c.observer != nil {
				c.observe(e)
			}
		}
	}
}

// observe tells the observer of one event. Its panic is no reason to end the
// program, which holds what it holds.
func (c *Client) observe(e *Event) {
	defer func() {
		if p := recover(); p != nil {
			c.log.Error("lease: the observer panicked",
				"event", string(e.Type), "panic", p, "stack", string(debug.Stack()))
		}
	}()
	c.observer(*e)
}

// emitFailure tells how a call ended that did not get its key. over: its context
// had ended.
func (c *Client) emitFailure(key string, call uint64, began clock.Reading, err error, over bool) {
	e := Event{Type: EventGaveUp, Key: key, Call: call, Waited: c.clock.Now().MonotonicSince(began), Err: err}
	held := (*HeldError)(nil)
	switch {
	case over:
		e.Err = nil
	case errors.As(err, &held):
		e.Type, e.Key, e.Owner, e.Token, e.Err = EventRefused, held.Holder.Key, held.Holder.Owner, held.Holder.Token, nil
	}
	c.emit(e)
}

// emitEnd tells, once, how a lease ended: released, or lost.
func (l *Lease) emitEnd(reason Reason, released bool) {
	if !l.emitted.CompareAndSwap(false, true) {
		return
	}
	e := Event{
		Type: EventLost, Key: l.key, Token: l.token, Session: l.session.ID(), Reason: reason,
		Held: l.client.clock.Now().Mono - l.granted,
	}
	if released {
		e.Type, e.Reason = EventReleased, ""
	}
	l.client.emit(e)
}
