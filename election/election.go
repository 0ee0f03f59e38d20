package election

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/retry"
	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/internal/seam"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// ErrNoLeader says that nobody leads. Errors of package lease and of the store come
// through wrapped.
var ErrNoLeader = errors.New("election: no leader")

// Election is one process's part in an election: as a candidate, as an observer, or
// as both. Make one per name and process, and share it. It is safe for concurrent
// use. It starts no goroutine by itself, and is closed with its client.
type Election struct {
	settings
	client *lease.Client
	name   string
	// watched is the client's store if that tells of changes by itself (kv.Watcher).
	// nil: Observe polls.
	watched kv.Store
	// running is held by the one Run that campaigns or leads.
	running chan struct{}
	// met reports whether the client's store has ever answered.
	met func() bool
	// ttl is that of the client's sessions.
	ttl time.Duration

	mu sync.Mutex
	// terms are those won and not resigned, lost ones among them.
	terms map[*Term]struct{}
}

// New returns the election called name, 1 to MaxNameSize bytes of UTF-8. All
// processes that name it on one store elect one leader. Its lease has the key
// "election/<name>", and its candidates are members of the group of that name. New
// checks its arguments and does no I/O. Its errors match lease.ErrInvalid.
func New(client *lease.Client, name string, options ...Option) (*Election, error) {
	if client == nil {
		return nil, fmt.Errorf("election: New: want a client: %w", lease.ErrInvalid)
	}
	if name == "" || len(name) > MaxNameSize || !utf8.ValidString(name) {
		return nil, fmt.Errorf("election: name %.40q of %d bytes: want 1 to %d bytes of UTF-8: %w",
			name, len(name), MaxNameSize, lease.ErrInvalid)
	}
	s, err := newSettings(options)
	if err != nil {
		return nil, err
	}
	parts := seam.Of(client)
	if s.stepDown < 0 {
		s.stepDown = 2 * parts.PollMax
	}
	e := &Election{
		settings: s, client: client, name: name, running: make(chan struct{}, 1), terms: map[*Term]struct{}{},
		met: parts.Met, ttl: parts.TTL,
	}
	if _, ok := kv.As[kv.Watcher](client.Store()); ok {
		e.watched = client.Store()
	}
	return e, nil
}

// key is the lease's key and the name of the candidates' group.
func (e *Election) key() string { return rows.ElectionKeys + e.name }

// Campaign blocks until this process leads, or ctx is done, or the client is closed.
// value is what others see of the leader, at most lease.MaxValueSize bytes.
//
// On success the caller leads until the term's context ends. It calls Resign when
// its work has stopped, also after a loss. On failure it leads nothing and is no
// candidate. A write of unknown outcome is given back in the background.
//
// A store that fails at the first attempt is an error. An outage that comes later is
// waited out. Campaign costs one write to become a candidate, unless the client opens
// its session for it, and what lease.Client.Acquire costs, then a read per TTL of
// the client: a leader whose row somebody has deleted finds out (see
// lease.WithRowCheck).
func (e *Election) Campaign(ctx context.Context, value []byte) (*Term, error) {
	if err := checkValue("Campaign", value); err != nil {
		return nil, err
	}
	leave, err := e.client.Join(ctx, e.key())
	if err != nil {
		return nil, fmt.Errorf("election: campaigning for %q: %w", e.name, err)
	}
	l, err := e.client.Acquire(ctx, e.key(), lease.WithValue(value), lease.WithRowCheck(e.ttl),
		seam.NoTurn.(lease.AcquireOption))
	if err != nil {
		leave()
		return nil, fmt.Errorf("election: campaigning for %q: %w", e.name, err)
	}
	return e.begin(l, leave), nil
}

// begin makes a term of a lease just acquired.
func (e *Election) begin(l *lease.Lease, leave func()) *Term {
	t := &Term{election: e, lease: l, leave: leave}
	e.mu.Lock()
	e.terms[t] = struct{}{}
	e.mu.Unlock()
	e.log.Info("election: elected", "election", e.name, "token", l.Token(), "takeover", l.TakenOver())
	t.unwatch = context.AfterFunc(l.Context(), t.lost)
	return t
}

