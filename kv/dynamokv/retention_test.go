package dynamokv_test

import (
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/dynamomem"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/dynamokv"
)

// hardDeletes is a Store that keeps no tombstones.
func hardDeletes(t *testing.T, server *dynamomem.Server) (*dynamokv.Store, *dynamomem.Client) {
	t.Helper()
	return memStore(t, server, dynamokv.WithRetention(0))
}

func TestWithoutRetentionADeleteRemovesTheRow(t *testing.T) {
	t.Parallel()
	for name, make := range map[string]func(*testing.T) *rig{
		"in memory":   func(t *testing.T) *rig { return newMemRig(t, dynamokv.WithRetention(0)) },
		"on emulator": func(t *testing.T) *rig { return newRig(t, dynamokv.WithRetention(0)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := make(t)
			previous := create(t, s)
			s.wire.inject(nil)
			require.NoError(t, s.Delete(t.Context(), "key"))
			require.Equal(t, 1, s.wire.requests())
			require.Empty(t, s.raw(t, "key"))
			require.NoError(t, s.Delete(t.Context(), "key"), "nothing to delete")

			again := create(t, s)
			require.Greater(t, again.Version, previous.Version)
			var lost *kv.ConflictError
			require.ErrorAs(t, s.AtomicDelete(t.Context(), "key", previous), &lost)
			require.Equal(t, again.Version, lost.Current.Version)
			s.wire.inject(nil)
			require.NoError(t, s.AtomicDelete(t.Context(), "key", again))
			require.Equal(t, 1, s.wire.requests())
			require.Empty(t, s.raw(t, "key"))
			require.ErrorAs(t, s.AtomicDelete(t.Context(), "key", again), &lost)
			require.Nil(t, lost.Current)
		})
	}
}

func TestWithoutRetentionTheLostAnswerOfAnAtomicDeleteIsUncertain(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		fault dynamomem.Fault
		want  error
	}{
		{dynamomem.LostAnswer(dynamomem.ErrCut), kv.ErrUncertain},
		{dynamomem.Lost(dynamomem.ErrCut), nil},
	} {
		synctest.Test(t, func(t *testing.T) {
			s, client := hardDeletes(t, newMem())
			p := create(t, s)
			_, err := s.AtomicPut(t.Context(), "key")
			require.ErrorIs(t, err, kv.ErrKeyExists) // the endpoint is now known to return rows
			client.Inject(onlyFirst(c.fault))
			err = s.AtomicDelete(t.Context(), "key", p)
			require.Equal(t, 2, client.Requests())
			if c.want == nil {
				require.NoError(t, err)
				return
			}
			requireOnly(t, err, c.want)
		})
	}
}

// TestWithoutRetentionALateCreateComesBack shows the loss that WithRetention tells of.
func TestWithoutRetentionALateCreateComesBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, client := hardDeletes(t, newMem())
		client.Inject(onlyFirst(dynamomem.Late(clock.System, landing, dynamomem.ErrCut)))
		p, err := s.AtomicPut(t.Context(), "key")
		require.NoError(t, err)
		require.NoError(t, s.AtomicDelete(t.Context(), "key", p))
		client.Wait()
		again, err := s.Get(t.Context(), "key")
		require.NoError(t, err)
		require.Equal(t, p.Version, again.Version)
	})
}

func TestWithoutRetentionNoLiveRowIsSwept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := newMem()
		s, _ := hardDeletes(t, server)
		require.NoError(t, s.Put(t.Context(), "key", kv.WithTTL(1900*time.Millisecond)))
		time.Sleep(1899 * time.Millisecond)
		require.Zero(t, server.Sweep(time.Now()))
		_, err := s.Get(t.Context(), "key")
		require.NoError(t, err)
		time.Sleep(3 * time.Second)
		require.Equal(t, 1, server.Sweep(time.Now()))
	})
}

func TestWhatRetentionIsAllowed(t *testing.T) {
	t.Parallel()
	client := newMem().Client()
	const most = 10 * 365 * 24 * time.Hour
	for _, d := range []time.Duration{math.MinInt64, -1, 1, time.Hour - 1, most + 1, math.MaxInt64} {
		_, err := dynamokv.New(client, "table", dynamokv.WithRetention(d))
		require.ErrorIs(t, err, kv.ErrInvalidOption)
		require.ErrorContains(t, err, fmt.Sprintf("WithRetention(%v): want 0, or %v to %v", d, time.Hour, most))
	}
	for _, d := range []time.Duration{time.Hour, most} {
		_, err := dynamokv.New(client, "table", dynamokv.WithRetention(d))
		require.NoError(t, err)
	}
	_, err := dynamokv.New(deafClient{}, "table", dynamokv.WithRetention(0))
	require.ErrorIs(t, err, kv.ErrInvalidOption)
	require.ErrorContains(t, err, "DeleteItem")
}
