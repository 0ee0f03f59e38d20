package election_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/election"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
)

func TestCampaignMakesALeaderThatOthersSee(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, a, b := two(t)
		_, err := b.Leader(t.Context())
		require.ErrorIs(t, err, election.ErrNoLeader)
		term, err := a.Campaign(t.Context(), []byte("one"))
		require.NoError(t, err)
		require.True(t, term.Held())
		require.True(t, a.IsLeader())
		require.False(t, b.IsLeader())
		require.Positive(t, term.Remaining())
		leader, err := b.Leader(t.Context())
		require.NoError(t, err)
		require.Equal(t, term.Token(), leader.Token)
		require.Equal(t, "a", leader.Member.Owner)
		require.Equal(t, "one", string(leader.Value))

		require.NoError(t, term.Proclaim(t.Context(), []byte("two")))
		require.Equal(t, "two", string(term.Value()))
		leader, err = b.Leader(t.Context())
		require.NoError(t, err)
		require.Equal(t, "two", string(leader.Value))
		require.Equal(t, term.Token(), leader.Token, "a proclamation is no new term")

		require.NoError(t, term.Resign(t.Context()))
		require.False(t, a.IsLeader())
		require.ErrorIs(t, term.Err(), lease.ErrNotHeld)
		require.ErrorIs(t, context.Cause(term.Context()), lease.ErrNotHeld)
		require.ErrorIs(t, term.Proclaim(t.Context(), nil), lease.ErrNotHeld)
		require.NoError(t, term.Resign(t.Context()), "again: what the first said")
		_, err = b.Leader(t.Context())
		require.ErrorIs(t, err, election.ErrNoLeader)
	})
}

func TestACleanResignationIsSeenWithinOnePoll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, a, b := two(t)
		for range 20 {
			old := a.campaign(t)
			next := b.campaigning(t)
			time.Sleep(3 * ttl)
			resigned := time.Now()
			require.NoError(t, old.Resign(t.Context()))
			w := <-next
			require.NoError(t, w.err)
			require.LessOrEqual(t, w.at.Sub(resigned), poll)
			require.Greater(t, w.Token(), old.Token())
			require.False(t, w.TakenOver())
			require.NoError(t, w.Resign(t.Context()))
		}
	})
}

func TestI5ACrashedLeaderIsSucceededWithinTheBound(t *testing.T) {
	t.Parallel()
	for name, rates := range map[string][2]float64{"equal clocks": {1, 1}, "slow leader": {0.985, 1.015},
		"fast leader": {1.015, 0.985}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				store := memkv.New()
				a, b := newProcess(t, store, "a", rates[0]), newProcess(t, store, "b", rates[1])
				old := a.campaign(t)
				next := b.campaigning(t)
				time.Sleep(2 * ttl)
				crashed := time.Now()
				a.link.inject(cut)
				<-old.Context().Done()
				stopped := time.Now()
				require.False(t, a.IsLeader())
				w := <-next
				require.NoError(t, w.err)
				require.True(t, w.at.After(stopped), "the old leader stopped before the next one began")
				require.LessOrEqual(t, w.at.Sub(crashed), bound*103/100)
				require.True(t, w.TakenOver())
				require.ErrorIs(t, old.Resign(t.Context()), lease.ErrLost)
			})
		})
	}
}

// etcd's trap: a campaign that failed leaves a leader that nobody knows of.
func TestACampaignThatFailedLeadsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, a, b := two(t)
		ctx, cancel := context.WithCancel(t.Context())
		a.link.inject(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			err := loseAnswers("lease/")(ctx, call, next)
			if strings.HasPrefix(call.Key, "lease/") {
				cancel() // the write has landed, its answer is lost, and the candidate gives up
			}
			return err
		})
		_, err := a.Campaign(ctx, nil)
		require.Error(t, err)
		require.False(t, a.IsLeader())
		synctest.Wait()
		require.Empty(t, b.candidates(t), "and is no candidate any more")
		a.link.inject(nil)
		began := time.Now()
		term := b.campaign(t)
		require.Less(t, time.Since(began), 2*time.Second, "what landed is given back, not waited out for a TTL")
		pairs, err := store.List(t.Context(), "lease/")
		require.NoError(t, err)
		require.Len(t, pairs, 1)
		require.True(t, term.Held())
	})
}

func TestACampaignThatIsCancelledWhileItWaitsIsNoCandidate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, a, b := two(t)
		a.campaign(t)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		time.AfterFunc(time.Second, func() { require.ElementsMatch(t, []string{"a", "b"}, a.candidates(t)) })
		_, err := b.Campaign(ctx, nil)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		synctest.Wait()
		require.Equal(t, []string{"a"}, a.candidates(t))
	})
}

// Jepsen's etcd trap: whoever waited across the loss of its own session is no
// leader on account of it.
func TestACandidateWhoseSessionDiedWhileItWaitedLeadsWithANewOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, a, b := two(t)
		old := a.campaign(t)
		next := b.campaigning(t)
		time.Sleep(ttl)
		b.link.inject(cut)
		time.Sleep(2 * ttl)
		require.NoError(t, old.Resign(t.Context()))
		b.link.inject(nil)
		w := <-next
		require.NoError(t, w.err)
		require.True(t, w.Held())
		require.Greater(t, w.Remaining(), ttl/2)
	})
}

