package pool_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/pool"
)

// Who has finished a partition takes one that nobody had room for at once. It
// needs neither another plan nor a request more.
func TestPoolMemberThatHasFinishedTakesTheNextAtOnce(t *testing.T) {
	t.Parallel()
	for _, members := range []int{1, 3} {
		t.Run(fmt.Sprint(members), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				const n, max, work = 300, 5, 100 * time.Millisecond
				w.partitions(n)
				var all []*member
				for i := range members {
					all = append(all, w.member(fmt.Sprint(i), func(context.Context, *pool.Work) error {
						time.Sleep(work)
						return pool.ErrDone
					}, pool.WithMaxPartitions(max)))
				}
				began := time.Now()
				puts, listings := 0, 0
				for _, m := range all {
					m.requireEnd(t)
					calls := m.link.Take()
					puts += calls["AtomicPut"]
					listings += calls["ListPage"]
				}
				require.Less(t, time.Since(began), interval, "a plan for each batch")
				require.LessOrEqual(t, puts, 2*n+n/5+3*members, "they got in each other's way")
				require.LessOrEqual(t, listings, 30*members)
			})
		})
	}
}

// What nobody had room for is not taken by who is not to take any.
func TestPoolMemberThatIsCordonedTakesNoNext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(20)
		finishes := make(chan struct{})
		m := w.member("0", func(_ context.Context, l *pool.Work) error {
			b.begin("0", l)
			defer b.end("0", l)
			<-finishes
			return pool.ErrDone
		}, pool.WithMaxPartitions(2))
		b.await(t, time.Minute, 2, 1)
		require.NoError(t, m.Cordon(t.Context()))
		time.Sleep(2 * interval)
		close(finishes)
		time.Sleep(3 * interval)
		counts, err := m.Progress(t.Context())
		require.NoError(t, err)
		require.Equal(t, pool.Progress{Total: 20, Done: 2, Idle: 18}, counts)
		m.Uncordon()
		m.requireEnd(t)
	})
}

// Somebody else was faster, since views differ, and does not keep it. Who has lost
// plans again soon, and not an interval later.
func TestPoolMemberThatHasLostAClaimPlansAgainSoon(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		other, _ := w.client("other")
		hook, taken := beforeTaking(func() error {
			l, err := other.TryAcquire(context.Background(), "pool/p/00000")
			if err == nil {
				time.AfterFunc(500*time.Millisecond, func() { _ = l.Release(context.Background()) })
			}
			return err
		})
		c, link := w.client("0", lease.WithTTL(lease.DefaultTTL))
		link.SetIntercept(hook)
		m := w.run(&member{client: c, link: link}, b.handler("0"))
		time.Sleep(2 * interval) // it is not new any more
		w.partitions(1)
		require.NoError(t, <-taken)
		began := time.Now()
		b.await(t, time.Minute, 1, 1)
		require.Less(t, time.Since(began), interval/2)
		m.leave(t)
	})
}
