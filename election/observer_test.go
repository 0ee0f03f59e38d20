package election_test

import (
	"context"
	"errors"
	"iter"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
)

// soon returns the next state, which must come within an hour.
func soon(t *testing.T, states <-chan known) known {
	t.Helper()
	select {
	case s := <-states:
		return s
	case <-time.After(time.Hour):
		require.Fail(t, "the observer is told nothing any more")
		return known{}
	}
}

// watched is a store whose watches a test counts, and may silence or break.
type watched struct {
	*memkv.Store
	// open is how many watches there are.
	open atomic.Int32
	// deaf watches tell of nothing.
	deaf bool
	// broken ends all watches with an error when it is closed.
	broken chan struct{}
}

func newWatched() *watched { return &watched{Store: memkv.New(), broken: make(chan struct{})} }

func (w *watched) WatchPrefix(ctx context.Context, prefix string,
	settings kv.WatchSettings) iter.Seq2[kv.Event, error] {
	return func(yield func(kv.Event, error) bool) {
		w.open.Add(1)
		defer w.open.Add(-1)
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		go func() {
			select {
			case <-w.broken:
				cancel(errLost)
			case <-ctx.Done():
			}
		}()
		if w.deaf {
			<-ctx.Done()
			yield(kv.Event{}, context.Cause(ctx))
			return
		}
		for event, err := range w.Store.WatchPrefix(ctx, prefix, settings) {
			if err != nil {
				err = errors.Join(err, context.Cause(ctx))
			}
			if !yield(event, err) {
				return
			}
		}
	}
}

func TestAnObserverEndsTheWatchesOfFormerLeaders(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newWatched()
		observer := newProcess(t, store, "observer", 1)
		ctx, cancel := context.WithCancel(t.Context())
		states := observer.observe(ctx)
		requireVacancy(t, 0, soon(t, states))
		for range 5 {
			p := newProcess(t, polled{store}, "a", 1) // a session of its own
			term := p.campaign(t)
			requireLeader(t, "a", term.Token(), soon(t, states))
			synctest.Wait()
			require.EqualValues(t, 2, store.open.Load(), "of the lease and of its session")
			require.NoError(t, term.Resign(t.Context()))
			requireVacancy(t, term.Token(), soon(t, states))
			synctest.Wait()
			require.EqualValues(t, 1, store.open.Load())
		}
		cancel()
		soon(t, states)
		synctest.Wait()
		require.Zero(t, store.open.Load())
	})
}

func TestAnObserverWhoseWatchTellsNothingLooksByItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newWatched()
		store.deaf = true
		states := newProcess(t, store, "observer", 1).observe(t.Context())
		requireVacancy(t, 0, soon(t, states))
		term := newProcess(t, polled{store}, "a", 1).campaign(t)
		elected := time.Now()
		s := soon(t, states)
		requireLeader(t, "a", term.Token(), s)
		require.LessOrEqual(t, s.at.Sub(elected), 10*poll)
	})
}

func TestAnObserverLooksAtOnceWhenItsWatchFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newWatched()
		observer := newProcess(t, store, "observer", 1)
		states := observer.observe(t.Context())
		requireVacancy(t, 0, soon(t, states))
		synctest.Wait()
		observer.link.inject(func(context.Context, kv.Call, func(context.Context) error) error { return errLost })
		failed := time.Now()
		close(store.broken)
		s := soon(t, states)
		require.ErrorIs(t, s.err, errLost)
		require.Equal(t, failed, s.at)
	})
}

func TestObserveEndsWithTheCauseOfItsContext(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, _, _, observer *process) {
		ctx, cancel := context.WithCancelCause(t.Context())
		states := observer.observe(ctx)
		soon(t, states)
		cancel(errWork)
		require.ErrorIs(t, soon(t, states).err, errWork)
	})
}

// A new leader is told of although it says what the former one said, and
// though nobody has seen the vacancy between them.
func TestObserveTellsOfANewLeaderThatSaysTheSame(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, a, b, observer *process) {
		states := observer.observe(t.Context())
		soon(t, states)
		one := a.campaign(t)
		requireLeader(t, "a", one.Token(), soon(t, states))
		observer.link.inject(cut)
		require.NoError(t, one.Resign(t.Context()))
		two := b.campaign(t)
		require.Equal(t, one.Value(), two.Value())
		observer.link.inject(nil)
		s := soon(t, states)
		for s.err != nil || s.Vacant() {
			s = soon(t, states)
		}
		requireLeader(t, "b", two.Token(), s)
	})
}

func TestWhatObserveTellsIsTheCallers(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, a, _, observer *process) {
		a.campaign(t)
		states := observer.observe(t.Context())
		s := soon(t, states)
		clear(s.Value)
		s.Token = 0
		time.Sleep(30 * poll)
		require.Empty(t, states, "nothing has changed but the caller's copy")
	})
}

// The token tells who comes late that there has been a leader: a resource
// may refuse older ones from then on.
func TestAnObserverThatComesLateIsToldTheTokenOfADeadLeader(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, a, _, observer *process) {
		term := a.campaign(t)
		ctx, cancel := context.WithTimeout(t.Context(), 2*margin)
		defer cancel()
		require.Error(t, a.client.Close(ctx), "the term was not resigned, its row stays")
		requireVacancy(t, term.Token(), soon(t, observer.observe(t.Context())))
	})
}

func TestALeaderIsToldWithTheTimeOfItsElection(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, a, _, observer *process) {
		elected := time.Now()
		term := a.campaign(t)
		time.Sleep(time.Minute)
		require.NoError(t, term.Proclaim(t.Context(), []byte("news")))
		leader, err := observer.Leader(t.Context())
		require.NoError(t, err)
		require.WithinDuration(t, elected, leader.Since, 0)
		require.WithinDuration(t, elected, soon(t, observer.observe(t.Context())).Since, 0)
	})
}

func TestObserveOfAClosedStoreTellsThatOnce(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, _, _, observer *process) {
		observer.link.inject(func(context.Context, kv.Call, func(context.Context) error) error { return kv.ErrClosed })
		told := 0
		for _, err := range observer.Observe(t.Context()) {
			require.ErrorIs(t, err, kv.ErrClosed)
			if told++; told == 2 {
				break
			}
		}
		require.Equal(t, 1, told)
	})
}

// A session may end between the look that shows its leader and the beginning of
// the watch over it.
func TestAnObserverSeesASessionThatEndedBeforeItWasWatched(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, a, b := two(t)
		observer := newProcess(t, store, "observer", 1)
		go func() {
			term, err := a.Campaign(t.Context(), nil)
			if err != nil {
				return
			}
			time.Sleep(time.Minute)
			_ = term.Resign(t.Context())
			time.Sleep(time.Minute) // the change to come is the only one
			_, _ = b.Campaign(t.Context(), nil)
		}()
		var deleted time.Time
		for l, err := range observer.Observe(t.Context()) {
			require.NoError(t, err)
			switch {
			case !l.Vacant() && l.Member.Owner == "b":
				require.NoError(t, store.Delete(t.Context(), "session/"+l.Member.Session))
				deleted = time.Now()
			case l.Vacant() && !deleted.IsZero():
				require.Less(t, time.Since(deleted), poll)
				return
			}
		}
	})
}
