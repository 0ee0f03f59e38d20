package election_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/election"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
)

// seen is what an observer was told.
type known struct {
	*election.Leader
	err error
	at  time.Time
}

// observe observes in the background until the test ends.
func (p *process) observe(ctx context.Context) <-chan known {
	states := make(chan known, 1000)
	go func() {
		defer close(states)
		for l, err := range p.Observe(ctx) {
			states <- known{l, err, time.Now()}
		}
	}()
	return states
}

// eachWay runs a test with an observer that polls and with one that watches.
func eachWay(t *testing.T, test func(t *testing.T, a, b, observer *process)) {
	for _, way := range []string{"polls", "watches"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				store, a, b := two(t)
				if way == "polls" {
					test(t, a, b, newProcess(t, polled{store}, "observer", 1))
				} else {
					test(t, a, b, newProcess(t, store, "observer", 1))
				}
			})
		})
	}
}

func requireLeader(t *testing.T, owner string, token uint64, s known) {
	t.Helper()
	require.NoError(t, s.err)
	require.False(t, s.Vacant())
	require.Equal(t, owner, s.Member.Owner)
	require.Equal(t, token, s.Token)
}

func requireVacancy(t *testing.T, token uint64, s known) {
	t.Helper()
	require.NoError(t, s.err)
	require.True(t, s.Vacant())
	require.Equal(t, token, s.Token)
}

func TestObserveTellsThePresentStateAndThenChangesAndVacancies(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, a, b, observer *process) {
		ctx, cancel := context.WithCancel(t.Context())
		states := observer.observe(ctx)
		requireVacancy(t, 0, <-states)
		one := a.campaign(t)
		requireLeader(t, "a", one.Token(), <-states)
		require.NoError(t, one.Proclaim(t.Context(), []byte("news")))
		s := <-states
		requireLeader(t, "a", one.Token(), s)
		require.Equal(t, "news", string(s.Value))
		resigned := time.Now()
		require.NoError(t, one.Resign(t.Context()))
		s = <-states
		requireVacancy(t, one.Token(), s)
		require.LessOrEqual(t, s.at.Sub(resigned), poll)
		time.Sleep(10 * ttl)
		require.Empty(t, states, "nothing twice")
		two := b.campaign(t)
		requireLeader(t, "b", two.Token(), <-states)
		cancel()
		require.ErrorIs(t, (<-states).err, context.Canceled, "it never ends silently")
		_, more := <-states
		require.False(t, more)
	})
}

func TestObserveShowsALeaderWhoseSessionEndedAsAVacancy(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, a, _, observer *process) {
		states := observer.observe(t.Context())
		<-states
		term := a.campaign(t)
		requireLeader(t, "a", term.Token(), <-states)
		ctx, cancel := context.WithTimeout(t.Context(), 2*margin)
		defer cancel()
		require.Error(t, a.client.Close(ctx), "the term was not resigned, its row stays")
		closed := time.Now()
		s := <-states
		requireVacancy(t, term.Token(), s)
		require.LessOrEqual(t, s.at.Sub(closed), poll+time.Second)
	})
}

func TestObserveDoesNotKillButSeesWhatACandidateKilled(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, a, b, observer *process) {
		states := observer.observe(t.Context())
		<-states
		term := a.campaign(t)
		requireLeader(t, "a", term.Token(), <-states)
		a.link.inject(cut)
		time.Sleep(10 * ttl)
		require.Empty(t, states, "nobody has proven it dead")
		require.Zero(t, observer.link.take()["AtomicDelete"])
		next := <-b.campaigning(t)
		require.NoError(t, next.err)
		s := <-states
		if s.Vacant() {
			requireVacancy(t, term.Token(), s)
			s = <-states
		}
		requireLeader(t, "b", next.Token(), s)
	})
}

func TestObserveOutlastsErrorsOfTheStore(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, a, b, observer *process) {
		states := observer.observe(t.Context())
		<-states
		one := a.campaign(t)
		requireLeader(t, "a", one.Token(), <-states)
		observer.link.inject(func(context.Context, kv.Call, func(context.Context) error) error { return errLost })
		require.NoError(t, one.Resign(t.Context()))
		require.ErrorIs(t, (<-states).err, errLost)
		observer.link.inject(func(ctx context.Context, _ kv.Call, _ func(context.Context) error) error {
			<-ctx.Done() // a store that hangs shows too
			return ctx.Err()
		})
		time.Sleep(time.Second)
		for len(states) > 0 {
			<-states
		}
		began := time.Now()
		require.ErrorIs(t, (<-states).err, context.DeadlineExceeded)
		require.LessOrEqual(t, time.Since(began), 10*time.Second)
		two := b.campaign(t)
		observer.link.inject(nil)
		s := <-states
		for s.err != nil {
			s = <-states
		}
		requireLeader(t, "b", two.Token(), s)
	})
}

func TestObserveEndsWhenItsCallerBreaksOff(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, a, _, observer *process) {
		a.campaign(t)
		for l, err := range observer.Observe(t.Context()) {
			require.NoError(t, err)
			require.False(t, l.Vacant())
			l.Value = append(l.Value, "the caller's"...)
			break
		}
		synctest.Wait() // the bubble finds goroutines that are left
	})
}

func TestObserveEndsWithTheStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		observer := newProcess(t, memkv.New(), "observer", 1)
		observer.link.inject(func(context.Context, kv.Call, func(context.Context) error) error { return kv.ErrClosed })
		var errs []error
		for _, err := range observer.Observe(t.Context()) {
			errs = append(errs, err)
		}
		require.Len(t, errs, 1)
		require.ErrorIs(t, errs[0], kv.ErrClosed)
	})
}

func TestObserveReportsATokenThatWentBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		young, old := memkv.New(), memkv.New() // old: a backup of the table
		for range 10 {
			require.NoError(t, young.Put(t.Context(), "other"))
		}
		observer := newProcess(t, polled{young}, "observer", 1)
		term := newProcess(t, young, "a", 1).campaign(t)
		restored := newProcess(t, old, "b", 1)
		restored.campaign(t)
		looks := 0
		for l, err := range observer.Observe(t.Context()) {
			if looks++; looks == 2 {
				require.ErrorContains(t, err, "went back")
				break
			}
			requireLeader(t, "a", term.Token(), known{Leader: l, err: err})
			observer.link.Store = old
		}
	})
}

func TestCostOfObserving(t *testing.T) {
	t.Parallel()
	const polls = 100
	for way, most := range map[string]int{"polls": 2 * polls * 5 / 4, "watches": 2*polls*5/4/10 + 8} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				store, a, _ := two(t)
				var known kv.Store = store
				if way == "polls" {
					known = polled{store}
				}
				observer := newProcess(t, known, "observer", 1)
				a.campaign(t)
				observer.observe(t.Context())
				time.Sleep(polls * poll)
				calls := observer.link.take()
				require.LessOrEqual(t, calls["Get"], most)
				delete(calls, "Get")
				require.Empty(t, calls)
			})
		})
	}
}
