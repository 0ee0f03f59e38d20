package pgkv

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// A watch that begins while the last one before it ends listens when that has
// ended, not beside it.
func TestAStoreListensOnceAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := hub{watches: map[*watch]struct{}{}}
		var listening atomic.Int32
		mayEnd := make(chan struct{})
		hear := func(ctx context.Context) {
			listening.Add(1)
			defer listening.Add(-1)
			<-ctx.Done()
			<-mayEnd
		}
		first, second := &watch{}, &watch{prefix: "second"}
		h.add(first, hear)
		go h.remove(first)
		synctest.Wait()
		h.add(second, hear)
		synctest.Wait()
		beside := listening.Load()
		close(mayEnd)
		synctest.Wait()
		after := listening.Load()
		h.remove(second)
		require.EqualValues(t, 1, beside, "the first one's")
		require.EqualValues(t, 1, after, "the second one's")
		require.Zero(t, listening.Load())
	})
}
