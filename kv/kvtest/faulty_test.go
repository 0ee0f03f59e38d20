package kvtest_test

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/kvtest"
	"github.com/dynalock/dynalock/kv/memkv"
)

func TestFaultyWithoutFaultsIsAStore(t *testing.T) {
	t.Parallel()
	kvtest.Run(t, kvtest.Harness{Open: func(*testing.T) kv.Store { return kvtest.Faulty(memkv.New(), kvtest.Plan{}) }})
}

func TestALateStoreIsAStore(t *testing.T) {
	t.Parallel()
	plan := kvtest.Plan{Delay: 0.5, MaxDelay: 3 * time.Millisecond}
	kvtest.Run(t, kvtest.Harness{Open: func(*testing.T) kv.Store { return kvtest.Faulty(memkv.New(), plan) }})
}

func TestALostRequestDoesNothing(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	inner := memkv.New()
	require.NoError(t, inner.Put(ctx, "k", kv.WithString("old")))
	before, err := inner.Get(ctx, "k")
	require.NoError(t, err)
	store := kvtest.Faulty(inner, kvtest.Plan{LostRequest: 1})
	_, putErr := store.AtomicPut(ctx, "k", kv.WithPrevious(before))
	for op, err := range map[string]error{
		"Put": store.Put(ctx, "k"), "AtomicPut": putErr, "Delete": store.Delete(ctx, "k"),
		"AtomicDelete": store.AtomicDelete(ctx, "k", before),
	} {
		require.ErrorIs(t, err, kv.ErrUncertain, op)
		require.ErrorIs(t, err, kvtest.ErrInjected, op)
	}
	_, err = store.Get(ctx, "k")
	require.ErrorIs(t, err, kvtest.ErrInjected)
	require.NotErrorIs(t, err, kv.ErrUncertain)
	after, err := inner.Get(ctx, "k")
	require.NoError(t, err)
	require.Equal(t, before, after)
	require.ErrorIs(t, store.Put(ctx, ""), kv.ErrInvalidKey, "what is never sent is not lost")
}

func TestALostAnswerLeavesTheWrite(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	inner := memkv.New()
	store := kvtest.Faulty(inner, kvtest.Plan{LostAnswer: 1})
	pair, err := store.AtomicPut(ctx, "k", kv.WithString("v"))
	require.Nil(t, pair)
	var uncertain *kv.UncertainError
	require.ErrorAs(t, err, &uncertain)
	written, err := inner.Get(ctx, "k")
	require.NoError(t, err)
	require.Equal(t, "v", written.String())
	require.Equal(t, written.Version, uncertain.Version)

	_, err = store.AtomicPut(ctx, "k")
	require.ErrorIs(t, err, kv.ErrUncertain, "the answer was a conflict, and it was lost")
	require.NotErrorIs(t, err, kv.ErrKeyExists)
	pair, err = store.Get(ctx, "k")
	require.ErrorIs(t, err, kvtest.ErrInjected)
	require.Nil(t, pair)
	require.ErrorIs(t, store.AtomicDelete(ctx, "k", written), kv.ErrUncertain)
	exists, err := inner.Exists(ctx, "k")
	require.NoError(t, err)
	require.False(t, exists)
}

func TestThrottledOperationsDoNothing(t *testing.T) {
	t.Parallel()
	inner := memkv.New()
	store := kvtest.Faulty(inner, kvtest.Plan{Throttle: 1,
		Only: func(call kv.Call) bool { return call.Op == "Put" && call.Key == "k" }})
	require.ErrorIs(t, store.Put(t.Context(), "k"), kv.ErrThrottled)
	require.NoError(t, store.Put(t.Context(), "other"))
	exists, err := store.Exists(t.Context(), "k")
	require.NoError(t, err)
	require.False(t, exists)
}

func TestDelaysEndWithTheContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := kvtest.Faulty(memkv.New(), kvtest.Plan{Delay: 1, MaxDelay: time.Hour})
		start := time.Now()
		require.NoError(t, store.Put(t.Context(), "k"))
		require.Positive(t, time.Since(start))
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err := store.Get(ctx, "k")
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

func TestAnOutageEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		down := false
		store := kvtest.Faulty(memkv.New(), kvtest.Plan{Outage: func() bool { return down }})
		require.NoError(t, store.Put(t.Context(), "k"))
		errs, events := 0, 0
		for _, err := range kv.Watch(t.Context(), store, "") {
			if err != nil {
				require.ErrorIs(t, err, kvtest.ErrInjected)
				errs++
				down = errs < 3
				if !down {
					require.NoError(t, store.Delete(t.Context(), "k"))
				}
				continue
			}
			if events++; events == 3 {
				break
			}
			down = events == 2 // once it is synced
		}
		require.Equal(t, 3, errs)
	})
}

func TestASeedRepeatsItsFaults(t *testing.T) {
	t.Parallel()
	run := func(seed uint64) (outcomes string) {
		store := kvtest.Faulty(memkv.New(), kvtest.Plan{Seed: seed, LostRequest: 0.2, LostAnswer: 0.2, Throttle: 0.2})
		for i := range 100 {
			outcomes += fmt.Sprintln(store.Put(t.Context(), strconv.Itoa(i)))
		}
		return outcomes
	}
	first := run(1)
	require.Equal(t, first, run(1))
	require.NotEqual(t, first, run(2))
}

func TestUpdateNeverCountsTwiceUnderFaults(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		inner := memkv.New()
		store := kvtest.Faulty(inner, kvtest.Plan{Seed: seed, LostRequest: 0.1, LostAnswer: 0.1, Throttle: 0.1})
		sure, unsure := 0, 0
		for range 200 {
			_, err := kv.Update(t.Context(), store, "n", func(current *kv.KVPair) ([]byte, error) {
				n := 0
				if current != nil {
					n, _ = strconv.Atoi(current.String())
				}
				return strconv.AppendInt(nil, int64(n+1), 10), nil
			})
			if err == nil {
				sure++
			} else {
				unsure++
			}
		}
		pair, err := inner.Get(t.Context(), "n")
		require.NoError(t, err)
		n, err := strconv.Atoi(pair.String())
		require.NoError(t, err)
		require.GreaterOrEqual(t, n, sure, "seed %d", seed)
		require.LessOrEqual(t, n, sure+unsure, "seed %d", seed)
		require.Positive(t, unsure)
	}
}
