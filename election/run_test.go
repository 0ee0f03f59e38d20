package election_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/election"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

var errWork = errors.New("work failed")

// stubborn returns a function for Run that ignores its context until work is
// closed, and where it tells of its start.
func stubborn(work <-chan struct{}) (fn func(context.Context, *election.Term) error, started chan context.Context) {
	started = make(chan context.Context, 10)
	return func(ctx context.Context, _ *election.Term) error {
		started <- ctx
		<-work
		return nil
	}, started
}

func TestRunReturnsWhatItsFunctionReturned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, a, b := two(t)
		err := a.Run(t.Context(), func(ctx context.Context, term *election.Term) error {
			require.True(t, a.IsLeader())
			require.NoError(t, ctx.Err())
			return errWork
		})
		require.ErrorIs(t, err, errWork)
		require.False(t, a.IsLeader())
		_, err = b.Leader(t.Context())
		require.ErrorIs(t, err, election.ErrNoLeader, "it resigned")
	})
}

// client-go's trap: ReleaseOnCancel releases before the work has stopped.
func TestRunResignsOnlyAfterItsFunctionReturned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, a, b := two(t)
		work := make(chan struct{})
		fn, started := stubborn(work)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx, fn) }()
		led := <-started
		next := b.campaigning(t)
		cancel()
		<-led.Done()
		time.Sleep(5 * ttl)
		require.True(t, a.IsLeader(), "it keeps the leadership while it drains")
		require.NoError(t, a.Check())
		require.Empty(t, next)
		close(work)
		require.NoError(t, <-done)
		require.NoError(t, (<-next).err)
	})
}

func TestRunEndsItsFunctionsContextWithTheCauseAndCampaignsAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, a, _ := two(t)
		var tokens []uint64
		err := a.Run(t.Context(), func(ctx context.Context, term *election.Term) error {
			tokens = append(tokens, term.Token())
			if len(tokens) == 3 {
				return nil
			}
			a.link.inject(cut)
			began := time.Now()
			<-ctx.Done()
			require.LessOrEqual(t, time.Since(began), ttl-margin+time.Millisecond,
				"by the trust deadline, though the store is silent")
			require.ErrorIs(t, context.Cause(ctx), lease.ErrLost)
			require.False(t, term.Held())
			a.link.inject(nil)
			return errWork // after a loss it does not end Run
		})
		require.NoError(t, err)
		require.Len(t, tokens, 3)
		require.IsIncreasing(t, tokens)
	})
}

func TestAFunctionThatIgnoresItsContextIsWaitedForAndReported(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, a, b := two(t)
		work := make(chan struct{})
		fn, started := stubborn(work)
		go func() { _ = a.Run(t.Context(), fn) }()
		led := <-started
		second := make(chan struct{})
		go func() {
			_ = a.Run(t.Context(), func(context.Context, *election.Term) error { close(second); return nil })
		}()
		next := b.campaigning(t)
		a.link.inject(cut)
		<-led.Done()
		require.Zero(t, a.log.count("still at work"))
		require.NoError(t, a.Check(), "it has its grace")
		time.Sleep(election.DefaultGrace + time.Millisecond)
		require.Equal(t, 1, a.log.count("still at work"))
		require.Error(t, a.Check())
		require.False(t, a.IsLeader())
		a.link.inject(nil)
		w := <-next
		require.NoError(t, w.err, "the lease runs out")
		require.NoError(t, w.Resign(t.Context()))
		time.Sleep(10 * ttl)
		require.Empty(t, started, "not started again while it runs")
		select {
		case <-second:
			require.Fail(t, "nor by a second Run")
		default:
		}
		require.Equal(t, 1, a.log.count("still at work"))

		close(work)
		<-started // the first Run goes on, returns at once, and lets the second one
		<-second
		require.NoError(t, a.Check())
	})
}

func TestRunResignsWhenItsFunctionPanicsAndPassesThePanicOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, a, b := two(t)
		require.PanicsWithValue(t, errWork, func() {
			_ = a.Run(t.Context(), func(context.Context, *election.Term) error { panic(errWork) })
		})
		_, err := b.Leader(t.Context())
		require.ErrorIs(t, err, election.ErrNoLeader)
		require.NoError(t, a.Run(t.Context(), func(context.Context, *election.Term) error { return nil }), "usable still")
	})
}

func TestRunReturnsTheFailureOfTheFirstContact(t *testing.T) {
	t.Parallel()
	for _, class := range []error{kv.ErrRefused, kv.ErrUnavailable, kv.ErrUncertain, kv.ErrThrottled, kv.ErrClock} {
		synctest.Test(t, func(t *testing.T) {
			_, a, _ := two(t)
			a.link.inject(func(context.Context, kv.Call, func(context.Context) error) error { return class })
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			began := time.Now()
			require.ErrorIs(t, a.Run(ctx, never), class)
			require.Zero(t, time.Since(began))
		})
	}
}

