package meter

import (
	"strings"
	"sync"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/pool"
)

// Sink takes the measurements. It is called by many goroutines.
type Sink interface {
	// Add changes a counter. By 0 it only makes it known.
	Add(i *Instrument, n int64, labels Labels)
	// Record adds a duration to a histogram.
	Record(i *Instrument, d time.Duration, labels Labels)
}

// MaxNames is how many elections and how many pools are told apart. Those that
// come later are not counted.
const MaxNames = 400

// Meter measures what happens in a process.
type Meter struct {
	sink     Sink
	keyLabel func(key string) string // nil: keys are not labelled

	mu sync.Mutex
	// observers are the clients', for the gauges.
	observers []*observer
	// elections are those that were seen.
	elections map[string]struct{}
	pools     map[string]*poolState
}

// New makes a meter and tells sink the counters that there are.
func New(sink Sink, keyLabel func(key string) string) *Meter {
	m := &Meter{sink: sink, keyLabel: keyLabel, elections: map[string]struct{}{}, pools: map[string]*poolState{}}
	for _, i := range []*Instrument{SessionsOpened, SessionsOverdue, SessionsKilled, HeartbeatFailures, EventsDropped} {
		sink.Add(i, 0, Labels{})
	}
	for _, reason := range []lease.Reason{lease.ReasonExpired, lease.ReasonKilled} {
		sink.Add(SessionsLost, 0, Labels{First: reasonLabel(reason)})
	}
	if keyLabel != nil {
		return m
	}
	for _, i := range []*Instrument{LeasesHeld, AcquiresWaiting, Takeovers} {
		sink.Add(i, 0, Labels{})
	}
	for _, reason := range []lease.Reason{
		lease.ReasonExpired, lease.ReasonKilled, lease.ReasonRevoked, lease.ReasonBroken, lease.ReasonMaxHold,
		lease.ReasonClosed,
	} {
		sink.Add(LeasesLost, 0, Labels{First: reasonLabel(reason)})
	}
	return m
}

// observer is what is known of one client.
type observer struct {
	meter *Meter
	// waiting are the calls that have told that they wait. Meter.mu guards this
	// and what follows.
	waiting map[uint64]struct{}
	// sessions are those that the client has, by id: one, or two for a moment.
	sessions map[string]trust
	// led are the elections that the client leads, with the session that it leads
	// under.
	led map[string]string
}

// trust is what the last heartbeat said.
type trust struct {
	ttl, remaining time.Duration
	at             clock.Reading
}

// left is how long the session is still trusted.
func (t trust) left(now clock.Reading) time.Duration { return max(0, t.remaining-now.Since(t.at)) }

