package lease_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// A dead session frees the key, but it does not leave the value.
func TestR13ReleaseWithAValueOutlastsTheSession(t *testing.T) {
	t.Parallel()
	for name, takenOver := range map[string]bool{"nobody has the key": false, "another has it": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				a, link := w.client("a")
				b, _ := w.client("b")
				l, err := a.TryAcquire(t.Context(), "key", lease.KeepValue(), lease.WithValue([]byte("start")))
				require.NoError(t, err)
				link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
					if call.Key == "lease/key" {
						return &kv.UncertainError{Key: call.Key, Err: errLost}
					}
					return next(ctx)
				})
				require.ErrorIs(t, l.ReleaseWith(t.Context(), []byte("end")), kv.ErrUncertain)
				require.NoError(t, w.store.Delete(t.Context(), w.rows("session/")[0]))
				if takenOver {
					next := w.acquire(b, "key")
					require.Equal(t, "start", string(next.Value()))
				}
				time.Sleep(2 * ttl) // a heartbeat finds the session dead
				link.SetIntercept(nil)
				time.Sleep(time.Minute)

				h := inspect(t, b, "key")
				if takenOver {
					require.Equal(t, "b", h.Owner)
					require.Equal(t, "start", string(h.Value))
				} else {
					require.False(t, h.Held())
					require.Equal(t, "end", string(h.Value))
				}
				link.Take()
				time.Sleep(10 * time.Minute)
				require.Zero(t, link.Take()["AtomicPut"], "and ends")
			})
		})
	}
}
