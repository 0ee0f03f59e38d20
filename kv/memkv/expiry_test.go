package memkv_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
)

func TestPairsExpireToTheMillisecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New(memkv.WithClock(clock.System))
		pair, err := store.AtomicPut(t.Context(), "k", kv.WithTTL(50*time.Millisecond))
		require.NoError(t, err)
		time.Sleep(49 * time.Millisecond)
		_, err = store.Get(t.Context(), "k")
		require.NoError(t, err)
		time.Sleep(time.Millisecond)
		_, err = store.Get(t.Context(), "k")
		var absent *kv.NotFoundError
		require.ErrorAs(t, err, &absent)
		require.Equal(t, pair.Version, absent.Version, "the row is still there")
		_, err = store.AtomicPut(t.Context(), "k", kv.WithPrevious(pair))
		var conflict *kv.ConflictError
		require.ErrorAs(t, err, &conflict)
		require.Equal(t, pair.Version, conflict.Version)
		require.Nil(t, conflict.Current)
	})
}

func TestExpiredPairsAreSwept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		require.NoError(t, store.Put(t.Context(), "old", kv.WithTTL(time.Second)))
		time.Sleep(time.Minute)
		for i := range 1100 {
			require.NoError(t, store.Put(t.Context(), fmt.Sprint(i%3)))
		}
		_, err := store.Get(t.Context(), "old")
		var absent *kv.NotFoundError
		require.ErrorAs(t, err, &absent)
		require.Zero(t, absent.Version)
	})
}
