// Package liveness finds out whether the sessions of others are alive, and ends
// those that are proven dead (R10 to R12).
package liveness

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/kv"
)

// maxObservations bounds the memory of other clients' sessions (R11). What is
// forgotten is waited for again.
const maxObservations = 10_000

// Detector is what a client has seen of other sessions. All its keys and calls
// share it (R11). Make one with New.
type Detector struct {
	Config
	mu   sync.Mutex
	byID map[string]*observation
}

// Config is what a Detector needs.
type Config struct {
	Store kv.Store
	// Attempts bounds each attempt of a store call.
	Attempts kv.CallOption
	Clock    clock.Clock
	// MaxSkew is how far wall clocks are off at most. 0: they are not trusted
	// (R12).
	MaxSkew time.Duration
	// Soon is the shortest time after which a session that has just been found
	// alive is worth another look.
	Soon time.Duration
	// Late is how much later than a third of its TTL after a look a session is
	// looked at, at most, where its heartbeat is expected later.
	Late time.Duration
	// Overdue is told of each session that has shown no heartbeat for as long as
	// rows.Session.OverdueAfter says, once for each silence.
	Overdue func(session, owner string, ttl time.Duration)
	// Killed is told of each session that the Detector has ended.
	Killed func(session, owner string)
}

// New makes a Detector.
func New(c Config) *Detector { return &Detector{Config: c, byID: map[string]*observation{}} }

// observation is what was seen of one session. Its fields belong to whoever has
// the slot, so that one goroutine at a time reads a session and kills it.
type observation struct {
	slot chan struct{}
	// dead: a strong read found no live row, or it was deleted, at died. Ids are
	// random and never used again, so that is for ever.
	dead bool
	died clock.Reading
	// version was first seen at first, and last at last, by receipt of the
	// answers.
	version     uint64
	first, last clock.Reading
	// reported: Config.Overdue was told that this version is old.
	reported bool
	// failure is why a look failed at failed. Who waited for it shares it, and
	// does not repeat it in turn.
	failure error
	failed  clock.Reading
	// deadAfter is that of the row. next is how long after last it is worth another
	// look, by its rhythm.
	deadAfter, next time.Duration
	rhythm          rhythm
}

// of returns the observation of a session, forgetting another one if there are
// too many.
func (d *Detector) of(id string) *observation {
	d.mu.Lock()
	defer d.mu.Unlock()
	observed, ok := d.byID[id]
	if !ok {
		for old := range d.byID {
			if len(d.byID) < maxObservations {
				break
			}
			delete(d.byID, old)
		}
		observed = &observation{slot: make(chan struct{}, 1)}
		d.byID[id] = observed
	}
	return observed
}

// Len is how many sessions the Detector remembers.
func (d *Detector) Len() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.byID)
}

// IsDead decides whether a session that a row just read names is dead (R10). If it
// is not, next is when it is worth asking again. It costs a strong read, unless
// one showed it alive and no heartbeat was due since, and a write to kill it.
func (d *Detector) IsDead(ctx context.Context, id string) (dead bool, next time.Duration, err error) {
	observed, asked := d.of(id), d.Clock.Now()
	select {
	case observed.slot <- struct{}{}:
		defer func() { <-observed.slot }()
	case <-ctx.Done():
		return false, 0, context.Cause(ctx)
	}
	switch {
	case observed.dead:
		return true, 0, nil
	case observed.failure != nil && observed.failed.MonotonicSince(asked) > 0:
		return false, 0, observed.failure
	}
	if next := observed.recheckIn(d.Clock.Now()); next > 0 {
		return false, next, nil
	}
	pair, err := d.Store.Get(ctx, rows.SessionPrefix+id, d.Attempts)
	now := d.Clock.Now()
	switch {
	case errors.Is(err, kv.ErrKeyNotFound):
		observed.die(now)
		return true, 0, nil
	case err != nil:
		if ctx.Err() == nil { // else it says something of this caller alone
			observed.failure, observed.failed = err, now
		}
		return false, 0, err
	}
	record, err := rows.DecodeSession(pair)
	if err != nil {
		return false, 0, err
	}
	d.note(id, observed, pair, record, now)
	if now.MonotonicSince(observed.first) < observed.deadAfter && !d.longDead(record, now) {
		return false, observed.recheckIn(now), nil
	}
	if err := d.kill(ctx, id, pair, record, observed); err != nil {
		return false, 0, err
	}
	return observed.dead, max(observed.recheckIn(d.Clock.Now()), d.Soon), nil
}

// Silent is for how long no heartbeat of a session was seen, 0 if it was not
// watched. It waits for nobody.
func (d *Detector) Silent(id string) time.Duration {
	d.mu.Lock()
	observed, ok := d.byID[id]
	d.mu.Unlock()
	if !ok {
		return 0
	}
	select {
	case observed.slot <- struct{}{}:
	default:
		return 0 // somebody asks after it just now
	}
	defer func() { <-observed.slot }()
	if observed.first.IsZero() {
		return 0
	}
	return d.Clock.Now().MonotonicSince(observed.first)
}

