package election_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/election"
	"github.com/dynalock/dynalock/kv/memkv"
)

// runs starts Run of each process, and tells who leads.
func runs(t *testing.T, processes ...*process) (leading chan *process, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	leading = make(chan *process, 100)
	ended := make(chan error)
	for _, p := range processes {
		go func() {
			ended <- p.Run(ctx, func(ctx context.Context, _ *election.Term) error {
				leading <- p
				<-ctx.Done()
				return nil
			})
		}()
	}
	return leading, func() {
		cancel()
		for range processes {
			<-ended
		}
	}
}

func TestABrokenLeaderLeavesTheNextTermToAnother(t *testing.T) {
	t.Parallel()
	for i := range 20 {
		synctest.Test(t, func(t *testing.T) {
			store := memkv.New()
			a, b, c := newProcess(t, store, "a", 1), newProcess(t, store, "b", 1), newProcess(t, store, "c", 1)
			leading, stop := runs(t, a, b, c)
			defer stop()
			old := <-leading
			time.Sleep(time.Minute + time.Duration(i)*37*time.Millisecond)
			operator := newProcess(t, store, "operator", 1)
			began := time.Now()
			if i%2 == 0 {
				h, err := operator.client.Inspect(t.Context(), "election/scheduler")
				require.NoError(t, err)
				require.NoError(t, operator.client.Break(t.Context(), h))
			} else {
				require.NoError(t, old.StepDown(t.Context()))
			}
			next := <-leading
			require.NotSame(t, old, next)
			require.Less(t, time.Since(began), ttl)
			time.Sleep(time.Minute)
			require.Len(t, old.candidates(t), 3, "it stands again")
		})
	}
}

func TestALeaderThatIsAloneLeadsAgainAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		a, b := newProcess(t, store, "a", 1, election.WithStepDown(time.Hour)), newProcess(t, store, "b", 1)
		leading, stop := runs(t, a)
		defer stop()
		<-leading
		time.Sleep(time.Minute)
		require.NoError(t, b.StepDown(t.Context()), "who does not lead does nothing")
		require.True(t, a.IsLeader())
		require.NoError(t, a.StepDown(t.Context()))
		stepped := time.Now()
		<-leading
		require.Less(t, time.Since(stepped), margin+2*poll)
	})
}

// The context of Run's fn ends with the leadership, while StepDown waits for the
// confirmation of that.
func TestALeaderStepsDownWithItsOwnContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		a, b := newProcess(t, store, "a", 1), newProcess(t, store, "b", 1)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		led := make(chan error, 2)
		ended := make(chan error, 2)
		var first bool
		go func() {
			ended <- a.Run(ctx, func(ctx context.Context, term *election.Term) error {
				if !first {
					first = true
					err := a.StepDown(ctx)
					led <- err
					if term.Held() {
						t.Error("it leads")
					}
					return err
				}
				<-ctx.Done()
				return nil
			})
		}()
		time.Sleep(time.Millisecond)
		next := make(chan struct{}, 2)
		go func() {
			ended <- b.Run(ctx, func(ctx context.Context, _ *election.Term) error {
				next <- struct{}{}
				<-ctx.Done()
				return nil
			})
		}()
		require.NoError(t, <-led)
		<-next
		cancel()
		<-ended
		<-ended
	})
}

// An operator deletes the key's row, and the leader learns of it by a write of its
// own.
func TestALeaderWhoseRowWasDeletedLeavesTheNextTermToAnother(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		a := newProcess(t, store, "a", 1, election.WithStepDown(time.Hour))
		terms := make(chan *election.Term, 10)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- a.Run(ctx, func(ctx context.Context, term *election.Term) error {
				terms <- term
				<-ctx.Done()
				return nil
			})
		}()
		term := <-terms
		c := newProcess(t, store, "c", 1)
		leave, err := c.client.Join(t.Context(), "election/scheduler")
		require.NoError(t, err)
		require.NoError(t, store.Delete(t.Context(), "lease/election/scheduler"))
		require.Error(t, term.Proclaim(t.Context(), []byte("x")))
		time.Sleep(10 * time.Minute)
		require.Empty(t, terms, "another candidate is known")
		leave()
		cancel()
		<-ended
	})
}

// A leader that has lost its term and has not resigned does not lead.
func TestStepDownOfALostTermSendsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, a, _ := two(t)
		term := a.campaign(t)
		require.NoError(t, store.Delete(t.Context(), "session/"+a.client.Session()))
		<-term.Context().Done()
		time.Sleep(time.Minute)
		a.link.take()
		require.NoError(t, a.StepDown(t.Context()))
		require.Empty(t, a.link.take())
		require.Error(t, term.Resign(t.Context()))
	})
}
