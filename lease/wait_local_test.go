package lease_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/lease"
)

func TestLocalWaitIsTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var waiting atomic.Int32
		w := newWorld(t)
		a, _ := w.client("a", lease.WithObserver(func(e lease.Event) {
			if e.Type == lease.EventWaiting {
				waiting.Add(1)
			}
		}))
		w.acquire(a, "key")
		ctx, stop := context.WithCancel(t.Context())
		got := waitFor(ctx, a, "key")
		time.Sleep(time.Minute)
		stop()
		<-got
		require.Positive(t, waiting.Load())
	})
}

// A key's state is used again for another key: a wait that has seen nothing names
// nobody.
func TestAWaitDoesNotNameTheHolderOfAnotherKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, link := w.client("b")
		w.acquire(a, "key")
		wait := func(key string) *lease.WaitError {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			_, err := b.Acquire(ctx, key)
			var waited *lease.WaitError
			require.ErrorAs(t, err, &waited)
			return waited
		}
		require.Equal(t, "a", wait("key").Holder.Owner)
		link.SetCut(true)
		require.Nil(t, wait("another").Holder)
	})
}
