package lease_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
)

func TestI12RequestsPerOperation(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c, link := w.client("a")
		first := w.acquire(c, "first")
		require.Equal(t, map[string]int{"AtomicPut": 2}, link.Take(), "first acquire: the session and the lease")

		w.acquire(c, "second")
		require.Equal(t, map[string]int{"AtomicPut": 1}, link.Take(), "a free key")

		require.NoError(t, first.Release(t.Context()))
		require.Equal(t, map[string]int{"AtomicDelete": 1}, link.Take(), "release")

		w.acquire(c, "first")
		require.Equal(t, map[string]int{"AtomicPut": 1}, link.Take(), "a released key")

		other, otherLink := w.client("b")
		w.acquire(other, "mine")
		otherLink.Take()
		_, err := other.TryAcquire(t.Context(), "first")
		require.ErrorIs(t, err, lease.ErrHeld)
		require.Equal(t, map[string]int{"AtomicPut": 1, "Get": 1}, otherLink.Take(), "a held key: the write, and its session")
		_, err = other.TryAcquire(t.Context(), "second")
		require.ErrorIs(t, err, lease.ErrHeld)
		require.Equal(t, map[string]int{"AtomicPut": 1}, otherLink.Take(), "a held key of a session just seen")
	})
}

func TestI12HoldingManyCostsOneWritePerHeartbeat(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c, link := w.client("a")
		leases := []*lease.Lease{}
		for _, key := range []string{"1", "2", "3", "4", "5"} {
			leases = append(leases, w.acquire(c, key))
		}
		link.Take()
		time.Sleep(10 * ttl)
		require.InDelta(t, 30, link.Take()["AtomicPut"], 3)
		closed := make(chan error)
		go func() { closed <- c.Close(context.Background()) }()
		for _, l := range leases {
			<-l.Context().Done()
			require.NoError(t, l.Release(t.Context()))
		}
		require.NoError(t, <-closed)
		require.Equal(t, map[string]int{"AtomicDelete": 1}, link.Take(), "close, with five leases held")
		require.Empty(t, w.rows("session/"))
		next, _ := w.client("b")
		require.Equal(t, "3", w.acquire(next, "3").Key(), "what the rows still say is void")
	})
}

func TestI2TokensGrow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var last uint64
		for _, name := range []string{"a", "b", "c"} {
			c, _ := w.client(name)
			for range 3 {
				l := w.acquire(c, "key")
				require.Greater(t, l.Token(), last)
				last = l.Token()
				require.NoError(t, l.Release(t.Context()))
			}
		}
	})
}

func TestTryAcquireNamesTheHolder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, _ := w.client("b")
		held := w.acquire(a, "key")
		for _, c := range []*lease.Client{a, b} { // also to the client that holds it: not reentrant
			_, err := c.TryAcquire(t.Context(), "key")
			var heldErr *lease.HeldError
			require.ErrorAs(t, err, &heldErr)
			require.Equal(t, "a", heldErr.Holder.Owner)
			require.Equal(t, held.Token(), heldErr.Holder.Token)
		}
		require.True(t, held.Held())
	})
}

func TestR9WaiterGetsTheKeyWithinATenthOfItsWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, _ := w.client("b")
		held := w.acquire(a, "key")
		got := waitFor(t.Context(), b, "key")
		time.Sleep(5 * time.Second)
		require.NoError(t, held.Release(t.Context()))
		released := time.Now()
		g := <-got
		require.NoError(t, g.err)
		require.LessOrEqual(t, g.at.Sub(released), 550*time.Millisecond)
		require.False(t, g.TakenOver())
	})
}

func TestR15WaitersOfOneClientAreServedInOrderByOnePoller(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, link := w.client("b")
		held := w.acquire(a, "key")
		order := make(chan int, 20)
		for i := range 20 {
			go func() {
				l, err := b.Acquire(t.Context(), "key")
				if err == nil {
					order <- i
					err = l.Release(t.Context())
				}
				if err != nil {
					order <- -1
				}
			}()
			synctest.Wait() // i is in the queue
		}
		link.Take()
		time.Sleep(ttl)
		require.Less(t, link.Take()["Get"], 80, "one poller, not twenty")
		require.NoError(t, held.Release(t.Context()))
		for i := range 20 {
			require.Equal(t, i, <-order)
		}
	})
}

func TestAcquireEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, _ := w.client("b")
		w.acquire(a, "key")
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		began := time.Now()
		_, err := b.Acquire(ctx, "key")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 3*time.Second, time.Since(began))
	})
}

