package pool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/retry"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// Run makes this client a member of the pool until ctx ends, and works on the
// partitions that it gets, each in a goroutine of its own. It joins (one write)
// and plans. It goes on while the store does not answer: handlers run for as long
// as their leases last.
//
// When ctx ends it leaves the pool and asks the handlers to stop. It waits for
// them as long as they take: that none overlaps its successor is worth more than
// an early return. Then it gives their partitions back, one write each. The
// client lives on. Its Close does the same, and waits for Run.
//
//   - nil: ctx ended, or there are partitions and each of them is done or failed
//     (see ErrDone, WithMaxAttempts and WithoutEnd). A partition whose row cannot
//     be read is not known to be done, and is logged.
//   - An error that matches lease.ErrClosed: the client was closed.
//   - An error that matches lease.ErrInvalid: the Pool has no handler, or this
//     client is a member already. It can be one once, also while an earlier Run
//     has not returned.
//   - Any other error: the pool could not be joined, or the store will never do,
//     or it failed for longer than WithOutageLimit allows. The handlers have
//     returned then, too.
func (p *Pool) Run(ctx context.Context) error {
	if p.handle == nil {
		return fmt.Errorf("pool: Run: pool %q has no handler: %w", p.name, lease.ErrInvalid)
	}
	running, end, err := p.parts.Begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	leaveRuns, ok := p.enterRuns()
	if !ok {
		return fmt.Errorf("pool: Run: this client is a member of pool %q already: %w", p.name, lease.ErrInvalid)
	}
	defer leaveRuns()
	leave, err := p.join(ctx)
	if err != nil {
		return err
	}
	m := &member{
		Pool: p, values: context.WithoutCancel(ctx), claims: map[string]*claim{}, released: map[string]release{},
		waits: map[string]int{}, changed: make(chan struct{}, 1), lastAttempt: make(chan struct{}, 1),
		joined: p.clock.Now(), troubles: retry.Pauses(p.clock),
	}
	err = m.run(running)
	leave()
	m.stop()
	if p.client.Context().Err() != nil {
		return lease.ErrClosed
	}
	return err
}

// membership is one client's part in the pool of a name.
type membership struct {
	client *lease.Client
	pool   string
}

// runs are the Runs that go on in this process.
var runs sync.Map // of membership

// enterRuns notes that a Run goes on, unless one of a pool of this name does.
func (p *Pool) enterRuns() (leave func(), ok bool) {
	this := membership{p.client, p.name}
	if _, running := runs.LoadOrStore(this, nil); running {
		return nil, false
	}
	return func() { runs.Delete(this) }, true
}

// join tells the others that this client is a member, and what they have to know
// of it.
func (p *Pool) join(ctx context.Context) (leave func(), err error) {
	p.mu.Lock()
	p.running = true
	cordoned := p.cordoned
	p.mu.Unlock()
	var leaves []func()
	leave = func() { // the pool itself goes first
		p.mu.Lock()
		p.running = false
		if p.uncordon != nil {
			leaves = append([]func(){p.uncordon}, leaves...)
		}
		p.uncordon = nil
		p.mu.Unlock()
		for _, leave := range slices.Backward(leaves) {
			leave()
		}
	}
	groups := []string{p.group()}
	if p.maxPartitions > 0 {
		groups = append([]string{p.maxGroup() + strconv.Itoa(p.maxPartitions)}, groups...)
	}
	if cordoned {
		err = p.tellCordon(ctx)
	}
	for _, group := range groups { // the pool itself comes last: nobody sees a member without its bounds
		if err != nil {
			break
		}
		var one func()
		if one, err = p.client.Join(ctx, group); err == nil {
			leaves = append(leaves, one)
		}
	}
	if err != nil {
		leave()
		return nil, err
	}
	return leave, nil
}

// member is a Run.
type member struct {
	*Pool
	// values are those of Run's context, without its end.
	values context.Context
	joined clock.Reading
	// troubles are the pauses while the pool cannot be listed, since failing. That
	// is zero when all is well.
	troubles *clock.Pauses
	failing  clock.Reading
	// view is what the last plan was made of, and owner what it says: by name, who
	// should have a partition. self is who this member was then.
	view  *view
	self  string
	owner map[string]string
	// changed gets a word when a claim has ended. lastAttempt has room for the one
	// claim that makes the last attempt at its partition.
	changed, lastAttempt chan struct{}
	wait                 sync.WaitGroup

	mu sync.Mutex
	// claims are the partitions that this member has, or is trying to get. released
	// are those whose claim has ended: what was listed before that, or just after,
	// says nothing about them.
	claims   map[string]*claim
	released map[string]release
	// waits counts the claims that wait for a lease, by the session that has it, and
	// moving those that are given to others to keep the load even.
	waits  map[string]int
	moving int
	todo   todo
	// lost: somebody else was faster since the last plan. lostRounds is after how
	// many plans that was so since a claim was won.
	lost       bool
	lostRounds int
	// finished: a partition was done since the last plan. idleRounds is in how many
	// tenths of a plan interval a member that ran out of work looks for more, or for
	// the end, the next time. 0: it never finished any.
	finished   bool
	idleRounds int
}

// release is the end of a claim. A listing that shows the row with a version
// greater than this one has news.
type release struct {
	at      clock.Reading
	version uint64
}

// staleness is for how long a listing may not show what this member itself has
// changed.
const staleness = time.Second

// run plans, and follows the plan, until ctx ends, all is done, or the store will
// never do.
func (m *member) run(ctx context.Context) error {
	for {
		ended, err := m.plan(ctx)
		if ended || ctx.Err() != nil {
			return nil
		}
		pause, err := m.untilNext(err)
		if err != nil {
			return err
		}
		if !m.follow(ctx, pause) {
			return nil
		}
	}
}

