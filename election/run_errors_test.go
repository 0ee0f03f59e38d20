package election_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/election"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// never is a function of a Run that must not get to lead.
func never(context.Context, *election.Term) error { panic("not the leader") }

func TestRunEndsAtOnceWithAnErrorThatWaitingDoesNotMend(t *testing.T) {
	t.Parallel()
	for _, lasting := range []error{
		kv.ErrClosed, kv.ErrFormat, kv.ErrTooLarge, kv.ErrInvalidKey, kv.ErrInvalidOption, kv.ErrUnsupported,
	} {
		t.Run(lasting.Error(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				_, a, _ := two(t)
				a.link.inject(func(context.Context, kv.Call, func(context.Context) error) error { return lasting })
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				began := time.Now()
				require.ErrorIs(t, a.Run(ctx, never), lasting)
				require.Zero(t, time.Since(began))
			})
		})
	}
}

func TestRunEndsWithARowThatItCannotRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, a, _ := two(t)
		require.NoError(t, store.Put(t.Context(), "lease/election/scheduler", kv.WithString(`{"f":99}`)))
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		began := time.Now()
		require.ErrorIs(t, a.Run(ctx, never), kv.ErrFormat)
		require.Zero(t, time.Since(began))
		synctest.Wait()
		pairs, err := store.List(t.Context(), "lease/")
		require.NoError(t, err)
		require.Equal(t, `{"f":99}`, pairs[0].String(), "it is left alone")
	})
}

func TestRunEndsWithItsContextInThePauseAfterACampaignThatFailed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, a, _ := two(t)
		a.meet(t)
		a.link.inject(func(context.Context, kv.Call, func(context.Context) error) error { return errLost })
		for i := range 10 {
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(time.Minute+time.Duration(i)*time.Second, func() { cancel(errWork) })
			began := time.Now()
			require.ErrorIs(t, a.Run(ctx, never), errWork, "the cause")
			require.Equal(t, time.Minute+time.Duration(i)*time.Second, time.Since(began), "not when the pause is over")
		}
	})
}

func TestASecondRunEndsWithItsContextWhileTheFirstRuns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, a, _ := two(t)
		require.NoError(t, a.Run(t.Context(), func(ctx context.Context, _ *election.Term) error {
			ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errWork)
			defer cancel()
			began := time.Now()
			require.ErrorIs(t, a.Run(ctx, never), errWork, "the cause")
			require.Equal(t, time.Minute, time.Since(began))
			return nil
		}))
	})
}

func TestCandidatesTellsOfARowThatItCannotReadAndGoesOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, a, b := two(t)
		require.NoError(t, store.Put(t.Context(), "session/0", kv.WithString(`{"f":99}`)))
		a.campaign(t)
		var owners []string
		var errs []error
		for m, err := range b.Candidates(t.Context()) {
			if err != nil {
				require.NotEmpty(t, m.Session)
				errs = append(errs, err)
				continue
			}
			owners = append(owners, m.Owner)
		}
		require.Equal(t, []string{"a"}, owners)
		require.Len(t, errs, 1)
		require.ErrorIs(t, errs[0], kv.ErrFormat)

		b.link.inject(func(context.Context, kv.Call, func(context.Context) error) error { return errLost })
		for _, err := range b.Candidates(t.Context()) {
			errs = append(errs, err)
		}
		require.Len(t, errs, 2)
		require.ErrorIs(t, errors.Join(errs...), errLost)
	})
}

func TestCandidatesEndsWhenItsCallerBreaksOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, a, b := two(t)
		a.campaign(t)
		b.campaigning(t)
		require.NoError(t, store.Put(t.Context(), "session/0", kv.WithString(`{"f":99}`)))
		synctest.Wait()
		for breakAfter := range 3 {
			asked := 0
			a.Candidates(t.Context())(func(*lease.Member, error) bool {
				asked++
				return asked <= breakAfter
			})
			require.Equal(t, breakAfter+1, asked)
		}
	})
}
