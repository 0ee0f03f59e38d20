package lock_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

func TestSlotsShowsTheSlotsOfAllJobs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		c, err := lease.New(store, lease.WithOwner("me"))
		require.NoError(t, err)
		defer func() { require.NoError(t, c.Close(context.Background())) }()
		report := lock.NewOnce(c, "jobs/report")
		_, err = report.Do(t.Context(), "a/b", func(context.Context, *lease.Lease) error { return nil })
		require.NoError(t, err)
		_, err = report.Do(t.Context(), "c", func(context.Context, *lease.Lease) error { return errors.New("broke") })
		require.Error(t, err)
		run, err := lock.NewOnce(c, "invoices").Claim(t.Context(), "100%")
		require.NoError(t, err)
		require.NoError(t, store.Put(t.Context(), "lease/once/invoices/strange", kv.WithString("{}")))
		other, err := c.Acquire(t.Context(), "once/no-slot")
		require.NoError(t, err)

		var found []lock.FoundSlot
		for s, err := range lock.Slots(t.Context(), c) {
			if s.Slot == "strange" {
				require.ErrorIs(t, err, kv.ErrFormat)
				require.Equal(t, &lock.FoundSlot{Job: "invoices", Slot: "strange", Key: "once/invoices/strange"}, s)
				continue
			}
			require.NoError(t, err)
			require.Equal(t, lock.NewOnce(c, s.Job).Key(s.Slot), s.Key)
			want, err := lock.NewOnce(c, s.Job).Outcome(t.Context(), s.Slot)
			require.NoError(t, err)
			require.Equal(t, want, s.Outcome)
			s.Outcome = lock.Outcome{State: s.Outcome.State, Error: s.Outcome.Error}
			found = append(found, *s)
		}
		require.Equal(t, []lock.FoundSlot{
			{
				Job: "invoices", Slot: "100%", Key: "once/invoices/100%25", Session: c.Session(),
				Outcome: lock.Outcome{State: lock.StateRunning},
			},
			{Job: "jobs/report", Slot: "a/b", Key: "once/jobs/report/a%2Fb", Outcome: lock.Outcome{State: lock.StateDone}},
			{
				Job: "jobs/report", Slot: "c", Key: "once/jobs/report/c",
				Outcome: lock.Outcome{State: lock.StateFailed, Error: "broke"},
			},
		}, found)
		require.NoError(t, run.Finish(t.Context(), nil, nil))
		require.NoError(t, other.Release(t.Context()))
	})
}

func TestSlotsTellsWhyItEnds(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	c, err := lease.New(kv.Instrument(memkv.New(), func(context.Context, kv.Call, func(context.Context) error) error {
		return broken
	}))
	require.NoError(t, err)
	for client, want := range map[*lease.Client]error{nil: lease.ErrInvalid, c: broken} {
		var errs []error
		for s, err := range lock.Slots(t.Context(), client) {
			require.Nil(t, s)
			errs = append(errs, err)
		}
		require.Len(t, errs, 1)
		require.ErrorIs(t, errs[0], want)
	}
}
