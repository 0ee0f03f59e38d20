package lease_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
)

// The first heartbeat lands and its answer is lost. The second finds that out, by a conflict or by an answer that is itself uncertain but carries
// the row; that does not extend the trust, so the third must not wait for its turn.
func TestR2SessionBeatsAtOnceWhenItHasAdoptedItsOwnHeartbeat(t *testing.T) {
	t.Parallel()
	for _, conflict := range []bool{true, false} {
		t.Run(map[bool]string{true: "conflict", false: "uncertain with the row"}[conflict], func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				a, link := w.client("a")
				l := w.acquire(a, "key")
				var mu sync.Mutex
				var sent []time.Time
				link.setIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
					if !strings.HasPrefix(call.Key, "session/") {
						return next(ctx)
					}
					mu.Lock()
					sent = append(sent, time.Now())
					n := len(sent)
					mu.Unlock()
					err := next(ctx)
					switch {
					case n == 1:
						return &kv.UncertainError{Key: call.Key, Err: errLost}
					case n == 2 && !conflict:
						row, getErr := w.store.Get(ctx, call.Key)
						require.NoError(t, getErr)
						return &kv.UncertainError{Key: call.Key, Current: row, Err: errLost}
					}
					return err
				})
				time.Sleep(ttl / 2)
				synctest.Wait()
				mu.Lock()
				defer mu.Unlock()
				require.Len(t, sent, 3)
				require.Greater(t, sent[1], sent[0])
				require.Equal(t, sent[1], sent[2])
				require.Equal(t, ttl-margin-time.Since(sent[2]), l.Remaining())
			})
		})
	}
}
