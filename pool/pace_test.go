package pool_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/pool"
)

// I13: a member that waits for a partition whose reads fail at once asks less and
// less often.
func TestI13MemberAsksAFailingStoreLessAndLessOften(t *testing.T) {
	t.Parallel()
	refused := errors.New("access denied")
	for name, prefix := range map[string]string{
		"reads of the row": "lease/pool/", "reads of the session": "session/", "all reads": "",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				holder, _ := w.client("holder")
				w.partitions(1)
				l, err := holder.TryAcquire(t.Context(), "pool/p/00000", lease.KeepValue())
				require.NoError(t, err)
				c, link := w.client("0")
				var failing atomic.Bool
				link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
					if failing.Load() && call.Op == "Get" && strings.HasPrefix(call.Key, prefix) {
						return refused
					}
					return next(ctx)
				})
				b := newLedger()
				m := w.run(&member{client: c, link: link}, b.handler("0"), pool.WithPlanInterval(time.Hour))
				time.Sleep(30 * time.Second)
				failing.Store(true)
				link.Take()
				time.Sleep(10 * time.Second)
				require.LessOrEqual(t, link.Take()["Get"], 2*10*20, "a round per 50 ms")
				for range 5 {
					time.Sleep(12 * time.Second)
					require.LessOrEqual(t, link.Take()["Get"], 2*12, "a round a second")
				}
				failing.Store(false)
				require.NoError(t, l.Release(t.Context()))
				b.await(t, 10*time.Second, 1, 1)
				m.leave(t)
			})
		})
	}
}
