package pool_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/pool"
)

// tool makes a pool "p" without a handler, for what needs no member.
func (w *world) tool() (*pool.Pool, *link) {
	c, l := w.client("tool")
	p, err := pool.New(c, "p", nil)
	require.NoError(w.t, err)
	return p, l
}

// beforeTaking makes a hook that calls do before the first acquiring write of
// partition 00000, and sends what do returned. A member has to be started with
// it: one that runs already may have written.
func beforeTaking(do func() error) (kv.Hook, <-chan error) {
	var once sync.Once
	done := make(chan error, 1)
	return func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
		if call.Op == "AtomicPut" && call.Key == "lease/pool/p/00000" {
			once.Do(func() { done <- do() })
		}
		return next(ctx)
	}, done
}

// The row of a partition goes between the listing that showed it and the write
// that would acquire it.
func TestPoolPartitionThatIsRemovedWhileItIsBeingTakenDoesNotComeBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(1)
		tool, _ := w.tool()
		hook, removed := beforeTaking(func() error { return tool.Remove(t.Context(), "00000") })
		m, _ := w.logged("0", b.handler("0"), hook)
		require.NoError(t, <-removed)
		time.Sleep(5 * interval)
		require.Empty(t, w.rows("lease/"))
		require.Empty(t, b.begun, "worked on")
		m.leave(t)
		require.Empty(t, w.rows("lease/"))
	})
}

// Nor does one whose row goes, by somebody's hand, while a member waits for its
// holder to give it back.
func TestPoolPartitionThatIsDeletedWhileItIsWaitedForDoesNotComeBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(2)
		m := w.member("0", func(ctx context.Context, l *pool.Work) error {
			b.begin("0", l)
			defer b.end("0", l)
			<-l.Draining()
			time.Sleep(time.Minute)
			return nil
		}, pool.WithDrainTimeout(time.Hour))
		b.await(t, time.Minute, 2, 1)
		n := w.member("1", b.handler("1"))
		time.Sleep(3 * interval) // one of the two is moving
		n.link.Take()
		time.Sleep(10 * time.Second)
		require.Positive(t, n.link.Take()["Get"], "nobody waits")
		for _, key := range w.rows("lease/") {
			require.NoError(t, w.store.Delete(t.Context(), key))
		}
		time.Sleep(10 * interval)
		require.Empty(t, w.rows("lease/"))
		require.Zero(t, b.begun["1"])
		m.leave(t)
		n.leave(t)
	})
}

// always makes every write to the pool's rows a conflict with the row as it is,
// and an error of the store once there were too many in a row.
func (l *link) always(w *world) (conflicts *atomic.Int32) {
	conflicts = new(atomic.Int32)
	l.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
		if !strings.HasPrefix(call.Key, "lease/pool/p/") || !strings.HasPrefix(call.Op, "Atomic") {
			return next(ctx)
		}
		if conflicts.Add(1) > 1000 {
			return errLost
		}
		pair, err := w.store.Get(ctx, call.Key)
		if err != nil {
			return err
		}
		return &kv.ConflictError{Key: call.Key, Current: pair}
	})
	return conflicts
}

// Whoever loses every race waits between attempts: a loop of conflicts does not spin.
func TestPoolConflictsThatNeverEndAreSlowedDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(1)

		c, link := w.client("0", lease.WithTTL(lease.DefaultTTL))
		taking := link.always(w)
		m := w.run(&member{client: c, link: link}, b.handler("0"))
		time.Sleep(10*interval + time.Second)
		require.Less(t, taking.Load(), int32(200))
		require.Greater(t, taking.Load(), int32(50))
		link.SetIntercept(nil)
		b.await(t, 2*interval, 1, 1)

		tool, link := w.tool()
		for name, change := range map[string]func(context.Context, ...string) error{
			"pause": tool.Pause, "remove": tool.Remove,
		} {
			marking := link.always(w)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			require.ErrorIs(t, change(ctx, "00000"), kv.ErrKeyModified, name)
			cancel()
			require.Less(t, marking.Load(), int32(20), name)
		}
		m.leave(t)
	})
}