// untilNext returns in how long to plan again, after an attempt that ended with
// err, or an error if there is no use in that.
func (m *member) untilNext(err error) (time.Duration, error) {
	now := m.clock.Now()
	pause := clock.Spread(m.clock, m.interval, 0.1)
	if err == nil {
		m.troubles.Reset()
		m.failing = clock.Reading{}
		if left := m.warmingUp(); left > 0 {
			pause = min(pause, left)
		}
		if !m.view.has(m.self) || m.heldBack() {
			// The session was lost, and may be replaced any time, or its new row
			// was not listed yet. Or the listing was too early for what is wanted.
			pause = min(pause, m.interval/10)
		}
		return min(pause, m.view.recheck, m.idlePause()), nil
	}
	if m.failing.IsZero() {
		m.failing = now
	}
	switch lasts := now.MonotonicSince(m.failing); {
	case permanent(err) && !errors.Is(err, kv.ErrFormat):
		return 0, fmt.Errorf("pool: %q: %w", m.name, err)
	case m.outage > 0 && lasts > m.outage:
		return 0, fmt.Errorf("pool: %q cannot be listed for %v: %w", m.name, lasts.Round(time.Second), err)
	}
	m.report(slog.LevelWarn, "the pool cannot be listed", "error", err)
	return min(pause, m.troubles.NextBackOff()), nil
}

// heldBack reports whether the plan gives this member partitions that it does not
// try to get yet, since their last claims have only just ended.
func (m *member) heldBack() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name := range m.released {
		if m.self != "" && m.owner[name] == m.self && m.claims[name] == nil {
			return true
		}
	}
	return false
}

// warmingUp is for how much longer this member is new: others that start with it
// may not have shown themselves yet.
func (m *member) warmingUp() time.Duration {
	return m.interval/10 - m.clock.Now().MonotonicSince(m.joined)
}

// idlePause bounds the pause after a plan that found a member without work which
// has finished all that it had. At first that is a tenth of the plan interval,
// and twice as long each time, so that the member learns of the end of a batch
// about as late as it has waited for it.
func (m *member) idlePause() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	bounded := 0 < m.idleRounds && m.idleRounds <= 10
	for _, c := range m.claims {
		bounded = bounded && c.lease == nil
	}
	if !bounded {
		return 2 * m.interval // longer than any pause
	}
	defer func() { m.idleRounds *= 2 }()
	return time.Duration(m.idleRounds) * m.interval / 10
}

// plan looks at the pool and makes the plan. It reports whether all partitions
// have ended.
func (m *member) plan(ctx context.Context) (ended bool, err error) {
	var known []*row
	if m.view != nil {
		known = m.view.rows
	}
	v, err := m.survey(ctx, known)
	if err != nil {
		return false, err
	}
	if v.ended() && !m.endless {
		strong, err := m.list(ctx, v.rows) // one that was just added may not have shown
		if err != nil || strong.ended() {
			return err == nil, err
		}
	}
	m.view, m.self = v, m.client.Session()
	m.mu.Lock()
	if m.finished = false; m.lost {
		m.lost = false
		m.lostRounds++
	}
	maps.DeleteFunc(m.released, func(_ string, r release) bool { return v.began.MonotonicSince(r.at) > staleness })
	for _, r := range v.rows {
		if last, ok := m.released[r.name]; ok && r.Version > last.version {
			delete(m.released, r.name)
		}
	}
	m.mu.Unlock()
	m.assign()
	return false, nil
}

// assign calls the planner with what was listed, but for what this member knows
// better.
func (m *member) assign() {
	var partitions []planPartition
	m.mu.Lock()
	for _, r := range m.view.rows {
		if r.idle() {
			continue
		}
		owner := r.Session
		switch c := m.claims[r.name]; {
		case c != nil && c.lease != nil:
			owner = m.self
		case owner == m.self:
			owner = ""
		}
		partitions = append(partitions, planPartition{name: r.name, weight: r.marks.weight(), owner: owner})
	}
	m.mu.Unlock()
	owners := plan(m.view.members, partitions)
	m.owner = make(map[string]string, len(partitions))
	for i, p := range partitions {
		m.owner[p.name] = owners[i]
	}
}

// follow does what the plan says, step by step as claims end, until it is time
// for the next one. It reports whether to go on.
func (m *member) follow(ctx context.Context, pause time.Duration) bool {
	began := m.clock.Now()
	t := m.clock.NewTimer(pause)
	defer func() { t.Stop() }()
	if m.view != nil {
		m.reconcile()
	}
	for {
		select {
		case <-ctx.Done():
			return false
		case <-t.C():
			return true
		case <-m.changed:
		}
		if soon := m.goOn(); soon < pause {
			t.Stop()
			t = m.clock.NewTimer(max(soon-m.clock.Now().MonotonicSince(began), 0))
		}
	}
}

// goOn does what the end of a claim lets it do, and returns how long after the last
// plan the next one is worth making.
func (m *member) goOn() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.view != nil {
		m.proceed()
	}
	switch {
	case m.finished && len(m.claims) == 0, m.self != m.client.Session():
		// There may be more to do, or nothing for anybody. Or the old session is
		// lost, and the new one may take.
		return m.interval / 10
	case m.lost:
		// The view was old, or another one than others have. It is old for longer the
		// more often that happens.
		return m.interval / 10 << min(m.lostRounds, 4)
	}
	return m.interval * 2 // longer than any pause
}

// stop ends all claims and waits for them.
func (m *member) stop() {
	m.mu.Lock()
	for _, c := range m.claims {
		c.drain(false)
	}
	m.mu.Unlock()
	m.wait.Wait()
}
