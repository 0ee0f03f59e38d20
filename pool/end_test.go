package pool_test

import (
	"context"
	"errors"
	"fmt"
	"math"
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

// finish is a handler that has nothing to do.
func finish(context.Context, *pool.Work) error { return pool.ErrDone }

// What a row that cannot be read says is not known, so that Run cannot know
// that all is done.
func TestPoolRunGoesOnWhileARowOfThePoolCannotBeRead(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]string{
		"no record":                  "{",
		"another format":             strings.Replace(partitionRow(`,"done":true`), `"f":2`, `"f":1`, 1),
		"no partition's value":       `{"f":2,"keep":true,"value":"e30="}`,
		"no partition's note":        `{"f":2,"keep":true,"value":"eyJmIjoxLCJkb25lIjp0cnVlfQo=","note":"e30="}`,
		"another partition's format": `{"f":2,"keep":true,"value":"eyJmIjoyLCJkb25lIjp0cnVlfQo="}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.partitions(2)
				require.NoError(t, w.store.Put(t.Context(), "lease/pool/p/00002", kv.WithString(row)))
				m := w.member("0", finish)
				time.Sleep(10 * interval)
				require.Empty(t, m.ended)
				require.True(t, w.isDone("00000") && w.isDone("00001"), "the others are worked on")
				require.NoError(t, w.store.Delete(t.Context(), "lease/pool/p/00002"))
				began := time.Now()
				require.NoError(t, <-m.ended)
				require.LessOrEqual(t, time.Since(began), interval*11/10)
			})
		})
	}
}

// isDone reports whether the row of a partition says that it is done.
func (w *world) isDone(name string) bool {
	w.t.Helper()
	p, _ := w.tool()
	for row, err := range p.Partitions(w.t.Context()) {
		if err == nil && row.Name == name {
			return row.Done
		}
	}
	return false
}

// The row shows only when the listing that decides is strong.
func TestPoolRunGoesOnWhenARowThatCannotBeReadHasJustShown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.partitions(1)
		c, link := w.client("0")
		var listings atomic.Int32
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Op == "ListPage" && call.Key == "lease/pool/p/" && w.isDone("00000") && listings.Add(1) == 2 {
				require.NoError(t, w.store.Put(ctx, "lease/pool/p/00001", kv.WithString("{")))
			}
			return next(ctx)
		})
		m := w.run(&member{client: c, link: link}, finish)
		time.Sleep(10 * interval)
		require.Greater(t, listings.Load(), int32(2))
		require.Empty(t, m.ended)
		m.leave(t)
	})
}

func TestPoolIsRunAgainOnlyWhenTheFirstRunHasDrained(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(1)
		m := w.stubborn(b)
		b.await(t, time.Minute, 1, 1)
		other, err := pool.New(m.client, "p", finish)
		require.NoError(t, err)
		another, err := pool.New(m.client, "q", finish)
		require.NoError(t, err)
		m.stop()
		time.Sleep(time.Minute)
		require.Empty(t, m.ended, "it drains")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.ErrorIs(t, m.Run(ctx), lease.ErrInvalid)
		require.ErrorIs(t, other.Run(ctx), lease.ErrInvalid)
		require.NoError(t, another.Run(ctx), "a pool of another name")
		require.NoError(t, <-m.ended)
		require.NoError(t, other.Run(t.Context()))
		require.True(t, w.isDone("00000"))
	})
}

func TestPoolIsRunAgainAfterAJoinThatFailed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.partitions(1)
		c, link := w.client("0")
		p, err := pool.New(c, "p", finish, pool.WithMaxPartitions(1))
		require.NoError(t, err)
		failure := errors.New("no permission")
		link.SetIntercept(func(context.Context, kv.Call, func(context.Context) error) error { return failure })
		require.ErrorIs(t, p.Run(t.Context()), failure)

		writes := 0
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if writes++; writes > 1 { // the first tells of the bound
				return failure
			}
			return next(ctx)
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, p.Run(ctx), context.DeadlineExceeded)
		link.SetIntercept(nil)
		time.Sleep(ttl)
		require.Empty(t, w.joined(), "it is no member, and has no bound")
		link.Take()
		require.NoError(t, p.Cordon(t.Context()))
		require.Empty(t, link.Take(), "there is nobody to tell")
		p.Uncordon()
		require.NoError(t, p.Run(t.Context()))
	})
}

func TestPoolDurationsAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, _ := w.client("0")
	const year = 365 * 24 * time.Hour
	require.Equal(t, year, pool.MaxDuration)
	for name, test := range map[string]struct {
		option func(time.Duration) pool.Option
		least  time.Duration
	}{
		"WithPlanInterval":    {pool.WithPlanInterval, 100 * time.Millisecond},
		"WithDrainTimeout":    {pool.WithDrainTimeout, 0},
		"WithMinResidency":    {pool.WithMinResidency, 0},
		"WithProgressTimeout": {pool.WithProgressTimeout, time.Second},
		"WithOutageLimit":     {pool.WithOutageLimit, time.Second},
	} {
		for d, ok := range map[time.Duration]bool{
			math.MinInt64: false, test.least - 1: false, test.least: true, year: true, year + 1: false, math.MaxInt64: false,
		} {
			_, err := pool.New(c, "p", finish, test.option(d))
			if ok {
				require.NoError(t, err, "%s(%v)", name, d)
				continue
			}
			require.ErrorIs(t, err, lease.ErrInvalid, "%s(%v)", name, d)
			require.ErrorContains(t, err, fmt.Sprintf("%s(%v): want %v to %v", name, d, test.least, year))
		}
	}
}

// Nor does any of them make a member plan, or look for progress, without pause.
func TestPoolWithTheLongestDurationsDoesNotSpin(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(4)
		const longest = pool.MaxDuration
		m := w.member("0", b.handler("0"), pool.WithPlanInterval(longest), pool.WithDrainTimeout(longest),
			pool.WithMinResidency(longest),
			pool.WithProgressTimeout(longest), pool.WithOutageLimit(longest))
		b.await(t, time.Second, 4, 1)
		m.link.Take()
		time.Sleep(time.Hour)
		require.Empty(t, m.link.Take()["ListPage"])
		m.leave(t)
	})
}

// Nothing of a client runs once it is closed: Close waits for Run, which is in the
// middle of a listing here.
func TestPoolRunHasReturnedWhenItsClientIsClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c, link := w.client("0")
		m := w.run(&member{client: c, link: link}, finish)
		time.Sleep(interval)
		listing := make(chan struct{}, 100)
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Op == "ListPage" {
				listing <- struct{}{}
				time.Sleep(5 * time.Second)
			}
			return next(ctx)
		})
		<-listing
		require.NoError(t, c.Close(t.Context()))
		require.Len(t, m.ended, 1)
		require.ErrorIs(t, <-m.ended, lease.ErrClosed)
	})
}

func TestPoolRefusesANilOption(t *testing.T) {
	t.Parallel()
	c, _ := newWorld(t).client("0")
	_, err := pool.New(c, "p", finish, pool.WithoutEnd(), nil)
	require.ErrorIs(t, err, lease.ErrInvalid)
	require.ErrorContains(t, err, "nil option")
}

// A partition that lies idle is not done: it may be resumed, or added again.
func TestPoolRunGoesOnWhileAPartitionIsPausedOrRemoved(t *testing.T) {
	t.Parallel()
	for _, marks := range []string{`,"paused":true`, `,"removed":true`} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.partitions(2)
			w.addMarked("x", marks)
			m := w.member("0", finish)
			time.Sleep(10 * interval)
			require.Empty(t, m.ended)
			require.True(t, w.isDone("00000") && w.isDone("00001"))
			require.NoError(t, m.Add(t.Context(), "x"))
			require.NoError(t, m.Resume(t.Context(), "x"))
			require.NoError(t, <-m.ended)
			require.True(t, w.isDone("x"))
		})
	}
}
