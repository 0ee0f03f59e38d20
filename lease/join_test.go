package lease_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

func TestJoinRefusesANameOutOfBoundsAndSendsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		for _, group := range []string{"", strings.Repeat("x", 257), "\xff"} {
			leave, err := a.Join(t.Context(), group)
			require.ErrorIs(t, err, lease.ErrInvalid, "%q", group)
			require.Nil(t, leave)
		}
		require.Empty(t, link.Take())
		longest := strings.Repeat("x", 256)
		leave, err := a.Join(t.Context(), longest)
		require.NoError(t, err)
		for m, err := range a.Members(t.Context()) {
			require.NoError(t, err)
			require.Equal(t, []string{longest}, m.Joined)
		}
		leave()
	})
}

// groupsOf returns what others see that the only client has joined.
func groupsOf(t *testing.T, c *lease.Client) []string {
	t.Helper()
	for m, err := range c.Members(t.Context()) {
		require.NoError(t, err)
		return m.Joined
	}
	return nil
}

func TestJoiningTwiceTakesLeavingTwice(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		first, err := a.Join(t.Context(), "group")
		require.NoError(t, err)
		second, err := a.Join(t.Context(), "group")
		require.NoError(t, err)
		require.Equal(t, map[string]int{"AtomicPut": 1}, link.Take(), "the second time everybody knows")
		first()
		first()
		time.Sleep(ttl)
		require.Equal(t, []string{"group"}, groupsOf(t, a))
		second()
		synctest.Wait()
		require.Empty(t, groupsOf(t, a), "at once")
	})
}

func TestJoinThatFailsLeavesTheClientNoMember(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		l := w.acquire(a, "key")
		link.beats(func(context.Context, int64, kv.Call, func(context.Context) error) error { return kv.ErrThrottled })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		leave, err := a.Join(ctx, "group")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Nil(t, leave)
		link.SetIntercept(nil)
		time.Sleep(ttl)
		require.Empty(t, groupsOf(t, a))
		require.NoError(t, l.Release(t.Context()))
	})
}

func TestJoinRefusesMoreGroupsThanAHeartbeatShouldCarry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		for i := range 100 {
			_, err := a.Join(t.Context(), fmt.Sprint(i))
			require.NoError(t, err)
		}
		link.Take()
		_, err := a.Join(t.Context(), "one more")
		require.ErrorIs(t, err, lease.ErrInvalid)
		require.Empty(t, link.Take())
		_, err = a.Join(t.Context(), "7")
		require.NoError(t, err, "one that it is in already")
		require.Len(t, groupsOf(t, a), 100)
	})
}

func TestJoinOutlastsTheLossOfASession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		_, err := a.Join(t.Context(), "election/x")
		require.NoError(t, err)
		require.Equal(t, map[string]int{"AtomicPut": 1}, link.Take())
		first := w.rows("session/")
		require.NoError(t, w.store.Delete(t.Context(), first[0]))
		time.Sleep(2 * ttl)
		second := w.rows("session/")
		require.Len(t, second, 1)
		require.NotEqual(t, first, second)
		pair, err := w.store.Get(t.Context(), second[0])
		require.NoError(t, err)
		require.Contains(t, pair.String(), "election/x")
	})
}

func TestJoinEndsWhenCloseBegins(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		w.turn(a, "key")
		link.opens(silent)
		joined := make(chan error, 1)
		go func() {
			_, err := a.Join(context.Background(), "group")
			joined <- err
		}()
		time.Sleep(time.Second)
		began := time.Now()
		closed := make(chan error, 1)
		go func() { closed <- a.Close(t.Context()) }()
		require.ErrorIs(t, <-joined, lease.ErrClosed)
		require.Zero(t, time.Since(began))
		require.NoError(t, <-closed)
	})
}

func TestJoinAgainWhileTheLeavingHeartbeatIsOnTheWire(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		leave, err := a.Join(t.Context(), "pool/x")
		require.NoError(t, err)
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			time.Sleep(100 * time.Millisecond)
			return next(ctx)
		})
		leave()
		time.Sleep(50 * time.Millisecond)
		_, err = a.Join(t.Context(), "pool/x")
		require.NoError(t, err)
		time.Sleep(time.Second)
		for m, err := range a.Members(t.Context()) {
			require.NoError(t, err)
			require.True(t, slices.Contains(m.Joined, "pool/x"), "joined a second ago")
		}
	})
}
