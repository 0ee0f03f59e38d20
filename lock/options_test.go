package lock_test

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

func TestOnceRefusesDurationsThatAreOutOfBounds(t *testing.T) {
	t.Parallel()
	link := newLink(memkv.New())
	client := newClient(t, link)
	for d, ok := range map[time.Duration]bool{
		math.MinInt64: false, -1: false, 0: false, time.Minute - 1: false, time.Minute: true,
		lock.MaxRetention: true, lock.MaxRetention + 1: false, math.MaxInt64: false,
	} {
		_, err := lock.NewOnce(client, "job", lock.WithRetention(d)).Outcome(t.Context(), "slot")
		if ok {
			require.NoError(t, err, d)
			continue
		}
		require.ErrorIs(t, err, lease.ErrInvalid, d)
		require.ErrorContains(t, err, d.String(), "it names the value")
	}
	require.Equal(t, map[string]int{"Get": 2}, link.take(), "what is refused sends nothing")
}

func TestNilOptionsAreRefused(t *testing.T) {
	t.Parallel()
	link := newLink(memkv.New())
	client := newClient(t, link)
	_, err := lock.NewOnce(client, "job", lock.Wait(), nil).Do(t.Context(), "slot", mustNotRun(t))
	require.ErrorIs(t, err, lease.ErrInvalid)
	require.ErrorContains(t, err, "nil option")
	_, err = lock.NewMutex(client, "job", nil).TryLock(t.Context())
	require.ErrorIs(t, err, lease.ErrInvalid)
	require.Empty(t, link.take())
}

// The first bad option counts, whatever comes after it.
func TestABadOptionIsNotHealedByALaterOne(t *testing.T) {
	t.Parallel()
	o := lock.NewOnce(newClient(t, memkv.New()), "job", lock.WithRetention(0), lock.WithRetention(time.Hour), lock.Wait())
	_, err := o.Outcome(t.Context(), "slot")
	require.ErrorIs(t, err, lease.ErrInvalid)
	require.ErrorContains(t, err, "WithRetention(0s)")
}
