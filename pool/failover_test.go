package pool_test

import (
	"context"
	"fmt"
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

// failover is I5 at the defaults: within it a waiter has the key of a holder that crashed.
const failover = lease.DefaultTTL + lease.DefaultTTL/16 + lease.DefaultTTL/3 + time.Second

// five starts five members and waits until they share n partitions.
func (w *world) five(b *ledger, n int) []*member {
	w.t.Helper()
	w.partitions(n)
	var members []*member
	for i := range 5 {
		name := fmt.Sprint(i)
		members = append(members, w.member(name, b.handler(name)))
	}
	b.await(w.t, 20*time.Minute, n, 5)
	time.Sleep(2 * interval)
	b.takeMoves()
	return members
}

// A thousand partitions, and ten thousand every night.
func TestPoolRetakesAllPartitionsOfACrashedMemberWithOneKill(t *testing.T) {
	t.Parallel()
	n := 1000
	if long() {
		n = 10_000
	}
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(n)
		var members []*member
		for i := range 5 { // with little to spare, so that the first does not take all
			name := fmt.Sprint(i)
			members = append(members, w.member(name, b.handler(name), pool.WithMaxPartitions(n/4), pool.WithMaxMoves(100)))
		}
		b.await(t, 10*time.Minute, n, 5)
		time.Sleep(2 * interval)
		b.takeMoves()
		var kills atomic.Int32
		for _, m := range members[1:] {
			m.link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
				err := next(ctx)
				if call.Op == "AtomicDelete" && strings.HasPrefix(call.Key, "session/") && err == nil {
					kills.Add(1)
				}
				return err
			})
		}
		members[0].crash(b, "0")
		took := b.await(t, failover+3*interval, n, 4)
		require.EqualValues(t, 1, kills.Load())
		require.Equal(t, n/5, b.takeMoves())
		b.requireNoOverlap(t)
		t.Logf("retaken after %v", took)
		for _, m := range members[1:] {
			m.leave(t)
		}
	})
}

func TestPoolDoesNotCountAnIdleMemberThatCrashed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(1)
		first := w.member("0", b.handler("0"))
		b.await(t, time.Minute, 1, 1)
		idle := w.member("1", b.handler("1"))
		time.Sleep(interval)
		idle.crash(b, "1")
		require.Len(t, w.rows("session/"), 2)
		time.Sleep(failover + 2*interval)
		require.Len(t, w.rows("session/"), 1)
		w.partitions(2)
		b.await(t, 2*interval, 2, 1)
		first.leave(t)
	})
}

func TestPoolPartitionsOfAMemberThatStopsRunElsewhereWithinTwoIntervals(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		members := w.five(b, 100)
		members[2].leave(t)
		took := b.await(t, 2*interval, 100, 4)
		require.Equal(t, 20, b.takeMoves())
		b.requireNoOverlap(t)
		t.Logf("after %v", took)
		require.NoError(t, members[2].client.Close(t.Context()))
		for i, m := range members {
			if i != 2 {
				m.leave(t)
			}
		}
		require.Empty(t, b.load())
	})
}

func TestPoolRollingRestartMovesEachPartitionTwiceAtMost(t *testing.T) {
	t.Parallel()
	for _, pause := range []time.Duration{time.Second, 7 * time.Second, 30 * time.Second} {
		t.Run(pause.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w, b := newWorld(t), newLedger()
				members := w.five(b, 100)
				for i, m := range members {
					m.leave(t)
					require.NoError(t, m.client.Close(t.Context()))
					time.Sleep(pause)
					name := fmt.Sprint(i, "'")
					members[i] = w.member(name, b.handler(name))
					b.await(t, 10*interval, 100, 5)
				}
				time.Sleep(3 * interval)
				moves := b.takeMoves()
				require.LessOrEqual(t, moves, 200)
				b.requireNoOverlap(t)
				t.Logf("%d moves", moves)
				for _, m := range members {
					m.leave(t)
				}
			})
		})
	}
}

func TestPoolGoesOnWithANewSessionWhenItsOwnWasLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(10)
		m := w.member("0", b.handler("0"))
		b.await(t, time.Minute, 10, 1)
		m.link.SetIntercept(func(_ context.Context, call kv.Call, _ func(context.Context) error) error {
			time.Sleep(time.Second)
			return &kv.UncertainError{Key: call.Key, Err: errLost}
		})
		time.Sleep(lease.DefaultTTL)
		require.Empty(t, b.load(), "stopped by the trust deadline")
		m.link.SetIntercept(nil)
		b.await(t, failover+2*interval, 10, 1)
		b.requireNoOverlap(t)
		m.leave(t)
	})
}

// A member that stops says so before its handlers have drained: the others wait
// for what it gives back, and do not find out later.
func TestPoolPartitionsOfAMemberThatDrainsAreWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(10)
		m := w.member("0", func(ctx context.Context, l *pool.Work) error {
			b.begin("0", l)
			defer b.end("0", l)
			<-l.Draining()
			time.Sleep(12 * time.Second)
			return nil
		}, pool.WithDrainTimeout(time.Minute))
		b.await(t, time.Minute, 10, 1)
		n := w.member("1", b.handler("1"))
		b.await(t, 2*time.Minute, 10, 2)
		m.leave(t)
		b.await(t, 2*time.Second, 10, 1)
		b.requireNoOverlap(t)
		n.leave(t)
	})
}

func TestPoolRunEndsWhenTheStoreFailsForLongerThanTheOutageLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(10)
		m := w.member("0", b.handler("0"), pool.WithOutageLimit(20*time.Second))
		b.await(t, time.Minute, 10, 1)
		fail := func(_ context.Context, call kv.Call, _ func(context.Context) error) error {
			return &kv.UncertainError{Key: call.Key, Err: errLost}
		}
		m.link.SetIntercept(fail)
		time.Sleep(14 * time.Second)
		m.link.SetIntercept(nil)
		time.Sleep(2 * interval)
		m.link.SetIntercept(fail)
		time.Sleep(19 * time.Second)
		require.Empty(t, m.ended, "a shorter outage does not count")
		began := time.Now()
		require.ErrorIs(t, <-m.ended, errLost)
		require.LessOrEqual(t, time.Since(began), 2*interval)
		require.Empty(t, b.load())
	})
}