func TestR13Release(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c, _ := w.client("a")
		l := w.acquire(c, "key")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.NoError(t, l.Release(ctx), "does not depend on the caller's context")
		require.NoError(t, l.Release(t.Context()), "twice is once")
		require.False(t, l.Held())
		require.ErrorIs(t, l.Err(), lease.ErrNotHeld)
		require.ErrorIs(t, context.Cause(l.Context()), lease.ErrNotHeld)
		require.Empty(t, w.rows("lease/"))
	})
}

func TestR13ReleaseWithLostAnswersGoesOnInTheBackground(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c, link := w.client("a")
		l := w.acquire(c, "key")
		answers := 0
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Op != "AtomicDelete" || call.Key != "lease/key" {
				return next(ctx)
			}
			err := next(ctx)
			if answers++; answers < 3 {
				return &kv.UncertainError{Key: call.Key, Err: errLost}
			}
			return err
		})
		require.ErrorIs(t, l.Release(t.Context()), kv.ErrUncertain)
		require.Empty(t, w.rows("lease/"))
		time.Sleep(time.Second)
		require.Equal(t, 3, link.Take()["AtomicDelete"], "twice, and once in the background: then it is known")
	})
}

func TestI4ReleaseOfALostLeaseLeavesTheNewHolder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		b, _ := w.client("b")
		old := w.acquire(a, "key")
		link.SetCut(true)
		now, err := b.Acquire(t.Context(), "key")
		require.NoError(t, err)
		link.SetCut(false)
		require.ErrorIs(t, old.Release(t.Context()), lease.ErrLost)
		time.Sleep(2 * ttl)
		require.True(t, now.Held())
		_, err = a.TryAcquire(t.Context(), "key")
		require.ErrorIs(t, err, lease.ErrHeld)
	})
}

func TestR16CloseWaitsForReleaseAndRefusesAcquires(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, _ := w.client("b")
		l := w.acquire(a, "key")
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		waiter := waitFor(ctx, a, "key")
		synctest.Wait()
		closed := make(chan error, 1)
		go func() { closed <- a.Close(ctx) }()
		synctest.Wait()
		require.Equal(t, lease.ReasonClosed, reason(t, context.Cause(l.Context())))
		require.False(t, l.Held())
		require.ErrorIs(t, (<-waiter).err, lease.ErrClosed)
		_, err := a.TryAcquire(t.Context(), "other")
		require.ErrorIs(t, err, lease.ErrClosed)

		time.Sleep(2 * ttl) // the holder takes its time to stop, and is not taken for dead
		_, err = b.TryAcquire(t.Context(), "key")
		require.ErrorIs(t, err, lease.ErrHeld)
		require.Empty(t, closed)
		require.NoError(t, l.Release(t.Context()))
		require.NoError(t, <-closed)
		require.NoError(t, a.Close(t.Context()), "twice is once")
	})
}

func TestR16CloseGivesUpWaitingWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, _ := w.client("b")
		w.acquire(a, "key")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, a.Close(ctx), context.DeadlineExceeded)
		require.NotNil(t, w.acquire(b, "key"))
	})
}

func TestMisuse(t *testing.T) {
	t.Parallel()
	_, err := lease.New(nil)
	require.ErrorIs(t, err, lease.ErrInvalid)
	for name, option := range map[string]lease.Option{
		"short ttl":      lease.WithTTL(time.Second),
		"long ttl":       lease.WithTTL(25 * time.Hour),
		"slow heartbeat": lease.WithHeartbeat(14 * time.Second),
		"fast heartbeat": lease.WithHeartbeat(time.Millisecond),
		"no margin":      lease.WithMargin(0),
		"wide margin":    lease.WithMargin(8 * time.Second),
		"no heartbeats":  lease.WithHeartbeatStore(nil),
		"no owner":       lease.WithOwner(""),
		"poll":           lease.WithPoll(time.Second, time.Millisecond),
		"no logger":      lease.WithLogger(nil),
	} {
		_, err := lease.New(memkv.New(), option)
		require.ErrorIs(t, err, lease.ErrInvalid, name)
	}
	c, err := lease.New(memkv.New(), lease.WithTTL(lease.MinTTL))
	require.NoError(t, err, "the shortest TTL leaves room for a lost answer")
	for _, key := range []string{"", string(make([]byte, 1001)), "\xff"} {
		_, err := c.TryAcquire(t.Context(), key)
		require.ErrorIs(t, err, lease.ErrInvalid)
		_, err = c.Acquire(t.Context(), key)
		require.ErrorIs(t, err, lease.ErrInvalid)
	}
	require.NoError(t, c.Close(t.Context()), "a client that did nothing")
}