// client-go's trap: IsLeader is what was last heard, for as long as nothing else is heard.
func TestIsLeaderIsNeverStale(t *testing.T) {
	t.Parallel()
	for name, strike := range map[string]func(p *process){
		"the store is silent":          func(p *process) { p.link.inject(cut); time.Sleep(ttl - margin) },
		"the machine was frozen":       func(p *process) { p.clock.FreezeMonotonic(); p.clock.Step(ttl) },
		"the wall clock stepped ahead": func(p *process) { p.clock.Step(time.Hour) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				_, a, _ := two(t)
				term := a.campaign(t)
				require.True(t, a.IsLeader())
				strike(a)
				require.False(t, a.IsLeader(), "at once, whatever timers say")
				require.False(t, term.Held())
				require.Zero(t, term.Remaining())
				a.clock.Step(-2 * time.Hour)
				require.False(t, a.IsLeader(), "for ever")
			})
		})
	}
}

// etcd's trap: Resign forgets the leadership when its request fails.
func TestResignThatGetsNoAnswerGoesOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, a, b := two(t)
		term := a.campaign(t)
		a.link.inject(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if strings.HasPrefix(call.Key, "lease/") {
				return cut(ctx, call, next)
			}
			return next(ctx)
		})
		err := term.Resign(t.Context())
		require.Error(t, err)
		require.NotErrorIs(t, err, lease.ErrLost)
		require.False(t, a.IsLeader(), "nobody acts on what may be gone")
		a.link.inject(nil)
		w := <-b.campaigning(t)
		require.NoError(t, w.err, "the session lives on, and the lease was given back all the same")
	})
}

func TestResignDoesNotDependOnItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, a, b := two(t)
		term := a.campaign(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.NoError(t, term.Resign(ctx))
		_, err := b.Leader(t.Context())
		require.ErrorIs(t, err, election.ErrNoLeader)
	})
}

func TestCandidatesAreThoseThatTakePart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, a, b := two(t)
		other, err := election.New(b.client, "other")
		require.NoError(t, err)
		_, err = other.Campaign(t.Context(), nil)
		require.NoError(t, err)
		observer := newProcess(t, store, "observer", 1)
		require.Empty(t, observer.candidates(t))
		term := a.campaign(t)
		require.Equal(t, []string{"a"}, observer.candidates(t), "others in elections of other names are not")
		next := b.campaigning(t)
		synctest.Wait()
		require.Equal(t, []string{"a", "b"}, slices.Sorted(slices.Values(observer.candidates(t))))
		require.NoError(t, term.Resign(t.Context()))
		require.NoError(t, (<-next).err)
		synctest.Wait() // the heartbeat that ends a candidacy comes in the background
		require.Equal(t, []string{"b"}, observer.candidates(t))
	})
}

func TestCostOfATerm(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, a, _ := two(t)
		term := a.campaign(t)
		require.Equal(t, map[string]int{"AtomicPut": 2}, a.link.take(),
			"the session, which makes it a candidate, and the lease")
		require.NoError(t, term.Proclaim(t.Context(), nil))
		require.Equal(t, map[string]int{"AtomicPut": 1}, a.link.take())
		require.NoError(t, term.Resign(t.Context()))
		synctest.Wait()
		require.Equal(t, map[string]int{"AtomicDelete": 1, "AtomicPut": 1}, a.link.take(),
			"the lease, and the heartbeat that ends the candidacy")
	})
}

// Candidates take no place in the queue of their key (R20), not at a resignation either,
// when somebody else is in it.
func TestR20CandidatesTakeNoPlace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, a, b := two(t)
		waiters := func() (owners []string) {
			h, err := a.client.Holder(t.Context(), "election/scheduler")
			require.NoError(t, err)
			for _, w := range h.Waiters {
				owners = append(owners, w.Owner)
			}
			return owners
		}
		term := a.campaign(t)
		next, other := a.campaigning(t), b.campaigning(t)
		time.Sleep(5 * time.Second)
		require.Empty(t, waiters())
		c := newProcess(t, store, "c", 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		got := make(chan *lease.Lease, 1)
		go func() {
			l, _ := c.client.Acquire(ctx, "election/scheduler")
			got <- l
		}()
		time.Sleep(3 * time.Second)
		require.Equal(t, []string{"c"}, waiters())
		require.NoError(t, term.Resign(t.Context()))
		require.NotContains(t, waiters(), "a")
		l := <-got
		require.NotNil(t, l)
		time.Sleep(5 * time.Second)
		require.Empty(t, waiters())
		require.NoError(t, l.Release(t.Context()))
		for range 2 {
			select {
			case won := <-next:
				require.NoError(t, won.Resign(t.Context()))
			case won := <-other:
				require.NoError(t, won.Resign(t.Context()))
			}
		}
	})
}
