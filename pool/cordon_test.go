package pool_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/pool"
)

// joined returns the groups that the sessions in the store have joined.
func (w *world) joined() []string {
	w.t.Helper()
	c, err := lease.New(w.store)
	require.NoError(w.t, err)
	groups := []string{}
	for m, err := range c.Members(w.t.Context()) {
		require.NoError(w.t, err)
		groups = append(groups, m.Joined...)
	}
	return groups
}

// awaitJoined waits for the heartbeat that tells of a change.
func (w *world) awaitJoined(want ...string) {
	w.t.Helper()
	time.Sleep(time.Millisecond)
	synctest.Wait()
	require.ElementsMatch(w.t, want, w.joined())
}

const (
	memberGroup = "pool/p"
	cordonGroup = "pool-cordoned/p"
)

func TestPoolCordonIsToldAtOnceAndTakenBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		m := w.member("0", b.handler("0"))
		w.awaitJoined(memberGroup)
		for range 3 {
			require.NoError(t, m.Cordon(t.Context()))
			require.ElementsMatch(t, []string{memberGroup, cordonGroup}, w.joined(), "when Cordon has returned")
			require.NoError(t, m.Cordon(t.Context()), "again")
			m.Uncordon()
			w.awaitJoined(memberGroup)
			m.Uncordon()
		}
		m.leave(t)
		w.awaitJoined()
	})
}

func TestPoolCordonHoldsForLaterRunsAndEndsWithEach(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(2)
		c, link := w.client("0")
		m := &member{client: c, link: link}
		p, err := pool.New(c, "p", b.handler("0"))
		require.NoError(t, err)
		require.NoError(t, p.Cordon(t.Context()))
		require.Empty(t, link.Take(), "nobody to tell")
		for range 2 {
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- p.Run(ctx) }()
			w.awaitJoined(memberGroup, cordonGroup)
			time.Sleep(3 * interval)
			require.Empty(t, b.load())
			stop()
			require.NoError(t, <-ended)
			w.awaitJoined()
		}
		p.Uncordon()
		m = w.run(m, b.handler("0"))
		w.awaitJoined(memberGroup)
		b.await(t, time.Minute, 2, 1)
		m.leave(t)
	})
}

// Cordon is taken back while the heartbeat that tells of it is under way.
func TestPoolCordonThatIsTakenBackWhileItIsToldDoesNotStay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		m := w.member("0", b.handler("0"))
		w.awaitJoined(memberGroup)
		m.link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			err := next(ctx)
			if slices.Contains(w.joined(), cordonGroup) {
				m.link.SetIntercept(nil)
				m.Uncordon()
			}
			return err
		})
		require.NoError(t, m.Cordon(t.Context()))
		w.awaitJoined(memberGroup)
		m.leave(t)
	})
}

func TestPoolCordonThatCannotBeToldIsAnError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		m := w.member("0", b.handler("0"))
		w.awaitJoined(memberGroup)
		m.link.SetCut(true)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, m.Cordon(ctx), context.DeadlineExceeded)
		m.link.SetCut(false)
		require.NoError(t, m.Cordon(t.Context()))
		require.Contains(t, w.joined(), cordonGroup)
		m.leave(t)
	})
}

// Nobody sees a member without its bounds, for as long as it would need to
// give it too much.
func TestPoolMemberIsNeverSeenWithoutItsBounds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		c, link := w.client("0")
		var seen []string
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			err := next(ctx)
			if strings.HasPrefix(call.Key, "session/") && call.Op == "AtomicPut" {
				seen = append(seen, strings.Join(w.joined(), " "))
			}
			return err
		})
		p, err := pool.New(c, "p", b.handler("0"), pool.WithMaxPartitions(2))
		require.NoError(t, err)
		require.NoError(t, p.Cordon(t.Context()))
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- p.Run(ctx) }()
		w.awaitJoined(memberGroup, cordonGroup, "pool-max/p/2")
		for _, groups := range seen {
			if strings.Contains(groups, memberGroup) {
				require.Contains(t, groups, cordonGroup)
				require.Contains(t, groups, "pool-max/p/2")
			}
		}
		seen = nil
		stop()
		require.NoError(t, <-ended)
		w.awaitJoined()
		for _, groups := range seen {
			if strings.Contains(groups, memberGroup) {
				require.Contains(t, groups, cordonGroup)
				require.Contains(t, groups, "pool-max/p/2")
			}
		}
	})
}

// A bound that somebody else has written, and that is no number, is none.
func TestPoolMemberWithABoundThatIsNoNumberHasNone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(4)
		m := w.member("0", b.handler("0"))
		leave, err := m.client.Join(t.Context(), "pool-max/p/many")
		require.NoError(t, err)
		defer leave()
		b.await(t, time.Minute, 4, 1)
		m.leave(t)
	})
}
