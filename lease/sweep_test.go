package lease_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// crash lets a client that holds these keys die.
func (w *world) crash(name string, keys ...string) {
	c, link := w.client(name)
	for _, key := range keys {
		w.acquire(c, key)
	}
	link.SetCut(true)
}

func TestSweepLeavesNoRowOfACrashedProcess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		keys := make([]string, 1000)
		for i := range keys {
			keys[i] = fmt.Sprintf("job/%04d", i)
		}
		w.crash("dead", keys...)
		c, link := w.client("c")
		began := time.Now()
		swept, err := c.Sweep(patient(t), "")
		require.NoError(t, err)
		require.Equal(t, lease.Swept{Sessions: 1, Keys: 1000}, swept)
		require.Empty(t, w.rows(""))
		require.Less(t, time.Since(began), patience+11*time.Second, "a hundred writes a second")
		require.Greater(t, time.Since(began), patience+10*time.Second)
		calls := link.Take()
		require.Equal(t, 1001, calls["AtomicDelete"])
		require.LessOrEqual(t, calls["Get"], 1, "once for the session, not for each key")

		again, err := c.Sweep(patient(t), "")
		require.NoError(t, err)
		require.Zero(t, again)
	})
}

func TestSweepEndsSessionsThatHoldNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		idle, link := w.client("idle")
		require.NoError(t, w.acquire(idle, "key").Release(t.Context()))
		link.SetCut(true)
		c, _ := w.client("c")
		swept, err := c.Sweep(patient(t), "other/")
		require.NoError(t, err)
		require.Equal(t, lease.Swept{Sessions: 1}, swept)
		require.Empty(t, w.rows("session/"))
	})
}

func TestR10SweepLeavesWhatLives(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		alive, _ := w.client("alive")
		theirs := w.acquire(alive, "theirs")
		c, _ := w.client("c")
		own := w.acquire(c, "own")
		began := time.Now()
		swept, err := c.Sweep(patient(t), "")
		require.NoError(t, err)
		require.Zero(t, swept)
		require.Less(t, time.Since(began), patience+2*time.Second, "a heartbeat is enough")
		require.True(t, theirs.Held())
		require.True(t, own.Held())
		require.Len(t, w.rows(""), 4)
	})
}

func TestSweepFreesOnlyKeysWithThePrefixThatKeepNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		dead, link := w.client("dead")
		w.acquire(dead, "other")
		w.acquire(dead, "job/plain")
		for key, option := range map[string]lease.AcquireOption{
			"job/kept": lease.KeepValue(), "job/delayed": lease.WithLockDelay(time.Minute),
		} {
			_, err := dead.Acquire(t.Context(), key, option)
			require.NoError(t, err)
		}
		link.SetCut(true)
		c, _ := w.client("c")
		swept, err := c.Sweep(patient(t), "job/")
		require.NoError(t, err)
		require.Equal(t, lease.Swept{Sessions: 1, Keys: 1, Kept: 1, Delayed: 1}, swept)
		require.ElementsMatch(t, []string{"lease/job/kept", "lease/job/delayed", "lease/other"}, w.rows("lease/"))

		time.Sleep(time.Minute)
		swept, err = c.Sweep(patient(t), "job/")
		require.NoError(t, err)
		require.Equal(t, lease.Swept{Keys: 1, Kept: 1}, swept, "the lock-delay is over")
	})
}

func TestR18SweepLeavesWhatCannotBeRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c, _ := w.client("c")
		w.crash("dead", "key")
		session := w.rows("session/")[0]
		for _, key := range []string{session, "session/strange", "lease/strange"} {
			require.NoError(t, w.store.Put(t.Context(), key, kv.WithBytes([]byte(`{"f":99}`))))
		}
		swept, err := c.Sweep(patient(t), "")
		require.NoError(t, err)
		require.Equal(t, lease.Swept{Unreadable: 3}, swept)
		require.Len(t, w.rows(""), 4)
	})
}

func TestSweepLeavesAKeyToWhoTakesItOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.crash("dead", "a", "b")
		other, _ := w.client("other")
		c, link := w.client("c")
		taken := waitFor(t.Context(), other, "b")
		link.delay("AtomicDelete", 3*time.Second) // the other one is faster
		swept, err := c.Sweep(patient(t), "")
		require.NoError(t, err)
		require.LessOrEqual(t, swept.Keys, 1)
		g := <-taken
		require.NoError(t, g.err)
		require.True(t, g.Held())
		require.Equal(t, []string{"lease/b"}, w.rows("lease/"))
	})
}

func TestSweepWithLostAnswersKnowsWhatItFreed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.crash("dead", "key")
		c, link := w.client("c")
		link.LoseAnswer("AtomicDelete", "lease/")
		swept, err := c.Sweep(patient(t), "")
		require.NoError(t, err)
		require.Equal(t, lease.Swept{Sessions: 1, Keys: 1}, swept)
		require.Equal(t, 3, link.Take()["AtomicDelete"])
		require.Empty(t, w.rows("lease/"))
	})
}

func TestSweepEndsWithItsContextAndWithClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.crash("dead", "key")
		c, _ := w.client("c")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := c.Sweep(ctx, "")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		ended := make(chan error, 1)
		go func() {
			_, err := c.Sweep(patient(t), "")
			ended <- err
		}()
		time.Sleep(time.Second)
		require.NoError(t, c.Close(t.Context()))
		require.ErrorIs(t, <-ended, lease.ErrClosed)
		_, err = c.Sweep(t.Context(), "")
		require.ErrorIs(t, err, lease.ErrClosed)
	})
}