func TestRunOutlastsRefusalsOnceTheStoreHasAnswered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, a, b := two(t)
		b.campaign(t)
		a.meet(t)
		a.link.inject(func(context.Context, kv.Call, func(context.Context) error) error { return kv.ErrRefused })
		ctx, cancel := context.WithCancelCause(t.Context())
		ended := make(chan error)
		go func() { ended <- a.Run(ctx, never) }()
		time.Sleep(2*ttl - time.Second)
		require.NoError(t, a.Check())
		time.Sleep(time.Hour)
		require.ErrorIs(t, a.Check(), kv.ErrRefused, "a restart mends nothing, but somebody should know")
		w := httptest.NewRecorder()
		a.Health().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/healthz", nil))
		require.Equal(t, http.StatusServiceUnavailable, w.Code)
		require.Contains(t, w.Body.String(), "refused by the store")
		require.InDelta(t, 60, a.log.count("election: a campaign failed"), 2, "once a minute")
		cancel(errWork)
		require.ErrorIs(t, <-ended, errWork)
		a.link.inject(nil)
		a.meet(t)
		require.NoError(t, a.Check())
	})
}

func TestRunOutlastsAnOutageBeforeItsFirstCampaign(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, a, _ := two(t)
		a.meet(t)
		a.link.inject(func(context.Context, kv.Call, func(context.Context) error) error { return errLost })
		_, err := a.Campaign(t.Context(), nil)
		require.ErrorIs(t, err, errLost)
		time.AfterFunc(time.Minute, func() { a.link.inject(nil) })
		began := time.Now()
		require.NoError(t, a.Run(t.Context(), func(context.Context, *election.Term) error { return nil }))
		require.Less(t, time.Since(began), time.Minute+10*time.Second)
	})
}

func TestRunEndsWithItsContextOrItsClient(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, a, b := two(t)
		a.campaign(t)
		never := func(context.Context, *election.Term) error { panic("not the leader") }
		ctx, cancel := context.WithTimeoutCause(t.Context(), ttl, errWork)
		defer cancel()
		require.ErrorIs(t, b.Run(ctx, never), errWork)
		require.ErrorIs(t, b.Run(ctx, never), errWork, "a context that has ended")
		time.AfterFunc(time.Second, func() { _ = b.client.Close(context.Background()) })
		require.ErrorIs(t, b.Run(t.Context(), never), lease.ErrClosed)
	})
}

func TestCloseDuringATermEndsRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, a, b := two(t)
		started := make(chan struct{})
		done := make(chan error, 1)
		go func() {
			done <- a.Run(t.Context(), func(ctx context.Context, _ *election.Term) error {
				close(started)
				<-ctx.Done()
				time.Sleep(time.Second) // it stops its work
				return nil
			})
		}()
		<-started
		require.NoError(t, a.client.Close(t.Context()))
		require.ErrorIs(t, <-done, lease.ErrClosed)
		_, err := b.Leader(t.Context())
		require.ErrorIs(t, err, election.ErrNoLeader)
	})
}

func TestRunCampaignsWithItsValue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, _, b := two(t)
		a := newProcess(t, store, "c", 1, election.WithValue([]byte("10.0.0.1:80")))
		require.NoError(t, a.Run(t.Context(), func(ctx context.Context, _ *election.Term) error {
			leader, err := b.Leader(ctx)
			require.NoError(t, err)
			require.Equal(t, "10.0.0.1:80", string(leader.Value))
			return nil
		}))
	})
}

// get asks the health handler.
func get(p *process, target string) (status int, body string) {
	w := httptest.NewRecorder()
	p.Health().ServeHTTP(w, httptest.NewRequest(http.MethodGet, target, nil))
	return w.Code, strings.TrimSpace(w.Body.String())
}

func TestHealth(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, a, b := two(t)
		require := require.New(t)
		answer := func(p *process, target string, status int, text string) {
			code, body := get(p, target)
			require.Equal(status, code, body)
			require.Contains(body, text)
		}
		term := a.campaign(t)
		answer(a, "/", http.StatusOK, "leader")
		answer(a, "/?leader", http.StatusOK, "leader")
		answer(b, "/", http.StatusOK, "follower")
		answer(b, "/?leader", http.StatusServiceUnavailable, "follower")

		a.link.inject(cut)
		b.link.inject(cut)
		<-term.Context().Done()
		answer(a, "/", http.StatusOK, "follower")
		answer(a, "/?leader", http.StatusServiceUnavailable, "follower")
		time.Sleep(election.DefaultGrace)
		answer(a, "/", http.StatusServiceUnavailable, "still at work")
		answer(a, "/?leader", http.StatusServiceUnavailable, "still at work")
		answer(b, "/", http.StatusOK, "follower")
		require.ErrorIs(term.Resign(t.Context()), lease.ErrLost)
		answer(a, "/", http.StatusOK, "follower")
	})
}

func TestHealthAfterAFreezeCountsTheGraceFromTheThaw(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, a, _ := two(t)
		term := a.campaign(t)
		a.link.inject(cut)
		a.clock.Step(time.Hour)
		require.NoError(t, a.Check(), "noticed just now")
		time.Sleep(election.DefaultGrace)
		require.Error(t, a.Check())
		require.Error(t, term.Resign(t.Context()))
	})
}
