package pool_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/pool"
)

// Who has finished its share learns that the others have finished theirs about
// as late as it has waited, not at the next plan.
func TestPoolMemberThatHasFinishedWaitsForTheOthersNotMuchLonger(t *testing.T) {
	t.Parallel()
	for _, work := range []time.Duration{500 * time.Millisecond, 3 * time.Second, 6 * time.Second, time.Minute} {
		t.Run(work.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w, b := newWorld(t), newLedger()
				w.partitions(2)
				var finished atomic.Int64
				handle := func(name string) pool.Handler {
					return func(_ context.Context, l *pool.Work) error {
						b.begin(name, l)
						defer b.end(name, l)
						time.Sleep(interval) // both have seen the other
						if l.Key() == "pool/p/00001" {
							time.Sleep(work)
							finished.Store(time.Now().UnixNano())
						}
						return pool.ErrDone
					}
				}
				m := w.member("0", handle("0"), pool.WithMaxPartitions(1))
				n := w.member("1", handle("1"), pool.WithMaxPartitions(1))
				require.NoError(t, <-m.ended)
				require.NoError(t, <-n.ended)
				late := time.Since(time.Unix(0, finished.Load()))
				require.LessOrEqual(t, late, min(work+interval/5, interval*11/10))
				require.Less(t, m.link.Take()["ListPage"]+n.link.Take()["ListPage"], 50, "it asked too often")
			})
		})
	}
}

// When plans change while a member takes what nobody has, it goes on: if all
// gave way to each other, nobody would have it.
func TestPoolAttemptAtAFreePartitionIsNotAbandonedForAnotherPlan(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(1)
		c, link := w.client("0")
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Key == "lease/pool/p/00000" {
				select {
				case <-time.After(3 * time.Second):
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			return next(ctx)
		})
		m := w.run(&member{client: c, link: link}, b.handler("0"), pool.WithPlanInterval(time.Second))
		time.Sleep(500 * time.Millisecond)
		require.NoError(t, m.Cordon(t.Context())) // the next plan gives it to nobody
		time.Sleep(4 * time.Second)
		require.Equal(t, map[string]int{"0": 1}, b.load())
		m.leave(t)
	})
}

// What a listing shows after a claim has ended is news, however soon it comes.
func TestPoolPartitionThatWasGivenUpIsTakenAgainAfterAShortInterval(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.partitions(1)
		var calls atomic.Int32
		m := w.member("0", func(context.Context, *pool.Work) error {
			calls.Add(1)
			return nil
		}, pool.WithPlanInterval(200*time.Millisecond))
		time.Sleep(20 * time.Second)
		require.InDelta(t, 100, calls.Load(), 15)
		m.leave(t)
	})
}
