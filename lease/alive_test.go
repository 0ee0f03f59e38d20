package lease_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// alive returns the owners of the sessions that Alive lists.
func alive(t *testing.T, c *lease.Client, group string) (owners []string) {
	t.Helper()
	for m, err := range c.Alive(t.Context(), group) {
		require.NoError(t, err)
		owners = append(owners, m.Owner)
	}
	return owners
}

func TestR10AliveEndsMembersThatHoldNothingAndAreSilent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		b, _ := w.client("b")
		other, otherLink := w.client("other")
		for _, c := range []*lease.Client{a, b} {
			leave, err := c.Join(t.Context(), "group")
			require.NoError(t, err)
			defer leave()
		}
		w.acquire(other, "key")
		require.ElementsMatch(t, []string{"a", "b", "other"}, alive(t, b, "group"))
		link.SetCut(true)
		otherLink.SetCut(true)
		died := time.Now()
		for len(alive(t, b, "group")) == 3 {
			require.Less(t, time.Since(died), 2*patience)
			time.Sleep(time.Second)
		}
		require.Greater(t, time.Since(died), patience-ttl/3, "not before its heartbeats were missing for long enough")
		require.ElementsMatch(t, []string{"b", "other"}, alive(t, b, "group"), "who has not joined is not watched")
		for len(alive(t, b, "")) == 2 {
			require.Less(t, time.Since(died), 4*patience)
			time.Sleep(time.Second)
		}
		require.Equal(t, []string{"b"}, alive(t, b, ""))
		require.Len(t, w.rows("session/"), 1)
	})
}

func TestAliveSaysWhenToLookAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		b, _ := w.client("b")
		w.acquire(a, "key")
		deadIn := func() time.Duration {
			for m, err := range b.Alive(t.Context(), "", kv.EventuallyConsistent()) {
				require.NoError(t, err)
				if m.Owner == "a" {
					return m.DeadIn
				}
			}
			return 0
		}
		require.Equal(t, patience, deadIn())
		link.SetCut(true)
		time.Sleep(4 * time.Second)
		require.Equal(t, patience-4*time.Second, deadIn())
		time.Sleep(deadIn())
		require.Zero(t, deadIn(), "it is gone")
	})
}

func TestR18AliveShowsASessionThatCannotBeRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		w.acquire(a, "key")
		err := w.store.Put(t.Context(), "session/0-from-the-future", kv.WithBytes([]byte(`{"f":99}`)))
		require.NoError(t, err)
		var sessions []string
		failures := 0
		for m, err := range a.Alive(t.Context(), "") {
			if err != nil {
				require.ErrorIs(t, err, kv.ErrFormat)
				failures++
			}
			sessions = append(sessions, m.Session)
		}
		require.Equal(t, 1, failures)
		require.ElementsMatch(t, []string{"0-from-the-future", a.Session()}, sessions)
	})
}

func TestSessionAndContextEndWithTheClient(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		require.Empty(t, a.Session())
		l := w.acquire(a, "key")
		require.NotEmpty(t, a.Session())
		link.SetCut(true)
		requireLost(t, l)
		require.Empty(t, a.Session())
		link.SetCut(false)
		require.NoError(t, a.Context().Err())
		_ = l.Release(t.Context())
		require.NoError(t, a.Close(t.Context()))
		<-a.Context().Done()
		require.Empty(t, a.Session())
	})
}

func TestDeadIsProvenByWatching(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		b, _ := w.client("b")
		w.acquire(a, "key")
		session := a.Session()
		dead, err := b.Dead(t.Context(), session)
		require.NoError(t, err)
		require.False(t, dead)
		link.SetCut(true)
		began := time.Now()
		for !dead {
			time.Sleep(time.Second)
			dead, err = b.Dead(t.Context(), session)
			require.NoError(t, err)
		}
		require.InDelta(t, patience, time.Since(began), float64(ttl/2))
		dead, err = b.Dead(t.Context(), "no-such-session")
		require.NoError(t, err)
		require.True(t, dead)
	})
}
