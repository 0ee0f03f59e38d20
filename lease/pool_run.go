package lease

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
)

// Run makes this client a member of the pool until ctx ends, and works on the partitions that it gets: each in a goroutine of its own. It joins
// (one write), plans, and goes on while the store does not answer: handlers run for as long as their leases last.
//
// When ctx ends it leaves the pool, asks the handlers to stop, and returns nil when all have and their partitions are given back, one write
// each; the client lives on. It returns nil too when there are partitions and all of them are done (see ErrDone and WithoutEnd); one whose row cannot be
// read is not known to be, and is logged. An error says that the pool could not be joined, that the client was closed (ErrClosed), that the store will never do, or that it failed for longer than
// WithOutageLimit allows; the handlers have returned then, too. Run waits for handlers as long as they take: that none overlaps its successor is worth more than an early return.
//
// A client can be a member of a pool once: a second Run before the first has returned is an error that matches ErrInvalid, as is a Run without a handler.
func (p *Pool) Run(ctx context.Context) error {
	c := p.client
	if p.handle == nil {
		return fmt.Errorf("lease: Run: pool %q has no handler: %w", p.name, ErrInvalid)
	}
	running, use, err := c.life.begin(ctx)
	if err != nil {
		return err
	}
	defer use.end()
	end, ok := p.begin()
	if !ok {
		return fmt.Errorf("lease: Run: this client is a member of pool %q already: %w", p.name, ErrInvalid)
	}
	defer end()
	leave, err := p.join(ctx)
	if err != nil {
		return err
	}
	m := &poolMember{
		Pool: p, values: context.WithoutCancel(ctx), claims: map[string]*claim{}, settled: map[string]settlement{},
		changed: make(chan struct{}, 1), joined: c.clock.Now(), troubles: retry.Pauses(c.clock),
	}
	err = m.run(running)
	leave()
	m.stop()
	if c.life.open.Err() != nil {
		return ErrClosed
	}
	return err
}

// begin notes that a Run goes on, unless one of a pool of this name does.
func (p *Pool) begin() (end func(), ok bool) {
	c := p.client
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pools[p.name] {
		return nil, false
	}
	if c.pools == nil {
		c.pools = map[string]bool{}
	}
	c.pools[p.name] = true
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.pools, p.name)
	}, true
}

// join tells the others that this client is a member, and what they have to know of it.
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
	if p.most > 0 {
		groups = append([]string{p.mostGroup() + strconv.Itoa(p.most)}, groups...)
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

// poolMember is a Run.
type poolMember struct {
	*Pool
	// values are those of Run's context, without its end.
	values context.Context
	joined clock.Reading
	// troubles are the pauses while the pool cannot be listed, since failing; that is zero when all is well.
	troubles *clock.Pauses
	failing  clock.Reading
	// What the last plan was made of and what it says: by name, who should have a partition. self is who this member was then.
	view  *view
	self  string
	owner map[string]string
	// changed gets a word when a claim has ended.
	changed chan struct{}
	wait    sync.WaitGroup

	mu sync.Mutex
	// claims are the partitions that this member has, or is trying to get. settled are those whose claim has ended: what was
	// listed before that, or just after, says nothing about them.
	claims  map[string]*claim
	settled map[string]settlement
	// finished: a partition was done since the last plan. workless is in how many tenths of a plan interval a member that ran out of work looks for
	// more, or for the end, the next time; 0 if it never finished any.
	finished bool
	workless int
}

// settlement is the end of a claim. A listing that shows the row with a version greater than its last has news.
type settlement struct {
	at      clock.Reading
	version uint64
}

// staleness is for how long a listing may not show what this member itself has changed.
const staleness = time.Second

// run plans, and follows the plan, until ctx ends, all is done, or the store will never do.
func (m *poolMember) run(ctx context.Context) error {
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

// untilNext returns in how long to plan again, after an attempt that ended with err, or an error if there is no use in that.
func (m *poolMember) untilNext(err error) (time.Duration, error) {
	now := m.client.clock.Now()
	pause := clock.Spread(m.client.clock, m.interval, 0.1)
	if err == nil {
		m.troubles.Reset()
		m.failing = clock.Reading{}
		if settling := m.settling(); settling > 0 {
			pause = min(pause, settling)
		}
		if !m.view.has(m.self) || m.heldBack() {
			// The session was lost, and may be replaced any time, or its new row
			// was not listed yet; or the listing was too early for what is wanted.
			pause = min(pause, m.interval/10)
		}
		return min(pause, m.view.patience, m.searching()), nil
	}
	if m.failing.IsZero() {
		m.failing = now
	}
	switch lasts := now.MonotonicSince(m.failing); {
	case permanent(err) && !errors.Is(err, kv.ErrFormat):
		return 0, fmt.Errorf("lease: pool %q: %w", m.name, err)
	case m.outage > 0 && lasts > m.outage:
		return 0, fmt.Errorf("lease: pool %q: cannot be listed for %v: %w", m.name, lasts.Round(time.Second), err)
	}
	m.report(slog.LevelWarn, "the pool cannot be listed", "error", err)
	return min(pause, m.troubles.NextBackOff()), nil
}

// heldBack reports whether the plan gives this member partitions that it does
// not try to get yet, since their last claims have only just ended.
func (m *poolMember) heldBack() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name := range m.settled {
		if m.self != "" && m.owner[name] == m.self && m.claims[name] == nil {
			return true
		}
	}
	return false
}

// settling is for how much longer this member is new: others that start with it may not have shown themselves yet.
func (m *poolMember) settling() time.Duration {
	return m.interval/10 - m.client.clock.Now().MonotonicSince(m.joined)
}

// searching bounds the pause after a plan that found a member without work which has finished all that it had: at first a tenth of the plan interval, and
// twice as long each time, so that it learns of the end of a batch about as late as it has waited for it.
func (m *poolMember) searching() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	bounded := 0 < m.workless && m.workless <= 10
	for _, c := range m.claims {
		bounded = bounded && c.lease == nil
	}
	if !bounded {
		return 2 * m.interval // longer than any pause
	}
	defer func() { m.workless *= 2 }()
	return time.Duration(m.workless) * m.interval / 10
}

