package election

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// lookTimeout bounds one look of Observe, so that a store that hangs shows as an error.
const lookTimeout = 5 * time.Second

// idleFactor is how many polls lie between two looks while a watch tells of changes.
const idleFactor = 10

// Leader is a state of the election: who leads, or that nobody does. It is what the
// store said when it was read.
type Leader struct {
	// Token is the leader's fencing token. In a vacancy it is that of the last leader
	// that the reader has seen, 0 if it has seen none.
	Token uint64
	// Member is the leader's process, nil in a vacancy.
	Member *lease.Member
	// Value is what the leader has proclaimed, nil if nothing.
	Value []byte
	// Since is when the leader was elected, by its own wall clock.
	Since time.Time
}

// Vacant reports whether nobody leads.
func (l *Leader) Vacant() bool { return l.Member == nil }

// Leader returns who leads now, or ErrNoLeader. A leader that has died counts as one
// until a candidate has found that out. It costs two strong reads, one in a
// vacancy.
func (e *Election) Leader(ctx context.Context) (*Leader, error) {
	l, err := e.read(ctx, 0)
	if err != nil {
		return nil, err
	}
	if l.Vacant() {
		return nil, fmt.Errorf("%w in %q", ErrNoLeader, e.name)
	}
	return l, nil
}

// look reads the state: the lease, then the leader's session. A session that the
// strong read does not find is dead, which makes a vacancy (R10). seen is the
// greatest token known.
func (e *Election) read(ctx context.Context, known uint64) (*Leader, error) {
	h, err := e.client.Inspect(ctx, e.key())
	switch {
	case err != nil:
		return nil, fmt.Errorf("election: looking for the leader of %q: %w", e.name, err)
	case !h.Held():
		return &Leader{Token: known}, nil
	case h.Token < known:
		return nil, fmt.Errorf("election: %q: the token went back from %d to %d: was the table restored?",
			e.name, known, h.Token)
	case h.Member == nil:
		return &Leader{Token: h.Token}, nil
	}
	return &Leader{Token: h.Token, Member: h.Member, Value: h.Value, Since: h.Acquired}, nil
}

// Observe returns the states of the election: the present one first, then one
// whenever leader, value or vacancy have changed. Tokens never decrease. States that
// are soon replaced may be left out. The latest never is: it comes within a poll.
//
// An observer changes nothing. So a leader that has died is shown as leader while
// nobody campaigns: only candidates find it dead, which makes a vacancy. A leader
// that resigned, or whose client was closed, makes a vacancy at once.
//
// An error comes with a nil Leader. When the caller goes on, so does Observe, and
// misses nothing for it. Observe ends with ctx's error, with one that matches
// kv.ErrClosed, or when the caller breaks off. It runs while the caller asks for the
// next state.
//
// It costs two strong reads per poll, one in a vacancy. On a store that tells of
// changes by itself (memkv, sqlkv, a pgkv.ListeningStore) states are seen sooner, and
// the reads are made after a change and every ten polls.
func (e *Election) Observe(ctx context.Context) iter.Seq2[*Leader, error] {
	return func(yield func(*Leader, error) bool) {
		o := e.newObserver(ctx)
		defer o.close()
		var last *Leader
		for {
			var known uint64
			if last != nil {
				known = last.Token
			}
			l, err := o.read(known)
			switch {
			case ctx.Err() != nil:
				yield(nil, context.Cause(ctx))
				return
			case err != nil:
				if !yield(nil, err) || errors.Is(err, kv.ErrClosed) {
					return
				}
			case !same(last, l):
				last = l
				if !yield(l.clone(), nil) {
					return
				}
			}
			o.wait(last, err != nil)
		}
	}
}

// clone returns a copy that the caller may keep and change.
func (l *Leader) clone() *Leader {
	c := *l
	c.Value = bytes.Clone(l.Value)
	return &c
}

// same reports whether b need not be told after a.
func same(a, b *Leader) bool {
	return a != nil && a.Token == b.Token && a.Vacant() == b.Vacant() && bytes.Equal(a.Value, b.Value)
}

// observer is one iteration of Observe.
type observer struct {
	*Election
	ctx    context.Context
	cancel context.CancelFunc
	// hint has a word when a watch has seen something. It is taken before a look, so
	// that what comes later is not lost.
	hint    chan struct{}
	watches sync.WaitGroup
	// session is the leader's session that is watched, forget ends that.
	session string
	forget  context.CancelFunc
}

func (e *Election) newObserver(ctx context.Context) *observer {
	ctx, cancel := context.WithCancel(ctx)
	o := &observer{Election: e, ctx: ctx, cancel: cancel, hint: make(chan struct{}, 1), forget: func() {}}
	if e.watched != nil {
		o.watch(ctx, rows.LeasePrefix+e.key(), func(kv.Event) bool { return true })
	}
	return o
}

// close ends the watches and waits for them.
func (o *observer) close() {
	o.forget()
	o.cancel()
	o.watches.Wait()
}

// look reads the state once.
func (o *observer) read(known uint64) (*Leader, error) {
	ctx, cancel := o.clock.WithTimeout(o.ctx, lookTimeout)
	defer cancel()
	return o.Election.read(ctx, known)
}

// wait returns when it is time for the next look: after a poll. Where a watch tells
// of changes it is much later, unless the last look failed.
func (o *observer) wait(last *Leader, failed bool) {
	pause := o.poll
	if o.watched != nil {
		o.watchSession(last)
		if !failed {
			pause *= idleFactor
		}
	}
	t := o.clock.NewTimer(clock.Spread(o.clock, pause*9/10, 1.0/9))
	defer t.Stop()
	select {
	case <-t.C():
	case <-o.hint:
	case <-o.ctx.Done():
	}
}

// watchSession watches the leader's session for its end. That makes a vacancy without
// a change of the lease's row.
func (o *observer) watchSession(last *Leader) {
	session := ""
	if last != nil && !last.Vacant() {
		session = last.Member.Session
	}
	if session == o.session {
		return
	}
	o.forget()
	o.session, o.forget = session, func() {}
	if session == "" {
		return
	}
	ctx, cancel := context.WithCancel(o.ctx)
	o.forget = cancel
	o.watch(ctx, rows.SessionPrefix+session, func(event kv.Event) bool {
		return event.Type != kv.EventPut // heartbeats; synced: it may have ended before the watch began
	})
}

// watch leaves a hint after each event that matters, and after each error, which the
// look then shows.
func (o *observer) watch(ctx context.Context, prefix string, matters func(kv.Event) bool) {
	o.watches.Go(func() {
		for event, err := range kv.Watch(ctx, o.watched, prefix) {
			if err == nil && !matters(event) {
				continue
			}
			select {
			case o.hint <- struct{}{}:
			default:
			}
		}
	})
}
