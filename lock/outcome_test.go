package lock_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

// says returns a job that takes a second and returns err.
func says(err error) func(context.Context, *lease.Lease) error {
	return func(context.Context, *lease.Lease) error {
		time.Sleep(time.Second)
		return err
	}
}

func TestAnOutcomeIsThatOfTheLastRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		a := lock.NewOnce(newClient(t, store, lease.WithOwner("a")), "job", lock.RetryFailed())
		b := lock.NewOnce(newClient(t, store, lease.WithOwner("b")), "job", lock.RetryFailed())
		runs := []struct {
			by    *lock.Once
			owner string
			err   error
			state lock.State
		}{{a, "a", errors.New("first"), lock.StateFailed}, {b, "b", errors.New("second"), lock.StateFailed},
			{a, "a", nil, lock.StateDone}}
		var before lock.Outcome
		for i, run := range runs {
			began := time.Now()
			ran, err := run.by.Do(t.Context(), "slot", says(run.err))
			require.True(t, ran)
			require.ErrorIs(t, err, run.err)
			outcome := requireState(t, b, run.state)
			require.Equal(t, i+1, outcome.Attempt)
			require.Equal(t, run.owner, outcome.Owner)
			require.Greater(t, outcome.Token, before.Token)
			require.WithinDuration(t, began, outcome.Started, 0)
			require.WithinDuration(t, time.Now(), outcome.Ended, 0)
			text := ""
			if run.err != nil {
				text = run.err.Error()
			}
			require.Equal(t, text, outcome.Error)
			before = outcome
		}
	})
}

func TestAPanicsOutcomeSaysWhen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := lock.NewOnce(newClient(t, memkv.New()), "job")
		require.Panics(t, func() {
			_, _ = o.Do(t.Context(), "slot", func(context.Context, *lease.Lease) error {
				time.Sleep(time.Minute)
				panic("boom")
			})
		})
		failed := requireState(t, o, lock.StateFailed)
		require.Equal(t, time.Minute, failed.Ended.Sub(failed.Started))
	})
}

func TestTheTextOfAnErrorIsCutBetweenCharacters(t *testing.T) {
	t.Parallel()
	for prefix, length := range map[string]int{"": 1024, "x": 1023} {
		synctest.Test(t, func(t *testing.T) {
			o := lock.NewOnce(newClient(t, memkv.New()), "job")
			_, err := o.Do(t.Context(), "slot", says(errors.New(prefix+strings.Repeat("é", 2000))))
			require.Error(t, err)
			text := requireState(t, o, lock.StateFailed).Error
			require.Len(t, text, length)
			require.True(t, utf8.ValidString(text))
			require.NotContains(t, text, string(utf8.RuneError))
		})
	}
}

func TestAnErrorSaysWhichSlotIsSettledAndHow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := lock.NewOnce(newClient(t, memkv.New(), lease.WithOwner("machine 7")), "invoices")
		_, err := o.Do(t.Context(), "slot", says(errors.New("no price")))
		require.Error(t, err)
		_, err = o.Do(t.Context(), "slot", mustNotRun(t))
		var finished *lock.FinishedError
		require.ErrorAs(t, err, &finished)
		require.Equal(t, "invoices", finished.Job)
		require.Equal(t, "slot", finished.Slot)
		require.Equal(t, requireState(t, o, lock.StateFailed), finished.Outcome)
		require.EqualError(t, err,
			`lock: slot "slot" of "invoices": failed, begun by machine 7 at 2000-01-01T00:00:00Z (token 2): no price`)
	})
}

func TestAnOutcomeThatIsNotRecordedIsSaidToBe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		mine := newLink(memkv.New())
		o := lock.NewOnce(newClient(t, mine), "job")
		mine.setFault(from(outcomeWrite, 2, lostRequest)) // a release asks twice
		_, err := o.Do(t.Context(), "slot", nop)
		require.ErrorIs(t, err, kv.ErrUncertain)
		require.ErrorContains(t, err, `recording "once/job/slot" as done`)
	})
}

func TestForgetLetsTheStoreRemoveTheRow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		o := lock.NewOnce(newClient(t, store), "job")
		_, err := o.Do(t.Context(), "slot", nop)
		require.NoError(t, err)
		require.NoError(t, o.Forget(t.Context(), "slot"))
		row, err := store.Get(t.Context(), "lease/"+o.Key("slot"))
		require.NoError(t, err)
		require.Contains(t, row.String(), `"sweep_ms":1000`)
	})
}