// plan looks at the pool and makes the plan. It reports whether all partitions are done.
func (m *poolMember) plan(ctx context.Context) (ended bool, err error) {
	var known []partitionRow
	if m.view != nil {
		known = m.view.rows
	}
	v, err := m.look(ctx, known)
	if err != nil {
		return false, err
	}
	if v.done() && !m.endless {
		strong, err := m.listRows(ctx, v.rows) // one that was just added may not have shown
		if err != nil || strong.done() {
			return err == nil, err
		}
	}
	m.view, m.self = v, m.client.sessionID()
	m.mu.Lock()
	m.finished = false
	maps.DeleteFunc(m.settled, func(_ string, s settlement) bool { return v.began.MonotonicSince(s.at) > staleness })
	for _, r := range v.rows {
		if s, ok := m.settled[r.name]; ok && r.pair.Version > s.version {
			delete(m.settled, r.name)
		}
	}
	m.mu.Unlock()
	m.assign()
	return false, nil
}

// assign calls the planner with what was listed, but for what this member knows better.
func (m *poolMember) assign() {
	var partitions []planPartition
	m.mu.Lock()
	for _, r := range m.view.rows {
		if r.record.Partition.idle() {
			continue
		}
		owner := r.record.Session
		switch c := m.claims[r.name]; {
		case c != nil && c.lease != nil:
			owner = m.self
		case owner == m.self:
			owner = ""
		}
		partitions = append(partitions, planPartition{name: r.name, weight: r.record.Partition.weight(), owner: owner})
	}
	m.mu.Unlock()
	owners := plan(m.view.members, partitions)
	m.owner = make(map[string]string, len(partitions))
	for i, p := range partitions {
		m.owner[p.name] = owners[i]
	}
}

// follow does what the plan says, step by step as claims end, until it is time for the next one. It reports whether to go on.
func (m *poolMember) follow(ctx context.Context, pause time.Duration) bool {
	began := m.client.clock.Now()
	t := m.client.clock.NewTimer(pause)
	defer func() { t.Stop() }()
	for {
		if m.view != nil {
			m.reconcile()
		}
		select {
		case <-ctx.Done():
			return false
		case <-t.C():
			return true
		case <-m.changed:
		}
		if m.idle() || m.self != m.client.sessionID() {
			// There may be more to do, or nothing for anybody; or the old session is lost, and the new one may take.
			t.Stop()
			t = m.client.clock.NewTimer(max(min(pause, m.interval/10)-m.client.clock.Now().MonotonicSince(began), 0))
		}
	}
}

// idle reports whether this member has finished what it had.
func (m *poolMember) idle() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.finished && len(m.claims) == 0
}

// stop ends all claims and waits for them.
func (m *poolMember) stop() {
	m.mu.Lock()
	for _, c := range m.claims {
		c.quit(false)
	}
	m.mu.Unlock()
	m.wait.Wait()
}
