package lock_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

func TestOnceForgets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := lock.NewOnce(newClient(t, memkv.New()), "job")
		for range 2 {
			ran, err := o.Do(t.Context(), "slot", nop)
			require.NoError(t, err)
			require.True(t, ran)
			require.NoError(t, o.Forget(t.Context(), "slot"))
			require.Equal(t, lock.Outcome{}, requireState(t, o, lock.StateNone))
		}
	})
}

func TestOnceKeysOfDifferentSlotsDiffer(t *testing.T) {
	t.Parallel()
	client := newClient(t, memkv.New())
	require.Equal(t, "once/team/report/2026-03-01T04:00:00Z",
		lock.NewOnce(client, "team/report").Key("2026-03-01T04:00:00Z"))
	require.NotEqual(t, lock.NewOnce(client, "a").Key("b/c"), lock.NewOnce(client, "a/b").Key("c"))
	require.NotEqual(t, lock.NewOnce(client, "a").Key("b/c"), lock.NewOnce(client, "a").Key("b%2Fc"))
}

func TestOnceRefusesMisuse(t *testing.T) {
	t.Parallel()
	client := newClient(t, memkv.New())
	for name, o := range map[string]*lock.Once{
		"no client": lock.NewOnce(nil, "job"),
		"zero":      {},
		"no job":    lock.NewOnce(client, ""),
		"long job":  lock.NewOnce(client, strings.Repeat("x", lease.MaxKeySize)),
		"retention": lock.NewOnce(client, "job", lock.WithRetention(time.Second)),
	} {
		_, err := o.Do(t.Context(), "slot", mustNotRun(t))
		require.ErrorIs(t, err, lease.ErrInvalid, name)
		_, err = o.Outcome(t.Context(), "slot")
		require.ErrorIs(t, err, lease.ErrInvalid, name)
		require.ErrorIs(t, o.Forget(t.Context(), "slot"), lease.ErrInvalid, name)
	}
	_, err := lock.NewOnce(client, "job").Do(t.Context(), "", mustNotRun(t))
	require.ErrorIs(t, err, lease.ErrInvalid)
	_, err = lock.NewOnce(client, "job").Do(t.Context(), "slot", nil)
	require.ErrorIs(t, err, lease.ErrInvalid)
}

func TestOnceCosts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		mine, theirs := newLink(store), newLink(store)
		o, other := lock.NewOnce(newClient(t, mine), "job"), lock.NewOnce(newClient(t, theirs), "job")
		_, err := o.Do(t.Context(), "first", nop)
		require.NoError(t, err)
		_, err = other.Do(t.Context(), "another", nop)
		require.NoError(t, err)
		mine.take()

		_, err = o.Do(t.Context(), "slot", func(ctx context.Context, _ *lease.Lease) error {
			theirs.take()
			_, err := other.Do(ctx, "slot", mustNotRun(t))
			require.ErrorIs(t, err, lease.ErrHeld)
			require.Equal(t, map[string]int{"Get": 1, "session Get": 2, "AtomicPut": 1}, theirs.take(), "runs elsewhere")
			_, err = other.Outcome(ctx, "slot")
			require.NoError(t, err)
			require.Equal(t, map[string]int{"Get": 1, "session Get": 1}, theirs.take(), "outcome of a running one")
			return nil
		})
		require.NoError(t, err)
		require.Equal(t, map[string]int{"Get": 1, "AtomicPut": 3}, mine.take(), "first claim")

		_, err = other.Do(t.Context(), "slot", mustNotRun(t))
		require.NoError(t, err)
		require.Equal(t, map[string]int{"Get": 1}, theirs.take(), "done")
		_, err = other.Outcome(t.Context(), "slot")
		require.NoError(t, err)
		require.Equal(t, map[string]int{"Get": 1}, theirs.take(), "outcome")
		require.NoError(t, other.Forget(t.Context(), "slot"))
		require.Equal(t, map[string]int{"AtomicPut": 3}, theirs.take(), "forget")
	})
}

func TestOnceKeepsOutcomesForTheRetention(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		options []lock.OnceOption
		want    string
	}{{nil, `"sweep_ms":604800000`}, {[]lock.OnceOption{lock.WithRetention(time.Hour)}, `"sweep_ms":3600000`}} {
		store := memkv.New()
		o := lock.NewOnce(newClient(t, store), "job", c.options...)
		_, err := o.Do(t.Context(), "slot", nop)
		require.NoError(t, err)
		row, err := store.Get(t.Context(), "lease/"+o.Key("slot"), kv.WithAttemptTimeout(time.Second))
		require.NoError(t, err)
		require.Contains(t, row.String(), c.want)
	}
}

func TestSlotNamesThePeriod(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 4, 5, 6, 7, 8, time.FixedZone("somewhere", 2*60*60))
	require.Equal(t, "2026-03-04T03:00:00Z", lock.Slot(at, time.Hour))
	require.Equal(t, "2026-03-04T00:00:00Z", lock.Slot(at, 24*time.Hour))
	require.Equal(t, "2026-03-02T00:00:00Z", lock.Slot(at, 7*24*time.Hour), "a Monday")
	require.Equal(t, "2026-03-04T03:06:07.000000008Z", lock.Slot(at, time.Nanosecond))
	require.Empty(t, lock.Slot(at, 0))
	early, late := at.Truncate(time.Hour).Add(-time.Minute), at.Truncate(time.Hour).Add(time.Minute)
	require.NotEqual(t, lock.Slot(early, time.Hour), lock.Slot(late, time.Hour))
	require.Equal(t, lock.Slot(early.Add(30*time.Minute), time.Hour), lock.Slot(late.Add(30*time.Minute), time.Hour))
}
