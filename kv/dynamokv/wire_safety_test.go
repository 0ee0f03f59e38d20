package dynamokv_test

import (
	"context"
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/dynamomem"
	"github.com/dynalock/dynalock/kv"
)

// landing is when a late request lands: behind all attempts of an operation
// that is settled by its next one or two.
const landing = 5 * time.Minute

// onlyFirst does fault to the first request and lets the others through.
func onlyFirst(fault dynamomem.Fault) dynamomem.Fault {
	return func(ctx context.Context, c dynamomem.Call, apply dynamomem.Apply) (any, error) {
		if c.Number == 1 {
			return fault(ctx, c, apply)
		}
		return apply()
	}
}

func TestALateCreateLandsOnATombstone(t *testing.T) {
	t.Parallel()
	for _, fault := range []dynamomem.Fault{
		dynamomem.Late(clock.System, landing, dynamomem.ErrCut),
		dynamomem.Late(clock.System, 10*time.Minute, dynamomem.ErrCut),
	} {
		synctest.Test(t, func(t *testing.T) {
			server := newMem()
			s, client := memStore(t, server)
			client.Inject(onlyFirst(fault))
			p, err := s.AtomicPut(t.Context(), "key", kv.WithString("late"))
			require.NoError(t, err)
			require.NoError(t, s.AtomicDelete(t.Context(), "key", p))
			buried := server.Item("table", "dynalock", "key")
			client.Wait()
			require.Equal(t, buried, server.Item("table", "dynalock", "key"))
			_, err = s.Get(t.Context(), "key")
			require.ErrorIs(t, err, kv.ErrKeyNotFound)
		})
	}
}

func TestALateSwapLandsOnANewerPair(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := newMem()
		s, client := memStore(t, server)
		old := create(t, s)
		client.Inject(onlyFirst(dynamomem.Late(clock.System, landing, dynamomem.ErrCut)))
		mine, err := s.AtomicPut(t.Context(), "key", kv.WithPrevious(old), kv.WithString("mine"))
		require.NoError(t, err)
		_, err = s.AtomicPut(t.Context(), "key", kv.WithPrevious(mine), kv.WithString("newer"))
		require.NoError(t, err)
		client.Wait()
		p, err := s.Get(t.Context(), "key")
		require.NoError(t, err)
		require.Equal(t, "newer", p.String())
	})
}

// TestATombstoneOfAClockAheadAfterALostAnswer: the row is above any version of
// ours, so it does not tell whether ours was applied; a second try with another
// write id could take the key twice.
func TestATombstoneOfAClockAheadAfterALostAnswer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		fault dynamomem.Fault
		want  error
	}{
		{dynamomem.Lost(dynamomem.ErrCut), kv.ErrUncertain},
		{dynamomem.LostAnswer(dynamomem.ErrCut), kv.ErrUncertain},
		{dynamomem.Refused(400, "ThrottlingException"), nil},
	} {
		synctest.Test(t, func(t *testing.T) {
			server := newMem()
			theirs, _ := memStore(t, server, ahead(time.Minute))
			require.NoError(t, theirs.AtomicDelete(t.Context(), "key", create(t, theirs)))
			s, client := memStore(t, server)
			client.Inject(onlyFirst(c.fault))
			_, err := s.AtomicPut(t.Context(), "key")
			if c.want == nil {
				require.NoError(t, err)
				require.Equal(t, 3, client.Requests())
				return
			}
			requireOnly(t, err, c.want)
			require.Equal(t, 2, client.Requests())
		})
	}
}

// TestAttemptsJudgeExpiryByOneTime: the pair expires between two attempts. An
// attempt that may yet land goes by the first time, so the others do too.
func TestAttemptsJudgeExpiryByOneTime(t *testing.T) {
	t.Parallel()
	hangTwice := func(ctx context.Context, c dynamomem.Call, apply dynamomem.Apply) (any, error) {
		if c.Number <= 2 {
			return dynamomem.Hang(ctx, c, apply) // a second each
		}
		return apply()
	}
	t.Run("swap", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s, client := memStore(t, newMem())
			p, err := s.AtomicPut(t.Context(), "key", kv.WithTTL(time.Second))
			require.NoError(t, err)
			client.Inject(hangTwice)
			_, err = s.AtomicPut(t.Context(), "key", kv.WithPrevious(p), kv.WithTTL(time.Hour))
			require.NoError(t, err)
			require.Equal(t, 3, client.Requests())
		})
	})
	t.Run("create", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			server := newMem()
			theirs, _ := memStore(t, server)
			require.NoError(t, theirs.Put(t.Context(), "key", kv.WithTTL(time.Second)))
			s, client := memStore(t, server)
			client.Inject(hangTwice)
			_, err := s.AtomicPut(t.Context(), "key")
			requireOnly(t, err, kv.ErrUncertain)
			require.Equal(t, 3, client.Requests())
		})
	})
}

func TestAttemptsOfEachOperationAreTheSame(t *testing.T) {
	t.Parallel()
	for _, op := range wireOperations {
		synctest.Test(t, func(t *testing.T) {
			s, client := memStore(t, newMem())
			var previous *kv.KVPair
			if op.name != "create" {
				previous = create(t, s)
			}
			var inputs []string
			client.Inject(func(ctx context.Context, c dynamomem.Call, apply dynamomem.Apply) (any, error) {
				text, err := json.Marshal(c.Input)
				inputs = append(inputs, string(text))
				require.NoError(t, err)
				return dynamomem.Lost(dynamomem.ErrCut)(ctx, c, apply)
			})
			require.Error(t, op.run(t.Context(), s, previous))
			require.Greater(t, len(inputs), 10)
			for _, in := range inputs {
				require.Equal(t, inputs[0], in)
			}
		})
	}
}

func TestASweepTakesNoRowThatIsStillNeeded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := newMem()
		s, _ := memStore(t, server)
		first := create(t, s)
		require.NoError(t, s.AtomicDelete(t.Context(), "key", first))
		time.Sleep(24*time.Hour - time.Second)
		require.Zero(t, server.Sweep(time.Now()))
		time.Sleep(2 * time.Second)
		require.Equal(t, 1, server.Sweep(time.Now()))
		again, _ := memStore(t, server) // one that has seen no version
		require.Greater(t, create(t, again).Version, first.Version+1, "versions grow across a sweep")
	})
}
