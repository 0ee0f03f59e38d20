package sim_test

import (
	"context"
	"fmt"
	"time"

	"github.com/dynalock/dynalock/election"
)

const electionKey = "election/e"

// leads takes part in an election, by hand or by Run.
func leads(a *actor, _ string) {
	defer a.w.acquiring(a.node, electionKey)()
	ctx, cancel := a.node.clock.WithTimeout(a.node.ctx, latency(a.rng, 0, 4*a.node.ttl))
	defer cancel()
	if a.rng.IntN(2) == 0 {
		err := a.node.election.Run(a.node.asks(ctx, "election.Run", "", 2), func(ctx context.Context, t *election.Term) error {
			a.lead(ctx, t)
			return nil
		})
		a.node.clock.await()
		a.w.record(a.node, fmt.Sprintf("ran, error: %t", err != nil), electionKey, 0)
		return
	}
	t, err := a.node.election.Campaign(a.node.asks(ctx, "Campaign", "lease/"+electionKey, 2), []byte(a.node.name))
	if err != nil {
		a.w.refused(a.node, electionKey, err)
		return
	}
	a.releaseBy(a.lead(ctx, t), t.Resign)
}

// lead is a term, in which the leader proclaims something now and then.
func (a *actor) lead(ctx context.Context, t *election.Term) *grant {
	g := a.w.granted(a.node, electionKey, t)
	for i := range 1 + a.rng.IntN(3) {
		if !a.w.held(g) || ctx.Err() != nil {
			break
		}
		a.hold(g, latency(a.rng, 0, 600*time.Millisecond))
		limited, cancel := a.node.clock.WithTimeout(ctx, latency(a.rng, 0, a.node.ttl))
		_ = t.Proclaim(limited, fmt.Append(nil, a.node.name, i))
		cancel()
	}
	a.node.clock.await()
	a.w.ending(g)
	return g
}

// observes follows an election for a while: tokens never decrease, and nobody
// is seen who was not elected (I9).
func observes(a *actor, _ string) {
	ctx, cancel := a.node.clock.WithTimeout(a.node.ctx, latency(a.rng, 0, 5*a.node.ttl))
	defer cancel()
	var last uint64
	for l, err := range a.node.election.Observe(a.node.watches(ctx, "Observe", election.DefaultPoll)) {
		a.node.clock.await()
		if err != nil {
			continue
		}
		a.w.record(a.node, "observed", electionKey, l.Token)
		if l.Token < last {
			a.w.fail("I9", "%s observes token %d after %d", a.node.name, l.Token, last)
		}
		last = l.Token
		a.w.elected(a.node, l)
	}
}

// elected checks that the leader who is observed has acquired the row with that token.
func (w *world) elected(n *node, l *election.Leader) {
	w.mu.Lock()
	defer w.mu.Unlock()
	row := w.rows["lease/"+electionKey]
	if l.Vacant() {
		return
	}
	if row == nil || row.sessions[l.Token] != l.Member.Session {
		w.failLocked("I9", "%s observes %s as leader with token %d, which was not given to it",
			n.name, l.Member.Owner, l.Token)
	}
}

// everyoneObserves: a state that lasts is seen by all within a poll.
func (w *world) everyoneObserves() {
	nodes := w.alive()
	if len(nodes) == 0 {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	seen := make([]*election.Leader, len(nodes)) // guarded by w.mu
	done := make(chan struct{}, len(nodes))
	for i, n := range nodes {
		go func() {
			for l := range n.election.Observe(ctx) {
				w.mu.Lock()
				seen[i] = l
				w.mu.Unlock()
			}
			done <- struct{}{}
		}()
	}
	a := &actor{node: nodes[0], w: w, rng: w.rng("last leader")}
	limited, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	look := func(token uint64, vacant bool) {
		w.sleep(ctx, election.DefaultPoll*2)
		w.mu.Lock()
		defer w.mu.Unlock()
		for i, l := range seen {
			if l == nil || l.Token != token || l.Vacant() != vacant {
				w.failLocked("I9", "%s has not observed token %d, vacant: %t, but %+v", nodes[i].name, token, vacant, l)
			}
		}
	}
	t, err := a.node.election.Campaign(limited, nil)
	if err != nil {
		w.fail("I5", "nobody is elected without any fault: %v", err)
	} else {
		g := w.granted(a.node, electionKey, t)
		look(t.Token(), false)
		a.releaseBy(g, t.Resign)
		look(t.Token(), true)
	}
	stop()
	for range nodes {
		<-done
	}
}
