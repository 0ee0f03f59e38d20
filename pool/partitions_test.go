package pool_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/pool"
)

func TestPoolPausedPartitionLiesIdleUntilResumed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(4)
		m := w.member("0", b.handler("0"))
		b.await(t, time.Minute, 4, 1)
		require.NoError(t, m.Pause(t.Context(), "00001", "00002"))
		require.Equal(t, 2, b.load()["0"], "Pause returns when nobody works on them")
		require.True(t, m.status(t, "00001").Paused)
		time.Sleep(3 * interval)
		require.Equal(t, 2, b.load()["0"])
		require.NoError(t, m.Resume(t.Context(), "00001", "00002"))
		b.await(t, 2*interval, 4, 1)
		m.leave(t)
	})
}

// The holder of a partition that is being paused writes its checkpoint over the
// mark: the mark stays, and so does the checkpoint.
func TestPoolMarksAndCheckpointsDoNotOverwriteEachOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.partitions(1)
		token := make(chan uint64, 1)
		m := w.member("0", func(ctx context.Context, l *pool.Work) error {
			token <- l.Token()
			<-l.Draining()
			if err := l.Save(ctx, []byte("drained")); err != nil {
				return err
			}
			<-token
			return nil
		})
		first := <-token
		require.NoError(t, m.SetWeight(t.Context(), 7, "00000"))
		require.Equal(t, first, m.status(t, "00000").Token)
		go func() {
			time.Sleep(time.Minute)
			token <- 0
		}()
		require.NoError(t, m.Pause(t.Context(), "00000"))
		p := m.status(t, "00000")
		require.Equal(t, "drained", string(p.Checkpoint))
		require.True(t, p.Paused)
		require.Equal(t, 7, p.Weight)
		require.Empty(t, p.Owner)
		m.leave(t)
	})
}

func TestPoolRemovedPartitionIsDrainedAndDoesNotComeBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(4)
		m, n := w.member("0", b.handler("0")), w.member("1", b.handler("1"))
		b.await(t, time.Minute, 4, 2)
		require.NoError(t, n.Sync(t.Context(), "00001", "new", "new"))
		require.Equal(t, []string{"lease/pool/p/00001", "lease/pool/p/new"}, w.rows("lease/"))
		b.await(t, 2*interval, 2, 2)
		require.NoError(t, n.Remove(t.Context(), "absent"))
		require.ErrorIs(t, n.Add(t.Context(), ""), lease.ErrInvalid)
		time.Sleep(3 * interval)
		require.Len(t, w.rows("lease/"), 2)
		b.requireNoOverlap(t)
		m.leave(t)
		n.leave(t)
	})
}

func TestPoolRemovesWhatADeadMemberHas(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(1)
		m := w.member("0", b.handler("0"))
		b.await(t, time.Minute, 1, 1)
		m.crash(b, "0")
		c, _ := w.client("tool")
		tool, err := pool.New(c, "p", b.handler("tool"))
		require.NoError(t, err)
		began := time.Now()
		require.NoError(t, tool.Remove(t.Context(), "00000"))
		require.LessOrEqual(t, time.Since(began), failover)
		require.Empty(t, w.rows("lease/"))
	})
}

func TestPoolCordonedMemberTakesNothingNew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(4)
		m, n := w.member("0", b.handler("0")), w.member("1", b.handler("1"))
		b.await(t, time.Minute, 4, 2)
		require.NoError(t, m.Cordon(t.Context()))
		w.partitions(10)
		time.Sleep(3 * interval)
		require.Equal(t, map[string]int{"0": 2, "1": 8}, b.load())
		m.Uncordon()
		b.await(t, time.Minute, 10, 2)
		m.leave(t)
		n.leave(t)
	})
}

func TestPoolMembersKeepToTheirBounds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(10)
		m, n := w.member("0", b.handler("0"), pool.WithMaxPartitions(2)), w.member("1", b.handler("1"))
		time.Sleep(5 * interval)
		require.Equal(t, map[string]int{"0": 2, "1": 8}, b.load())
		m.leave(t)
		n.leave(t)
	})
}

