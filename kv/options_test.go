package kv_test

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
)

func TestAnOptionServesManyGoroutines(t *testing.T) {
	t.Parallel()
	index := kv.WithGlobalIndex("index", "field", 7, "sort")
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			settings, err := kv.ListSettings("", []kv.ReadOption{index, kv.EventuallyConsistent()})
			if err != nil || settings.Index.PartitionValue != int64(7) {
				t.Errorf("%v %v", settings.Index, err)
			}
			settings.Index.PartitionValue = "the caller's"
		})
	}
	wg.Wait()
	settings, err := kv.ListSettings("", []kv.ReadOption{index})
	require.NoError(t, err)
	require.Equal(t, int64(7), settings.Index.PartitionValue)
}
