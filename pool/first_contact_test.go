package pool_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
)

func TestPoolRunReturnsTheFailureOfTheFirstContact(t *testing.T) {
	t.Parallel()
	for _, class := range []error{kv.ErrRefused, kv.ErrUnavailable, kv.ErrUncertain, kv.ErrThrottled, kv.ErrClock} {
		synctest.Test(t, func(t *testing.T) {
			w, b := newWorld(t), newLedger()
			c, link := w.client("0")
			link.SetIntercept(func(context.Context, kv.Call, func(context.Context) error) error { return class })
			m := w.run(&member{client: c, link: link}, b.handler("0"))
			began := time.Now()
			require.ErrorIs(t, <-m.ended, class)
			require.Zero(t, time.Since(began))
			link.SetIntercept(nil)
		})
	}
}

func TestPoolRunOutlastsAClockThatIsWrongForAWhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(1)
		c, link := w.client("0")
		m := w.run(&member{client: c, link: link}, b.handler("0"))
		time.Sleep(time.Minute)
		require.Equal(t, map[string]int{"0": 1}, b.load())
		link.SetIntercept(func(_ context.Context, call kv.Call, _ func(context.Context) error) error {
			return kv.ErrClock
		})
		time.Sleep(20 * time.Second)
		link.SetIntercept(nil)
		time.Sleep(time.Minute)
		require.Empty(t, m.ended)
		require.Equal(t, map[string]int{"0": 1}, b.load(), "it goes on by itself")
		m.leave(t)
	})
}