func TestPoolWeighsPartitions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(11)
		m, n := w.member("0", b.handler("0")), w.member("1", b.handler("1"))
		require.NoError(t, m.SetWeight(t.Context(), 10, "00004"))
		require.ErrorIs(t, m.SetWeight(t.Context(), 0, "00004"), lease.ErrInvalid)
		time.Sleep(10 * interval)
		load := b.load()
		require.ElementsMatch(t, []int{1, 10}, []int{load["0"], load["1"]})
		m.leave(t)
		n.leave(t)
	})
}

func TestPoolMemberGivesAwayAFewAtATimeAndNothingThatItHasJustGot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(40)
		slow := func(ctx context.Context, l *pool.Work) error {
			b.begin("0", l)
			defer b.end("0", l)
			<-l.Draining()
			time.Sleep(5 * time.Second)
			return nil
		}
		m := w.member("0", slow, pool.WithMaxMoves(3), pool.WithMinResidency(time.Minute))
		b.await(t, time.Minute, 40, 1)
		n := w.member("1", b.handler("1"), pool.WithMaxMoves(3))
		time.Sleep(45 * time.Second)
		require.Equal(t, 40, b.load()["0"])
		var counts []int
		for range 12 {
			time.Sleep(5 * time.Second)
			counts = append(counts, b.load()["1"])
		}
		for i := range counts[1:] {
			require.LessOrEqual(t, counts[i+1]-counts[i], 6, "%v", counts)
		}
		require.Greater(t, slices.Max(counts), 15, "%v", counts)
		b.requireNoOverlap(t)
		m.leave(t)
		n.leave(t)
	})
}

func TestPoolArgumentsAreChecked(t *testing.T) {
	t.Parallel()
	w, b := newWorld(t), newLedger()
	c, link := w.client("0")
	for _, name := range []string{"", "a/b", "\xff", string(make([]byte, 129))} {
		_, err := pool.New(c, name, b.handler("0"))
		require.ErrorIs(t, err, lease.ErrInvalid, "%q", name)
	}
	tool, err := pool.New(c, "p", nil)
	require.NoError(t, err)
	require.ErrorIs(t, tool.Run(t.Context()), lease.ErrInvalid)
	for _, option := range []pool.Option{
		pool.WithPlanInterval(time.Millisecond), pool.WithDrainTimeout(-1), pool.WithMaxMoves(0), pool.WithMaxPartitions(0),
		pool.WithMinResidency(-1), pool.WithProgressTimeout(time.Millisecond), pool.WithOutageLimit(0),
	} {
		_, err := pool.New(c, "p", b.handler("0"), option)
		require.ErrorIs(t, err, lease.ErrInvalid)
	}
	require.Empty(t, link.Take())
}

func TestPoolCheckpointsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.partitions(1)
		var large error
		m := w.member("0", func(ctx context.Context, l *pool.Work) error {
			if err := l.Save(ctx, make([]byte, pool.MaxCheckpointSize)); err != nil {
				return err
			}
			large = l.Save(ctx, make([]byte, pool.MaxCheckpointSize+1))
			return pool.ErrDone
		})
		require.NoError(t, <-m.ended)
		require.ErrorIs(t, large, lease.ErrInvalid)
		require.ErrorContains(t, large, "checkpoint of")
		require.Len(t, m.status(t, "00000").Checkpoint, pool.MaxCheckpointSize)
	})
}

// reads is a store that remembers how listings were to be read.
type reads struct {
	kv.Store
	eventual []bool
}

func (r *reads) ListPage(ctx context.Context, prefix string, options ...kv.ReadOption) (*kv.Page, error) {
	settings, err := kv.ListSettings(prefix, options)
	if err != nil {
		return nil, err
	}
	r.eventual = append(r.eventual, settings.Eventual)
	return r.Store.ListPage(ctx, prefix, options...)
}

func TestPartitionsAreListedStronglyUnlessTheOptionsSayOtherwise(t *testing.T) {
	t.Parallel()
	store := &reads{Store: memkv.New()}
	c, err := lease.New(store)
	require.NoError(t, err)
	p, err := pool.New(c, "p", nil)
	require.NoError(t, err)
	for range p.Partitions(t.Context()) {
	}
	for range p.Partitions(t.Context(), kv.EventuallyConsistent()) {
	}
	require.Equal(t, []bool{false, true}, store.eventual)
}