// Run campaigns, calls fn when this process leads, and campaigns again when the
// leadership was lost. It goes on until ctx ends or fn returns as leader. fn's
// context ends with ctx. It also ends at the loss of the leadership, by the trust
// deadline at the latest, with a *lease.LostError as its cause.
//
// Leadership is given up after fn has returned, or panicked; then the panic goes on.
// fn is never called while an earlier call has not returned: after a loss Run waits
// for it, and a second Run of this Election waits for the first. Meanwhile others
// lead as soon as the session is proven dead. If fn is not done by the end of the
// grace (WithGrace), that is logged as an error, and Check fails until it is.
//
// Run returns what fn returned, joined with the error of Resign. Work under a lost
// leadership may be done twice, even if fn returned nil. What fn returns after a
// loss is logged, and Run goes on, unless ctx has ended. If ctx ends during a
// campaign, Run returns ctx's cause.
//
// Campaigns that fail are repeated after 100 ms to 5 s, for ever: a restart by a
// supervisor would mend nothing. Check and the log tell of it. A store that has
// never answered the client is not waited for: its first failure ends Run. So do
// errors that waiting does not mend, such as lease.ErrClosed and kv.ErrFormat. A
// nil fn is an error that matches lease.ErrInvalid, before anything is sent.
func (e *Election) Run(ctx context.Context, fn func(ctx context.Context, t *Term) error) error {
	if fn == nil {
		return fmt.Errorf("election: Run: want a function, not nil: %w", lease.ErrInvalid)
	}
	select {
	case e.running <- struct{}{}:
		defer func() { <-e.running }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	for {
		t, err := e.keepCampaigning(ctx)
		if err != nil {
			return err
		}
		if again, err := e.lead(ctx, t, fn); !again {
			return err
		}
		e.stayOut(ctx, t)
	}
}

// stayOut leaves the next term to others, for WithStepDown, if an operator has
// ended this one and another candidate is known: its poll comes later than this
// process's next campaign would.
func (e *Election) stayOut(ctx context.Context, t *Term) {
	lost := &lease.LostError{}
	if !errors.As(t.Err(), &lost) || lost.Reason != lease.ReasonRevoked && lost.Reason != lease.ReasonBroken {
		return
	}
	for m, err := range e.Candidates(ctx) {
		if err == nil && m.Session != e.client.Session() {
			_ = clock.Sleep(ctx, e.clock, e.stepDown)
			return
		}
	}
}

// StepDown ends this process's leadership, as an operator's Break does. The context
// of Run's fn ends, fn has the client's margin to stop, and Run leaves the next
// term to another candidate, if there is one: see WithStepDown. nil: this process
// does not lead. fn may call it with its own context. On an error it leads still.
// It costs what lease.Client.Break costs.
func (e *Election) StepDown(ctx context.Context) error {
	for _, t := range e.open() {
		if !t.Held() {
			continue
		}
		h := &lease.Holder{Key: e.key(), Session: e.client.Session(), Token: t.Token()}
		if err := e.client.Break(ctx, h); err != nil && t.Held() { // else fn's context, which is ctx, has ended
			return fmt.Errorf("election: stepping down from %q: %w", e.name, err)
		}
	}
	return nil
}

// keepCampaigning campaigns until it succeeds, ctx ends or nothing is to be hoped for.
func (e *Election) keepCampaigning(ctx context.Context) (*Term, error) {
	pauses := retry.PausesBetween(e.clock, 100*time.Millisecond, 5*time.Second)
	for {
		t, err := e.Campaign(ctx, e.value)
		switch {
		case ctx.Err() != nil && t != nil:
			return nil, errors.Join(context.Cause(ctx), t.Resign(ctx))
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case err == nil, permanent(err), !e.met():
			return t, err
		}
		e.log.Warn("election: a campaign failed", "election", e.name, "error", err)
		if clock.Sleep(ctx, e.clock, pauses.NextBackOff()) != nil {
			return nil, context.Cause(ctx)
		}
	}
}

// permanent reports whether err is one that campaigning again does not mend.
func permanent(err error) bool {
	return retry.IsPermanent(err, lease.ErrClosed, lease.ErrInvalid)
}

// lead calls fn and then resigns, however fn ended. again: the leadership was lost,
// so campaign again.
func (e *Election) lead(
	ctx context.Context, t *Term, fn func(ctx context.Context, t *Term) error,
) (again bool, err error) {
	defer func() {
		again = ctx.Err() == nil && errors.Is(t.Err(), lease.ErrLost)
		resigned := t.Resign(ctx)
		switch {
		case !again:
			err = errors.Join(err, resigned)
		case err != nil:
			e.log.Warn("election: what fn returned after the loss", "election", e.name, "token", t.Token(), "error", err)
		}
	}()
	led, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(t.Context(), func() { cancel(context.Cause(t.Context())) })
	defer stop()
	return false, fn(led, t)
}

// IsLeader reports whether this process leads. It is computed from the clocks now,
// and never true past the trust deadline. It is no permission to act later: use
// Term.Token for that. No I/O.
func (e *Election) IsLeader() bool { return slices.ContainsFunc(e.open(), (*Term).Held) }

// open returns the terms that were not resigned.
func (e *Election) open() []*Term {
	e.mu.Lock()
	defer e.mu.Unlock()
	terms := make([]*Term, 0, len(e.terms))
	for t := range e.terms {
		terms = append(terms, t)
	}
	return terms
}

// Candidates returns who takes part: the members that campaign or lead. Dead ones
// that nobody has found dead yet may be among them. It costs a listing of all
// sessions.
//
// Errors are as with lease.Client.Members. A session whose row cannot be read may
// be a candidate.
func (e *Election) Candidates(ctx context.Context) iter.Seq2[*lease.Member, error] {
	return func(yield func(*lease.Member, error) bool) {
		for m, err := range e.client.Members(ctx) {
			if err == nil && !slices.Contains(m.Joined, e.key()) {
				continue
			}
			if !yield(m, err) {
				return
			}
		}
	}
}
