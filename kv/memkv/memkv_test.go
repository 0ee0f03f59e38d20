package memkv_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/kvtest"
	"github.com/dynalock/dynalock/kv/memkv"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	kvtest.Run(t, kvtest.Harness{
		Open:   func(*testing.T) kv.Store { return memkv.New() },
		Second: func(_ *testing.T, store kv.Store) kv.Store { return store },
	})
}

func TestZeroValueIsReady(t *testing.T) {
	t.Parallel()
	var store memkv.Store
	_, err := store.Get(t.Context(), "k")
	require.ErrorIs(t, err, kv.ErrKeyNotFound)
	require.NoError(t, store.Put(t.Context(), "k"))
	require.Zero(t, kv.MaxWriteDelay(&store))
}

// Not parallel: testing.AllocsPerRun counts those of the whole process.
func TestGetAllocatesPairAndValueOnly(t *testing.T) {
	store := memkv.New()
	ctx := t.Context()
	require.NoError(t, store.Put(ctx, "k", kv.WithString("value")))
	allocs := testing.AllocsPerRun(100, func() {
		if _, err := store.Get(ctx, "k"); err != nil {
			t.Error(err)
		}
	})
	require.LessOrEqual(t, allocs, 2.0)
}