// Observer returns an observer for one client.
func (m *Meter) Observer() lease.Observer {
	o := &observer{
		meter: m, waiting: map[uint64]struct{}{}, sessions: map[string]trust{}, led: map[string]string{},
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.observers = append(m.observers, o)
	return o.observe
}

// label is the label of a key, "" where keys are not labelled.
func (m *Meter) label(key string) string {
	if m.keyLabel == nil {
		return ""
	}
	return m.keyLabel(key)
}

func (o *observer) observe(e lease.Event) {
	key := ""
	if e.Key != "" {
		key = o.meter.label(e.Key) // the user's code, which may take its time
	}
	m := o.meter
	m.mu.Lock()
	defer m.mu.Unlock()
	if e.Dropped > 0 {
		m.sink.Add(EventsDropped, int64(e.Dropped), Labels{})
	}
	switch e.Type {
	case lease.EventWaiting, lease.EventAcquired, lease.EventRefused, lease.EventGaveUp:
		o.call(&e, key)
	case lease.EventReleased, lease.EventLost:
		o.ended(&e, key)
	case pool.EventFailed:
		o.handlerFailed(&e, "failed")
	case pool.EventStuck:
		o.handlerFailed(&e, "stuck")
	default:
		o.session(&e)
	}
}

// call counts a call of Acquire or TryAcquire that waits, or has ended.
func (o *observer) call(e *lease.Event, key string) {
	m := o.meter
	name := m.election(e.Key)
	if e.Type == lease.EventWaiting {
		if _, known := o.waiting[e.Call]; !known {
			o.waiting[e.Call] = struct{}{}
			m.sink.Add(AcquiresWaiting, 1, Labels{Key: key})
		}
		return
	}
	if _, waited := o.waiting[e.Call]; waited {
		delete(o.waiting, e.Call)
		m.sink.Add(AcquiresWaiting, -1, Labels{Key: key})
	}
	outcome := "acquired"
	switch {
	case e.Type == lease.EventRefused:
		outcome = "refused"
	case e.Type == lease.EventGaveUp && e.Err == nil:
		outcome = "gave_up"
	case e.Type == lease.EventGaveUp:
		outcome = "error"
	}
	m.sink.Record(AcquireDuration, e.Waited, Labels{First: outcome, Key: key})
	if e.Type != lease.EventAcquired {
		return
	}
	m.sink.Add(LeasesHeld, 1, Labels{Key: key})
	if e.TakenOver {
		m.sink.Add(Takeovers, 1, Labels{Key: key})
	}
	if name != "" {
		o.led[name] = e.Session
		m.sink.Add(ElectionTransitions, 1, Labels{First: name})
	}
	if p := m.pool(poolOf(e.Key)); p != nil {
		p.held++
	}
}

// ended counts a lease that has ended.
func (o *observer) ended(e *lease.Event, key string) {
	m := o.meter
	reason := "released"
	if e.Type == lease.EventLost {
		reason = reasonLabel(e.Reason)
		m.sink.Add(LeasesLost, 1, Labels{First: reason, Key: key})
	}
	m.sink.Record(HoldDuration, e.Held, Labels{First: reason, Key: key})
	m.sink.Add(LeasesHeld, -1, Labels{Key: key})
	if name := m.election(e.Key); name != "" {
		delete(o.led, name)
	}
	if p := m.pool(poolOf(e.Key)); p != nil {
		p.held--
	}
}

func (o *observer) handlerFailed(e *lease.Event, state string) {
	name := poolOf(e.Key)
	if o.meter.pool(name) != nil {
		o.meter.sink.Add(HandlerFailures, 1, Labels{First: name, Second: state})
	}
}

// session counts what happens to a session.
func (o *observer) session(e *lease.Event) {
	sink := o.meter.sink
	switch e.Type {
	case lease.EventSessionOpened:
		sink.Add(SessionsOpened, 1, Labels{})
		o.sessions[e.Session] = trust{ttl: e.TTL, remaining: e.Remaining, at: toldAt(e)}
	case lease.EventHeartbeat:
		sink.Record(HeartbeatDuration, e.Took, Labels{})
		o.renewed(e)
	case lease.EventJeopardy:
		sink.Add(HeartbeatFailures, 1, Labels{})
		o.renewed(e)
	case lease.EventSessionLost:
		sink.Add(SessionsLost, 1, Labels{First: reasonLabel(e.Reason)})
		delete(o.sessions, e.Session)
	case lease.EventSessionClosed:
		delete(o.sessions, e.Session)
	case lease.EventSessionOverdue:
		sink.Add(SessionsOverdue, 1, Labels{})
	case lease.EventSessionKilled:
		sink.Add(SessionsKilled, 1, Labels{})
	}
}

// renewed notes how long the session is trusted.
func (o *observer) renewed(e *lease.Event) {
	if t, ok := o.sessions[e.Session]; ok {
		t.remaining, t.at = e.Remaining, toldAt(e)
		o.sessions[e.Session] = t
	}
}

// toldAt is when the event was, as far as the wall clock tells. By the other
// clocks it is when the observer was told.
func toldAt(e *lease.Event) clock.Reading {
	now := clock.System.Now()
	now.Wall = e.Time
	return now
}

// election returns the name of the election that a key is of, and makes it
// known. "": none, or one too many.
func (m *Meter) election(key string) string {
	name, ok := strings.CutPrefix(key, rows.ElectionKeys)
	if !ok {
		return ""
	}
	if _, known := m.elections[name]; !known {
		if len(m.elections) >= MaxNames {
			return ""
		}
		m.elections[name] = struct{}{}
		m.sink.Add(ElectionTransitions, 0, Labels{First: name})
	}
	return name
}

// poolOf is the name of the pool whose partition has the key, "" if none has.
func poolOf(key string) string {
	tail, ok := strings.CutPrefix(key, rows.PoolKeys)
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(tail, "/")
	return name
}

// reasonLabel is a reason as the value of an attribute.
func reasonLabel(r lease.Reason) string {
	if r == lease.ReasonMaxHold {
		return "max_hold"
	}
	return string(r)
}

// Gauges reports the gauges as they are now. report must not call the meter.
func (m *Meter) Gauges(report func(i *Instrument, value float64, labels Labels)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := clock.System.Now()
	var worst *trust
	leaders := map[string]int{}
	for _, o := range m.observers {
		for _, t := range o.sessions {
			if worst == nil || t.left(now).Seconds()*worst.ttl.Seconds() < worst.left(now).Seconds()*t.ttl.Seconds() {
				worst = &t
			}
		}
		for name, session := range o.led {
			if t, ok := o.sessions[session]; ok && t.left(now) > 0 {
				leaders[name]++
			}
		}
	}
	if worst != nil {
		report(SessionTrust, worst.left(now).Seconds(), Labels{})
		report(SessionTTL, worst.ttl.Seconds(), Labels{})
	}
	for name := range m.elections {
		report(ElectionLeader, float64(leaders[name]), Labels{First: name})
	}
	for name, p := range m.pools {
		p.gauges(name, now, report)
	}
}
