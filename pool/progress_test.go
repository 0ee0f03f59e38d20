package pool_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/pool"
)

func TestPoolProgressCountsByState(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c, link := w.client("a")
		p, err := pool.New(c, "p", nil)
		require.NoError(t, err)
		n, err := p.Progress(t.Context())
		require.NoError(t, err)
		require.Equal(t, pool.Progress{}, n)

		var names []string
		for i := range 10 {
			names = append(names, fmt.Sprintf("%05d", i))
		}
		require.NoError(t, p.Add(t.Context(), names...))
		m := w.member("0", func(_ context.Context, l *pool.Work) error {
			if l.Key() < "pool/p/00004" {
				return pool.ErrDone
			}
			<-l.Draining()
			return nil
		})
		time.Sleep(5 * interval)
		require.NoError(t, m.Cordon(t.Context()))
		require.NoError(t, p.Add(t.Context(), "00010", "00011"))
		require.NoError(t, m.Pause(t.Context(), "00000", "00009"))
		_, err = w.store.AtomicPut(t.Context(), "lease/pool/p/unreadable", kv.WithString(`{"f":99}`))
		require.NoError(t, err)
		link.Take()
		n, err = p.Progress(t.Context())
		require.NoError(t, err)
		require.Equal(t, map[string]int{"ListPage": 1}, link.Take())
		require.Equal(t, pool.Progress{Total: 13, Done: 4, Paused: 1, Held: 5, Idle: 2, Unread: 1}, n)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		require.Error(t, m.Remove(ctx, "00004"), "who has it is not given the time")
		n, err = p.Progress(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, n.Removed)
		require.Equal(t, n.Total, n.Done+n.Removed+n.Paused+n.Held+n.Idle+n.Unread)
		link.SetIntercept(func(context.Context, kv.Call, func(context.Context) error) error { return errLost })
		_, err = p.Progress(t.Context())
		require.ErrorIs(t, err, errLost)
		link.SetIntercept(nil)
		m.leave(t)
	})
}

func TestPoolAddsSoManyAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c, link := w.client("a")
		var at, most atomic.Int32
		link.SetIntercept(func(ctx context.Context, _ kv.Call, next func(context.Context) error) error {
			n := at.Add(1)
			defer at.Add(-1)
			most.Store(max(most.Load(), n))
			time.Sleep(10 * time.Millisecond)
			return next(ctx)
		})
		p, err := pool.New(c, "p", nil)
		require.NoError(t, err)
		var names []string
		for i := range 320 {
			names = append(names, fmt.Sprint(i))
		}
		began := time.Now()
		require.NoError(t, p.Add(t.Context(), names...))
		require.Equal(t, int32(32), most.Load())
		require.Equal(t, 100*time.Millisecond, time.Since(began))
		require.Equal(t, map[string]int{"AtomicPut": 320}, link.Take(), "no session")
	})
}