// longDead reports whether the wall clocks alone show that the session may be
// killed at once. They are off by no more than MaxSkew (R12).
func (d *Detector) longDead(record *rows.Session, now clock.Reading) bool {
	if d.MaxSkew == 0 || record.RenewedAt.IsZero() {
		return false
	}
	return now.Wall.Sub(record.RenewedAt) > record.DeadAfter()+d.MaxSkew
}

// note notes a pair that was received at now. The time until death counts from
// the receipt of the first read that showed its version.
func (d *Detector) note(id string, s *observation, pair *kv.KVPair, record *rows.Session, now clock.Reading) {
	if pair.Version != s.version {
		s.show(pair.Version, now)
	}
	s.last, s.deadAfter = now, record.DeadAfter()
	d.judge(id, s, record, now)
	deadIn := s.deadAfter - now.MonotonicSince(s.first)
	next := s.rhythm.next(pair.Version, record, now.Wall.Sub(record.RenewedAt), deadIn)
	s.next = min(max(next, d.Soon), record.Lifetime()/3+d.Late)
}

// show notes a heartbeat that was received at now.
func (s *observation) show(version uint64, now clock.Reading) {
	s.version, s.first, s.reported = version, now, false
}

// judge tells, once for each silence, of a session that is overdue.
func (d *Detector) judge(id string, s *observation, record *rows.Session, now clock.Reading) {
	if s.reported || s.dead || now.MonotonicSince(s.first) < record.OverdueAfter() {
		return
	}
	s.reported = true
	d.Overdue(id, record.Owner, record.Lifetime())
}

// recheckIn is how long the session need not be looked at, but not longer than
// until it may be dead.
func (s *observation) recheckIn(now clock.Reading) time.Duration {
	if s.last.IsZero() {
		return 0
	}
	return min(s.next-now.MonotonicSince(s.last), s.deadAfter-now.MonotonicSince(s.first))
}

// kill deletes a session whose version did not change for TTL + d (R10).
// Observation alone proves nothing. This write, on the version observed, proves
// that no heartbeat came since, and prevents any that is late.
func (d *Detector) kill(
	ctx context.Context, id string, pair *kv.KVPair, record *rows.Session, observed *observation,
) error {
	err := d.Store.AtomicDelete(ctx, pair.Key, pair, d.Attempts)
	current, conflict := rows.CurrentPair(err)
	switch {
	case err == nil:
		d.Killed(id, record.Owner)
		observed.die(d.Clock.Now())
	case conflict && current == nil:
		observed.die(d.Clock.Now())
	case current != nil:
		alive, err := rows.DecodeSession(current)
		if err != nil {
			return err
		}
		d.note(id, observed, current, alive, d.Clock.Now())
	default:
		return err
	}
	return nil
}

// Note notes a session row that a listing showed. It returns for how long it has
// to stay as it is to be dead: R10's time counts from the receipt of the first
// read that showed its version, whatever read. That it is alive a listing does
// not tell as a strong read does.
func (d *Detector) Note(id string, pair *kv.KVPair, record *rows.Session) time.Duration {
	observed := d.of(id)
	select {
	case observed.slot <- struct{}{}:
		defer func() { <-observed.slot }()
	default:
		return record.Lifetime() // somebody is just asking
	}
	now := d.Clock.Now()
	if pair.Version > observed.version {
		observed.show(pair.Version, now)
		observed.deadAfter = record.DeadAfter()
	}
	d.judge(id, observed, record, now)
	if d.longDead(record, now) {
		return 0
	}
	return observed.deadAfter - now.MonotonicSince(observed.first)
}

// KnownDead reports whether a session is known to be dead, which a listing may not
// show yet.
func (d *Detector) KnownDead(id string) bool {
	d.mu.Lock()
	observed, ok := d.byID[id]
	d.mu.Unlock()
	if !ok {
		return false
	}
	select {
	case observed.slot <- struct{}{}:
		defer func() { <-observed.slot }()
		return observed.dead
	default:
		return false
	}
}

// MarkDead notes that a session's row is known to be gone.
func (d *Detector) MarkDead(id string) {
	observed := d.of(id)
	observed.slot <- struct{}{} // held for no longer than a store call
	observed.die(d.Clock.Now())
	<-observed.slot
}

// die notes that the session is known to be dead, the first time.
func (s *observation) die(now clock.Reading) {
	if !s.dead {
		s.dead, s.died = true, now
	}
}

// DeadFor is for how long this Detector has known that a session is dead, by the
// monotonic clock, 0 if it does not know it.
func (d *Detector) DeadFor(id string) time.Duration {
	observed := d.of(id)
	observed.slot <- struct{}{} // held for no longer than a store call
	defer func() { <-observed.slot }()
	if !observed.dead {
		return 0
	}
	return d.Clock.Now().MonotonicSince(observed.died)
}
