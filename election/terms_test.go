package election_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/election"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// many is how often a question is asked whose wrong answer depends on the
// order of a map.
const many = 50

// A process whose former work has not stopped may be elected again, by
// Campaign.
func TestALostTermNextToANewOneIsStillAnswered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, a, _ := two(t)
		old := a.campaign(t)
		a.link.inject(cut)
		<-old.Context().Done()
		a.link.inject(nil)
		time.Sleep(ttl) // longer than the grace, and than an attempt at a new session that was cut off
		next := a.campaign(t)
		require.Greater(t, next.Token(), old.Token())
		for range many {
			require.True(t, a.IsLeader(), "by the new one")
			require.ErrorContains(t, a.Check(), "still at work", "on the old one")
		}
		require.ErrorIs(t, old.Resign(t.Context()), lease.ErrLost)
		require.NoError(t, a.Check())
		require.True(t, a.IsLeader())
		require.NoError(t, next.Resign(t.Context()))
	})
}

// Who resigns just as the loss is noticed has stopped.
func TestWhoResignsAtTheMomentOfTheLossIsNotReported(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, a, _ := two(t)
		for range many {
			term := a.campaign(t)
			a.link.inject(cut)
			<-term.Context().Done()
			a.link.inject(nil)
			require.ErrorIs(t, term.Resign(t.Context()), lease.ErrLost)
			time.Sleep(ttl) // longer than the grace, and than an attempt at a new session that was cut off
			require.NoError(t, a.Check())
		}
		require.Zero(t, a.log.count("still at work"))
	})
}

func TestAnElectionLogsWhatBecomesOfItsTerms(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, a, b := two(t)
		require.NoError(t, a.campaign(t).Resign(t.Context()))
		require.Equal(t, 1, a.log.count("election: elected"))
		require.Equal(t, 1, a.log.count("takeover=false"))
		require.Equal(t, 1, a.log.count("election: resigned"))
		require.Equal(t, 1, a.log.count("error=<nil>"))

		term := a.campaign(t)
		next := b.campaigning(t)
		a.link.inject(cut)
		<-term.Context().Done()
		synctest.Wait()
		require.Equal(t, 1, a.log.count("level=WARN msg=\"election: leadership lost\""))
		require.ErrorIs(t, term.Resign(t.Context()), lease.ErrLost)
		require.ErrorIs(t, term.Resign(t.Context()), lease.ErrLost)
		require.Equal(t, 2, a.log.count("election: resigned"), "once for each term")
		require.Equal(t, 1, a.log.count("error=<nil>"), "the second was lost")
		require.NoError(t, (<-next).err)
		require.Equal(t, 1, b.log.count("takeover=true"), "the leader before had died")
	})
}

func TestRunLogsWhatItDoesNotReturn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, a, _ := two(t)
		a.meet(t)
		a.link.inject(func(context.Context, kv.Call, func(context.Context) error) error { return errLost })
		time.AfterFunc(time.Second, func() { a.link.inject(nil) })
		terms := 0
		require.NoError(t, a.Run(t.Context(), func(ctx context.Context, _ *election.Term) error {
			if terms++; terms == 2 {
				return nil
			}
			a.link.inject(cut)
			<-ctx.Done()
			a.link.inject(nil)
			synctest.Wait() // what the fault has held up has ended
			return errWork
		}))
		require.Positive(t, a.log.count(errLost.Error()))
		require.GreaterOrEqual(t, a.log.count("election: a campaign failed"), a.log.count(errLost.Error()))
		require.Equal(t, 1, a.log.count("election: what fn returned after the loss"))
		require.Equal(t, 1, a.log.count(errWork.Error()))
	})
}

func TestAnswersOfHealthAreForNow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, a, _ := two(t)
		for _, target := range []string{"/", "/?leader"} {
			w := httptest.NewRecorder()
			a.Health().ServeHTTP(w, httptest.NewRequest(http.MethodGet, target, nil))
			require.Equal(t, "no-store", w.Header().Get("Cache-Control"), "a proxy must not answer for the leader")
			require.Equal(t, "text/plain; charset=utf-8", w.Header().Get("Content-Type"))
			require.Equal(t, "follower\n", w.Body.String())
		}
	})
}

func TestTheValueOfRunIsACopy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, _, b := two(t)
		value := []byte("10.0.0.1:80")
		a := newProcess(t, store, "c", 1, election.WithValue(value))
		clear(value)
		require.NoError(t, a.Run(t.Context(), func(ctx context.Context, _ *election.Term) error {
			leader, err := b.Leader(ctx)
			require.NoError(t, err)
			require.Equal(t, "10.0.0.1:80", string(leader.Value))
			return nil
		}))
	})
}
