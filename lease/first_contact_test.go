package lease_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// answersAlways makes every call end so, after a while.
func (l *link) answersAlways(after time.Duration, err error) {
	l.SetIntercept(func(ctx context.Context, _ kv.Call, _ func(context.Context) error) error {
		select {
		case <-time.After(after):
			return err
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", err, ctx.Err())
		}
	})
}

func TestFirstContactThatFailsIsToldToEveryCaller(t *testing.T) {
	t.Parallel()
	for _, class := range []error{kv.ErrRefused, kv.ErrUnavailable, kv.ErrUncertain, kv.ErrThrottled, kv.ErrClock} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			a, link := w.client("a")
			link.answersAlways(time.Second, class)
			began := time.Now()
			errs, took := all(20, func(i int) error {
				_, err := a.Acquire(t.Context(), fmt.Sprint("key", i%2)) // ten wait in line for each
				return err
			})
			for _, err := range errs {
				require.ErrorIs(t, err, class)
			}
			require.LessOrEqual(t, took, 2*time.Second, "one attempt, or two that met")
			_, err := a.Join(t.Context(), "group")
			require.ErrorIs(t, err, class)
			require.Less(t, time.Since(began), 5*time.Second)
			link.SetIntercept(nil)
			require.NoError(t, w.acquire(a, "key0").Release(t.Context()), "the next call asks again")
		})
	}
}

func TestFirstContactOfAcquireAnyIsToldToo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		link.answersAlways(time.Second, kv.ErrUnavailable)
		keys := []string{"one", "two"}
		errs, took := all(20, func(int) error {
			_, err := a.AcquireAny(t.Context(), keys)
			return err
		})
		for _, err := range errs {
			require.ErrorIs(t, err, kv.ErrUnavailable)
		}
		require.LessOrEqual(t, took, 2*time.Second)
		link.SetIntercept(nil)
		b, _ := w.client("b")
		for range keys {
			_, err := b.TryAcquireAny(t.Context(), keys)
			require.NoError(t, err)
		}
		_, err := a.AcquireAny(patientFor(t, time.Minute), keys)
		told := &lease.WaitError{}
		require.ErrorAs(t, err, &told)
		require.ErrorIs(t, err, lease.ErrHeld)
		require.Len(t, told.Holders, 2)
	})
}

func TestFirstContactIsAnyAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		require.False(t, inspect(t, a, "key").Held(), "that there is nothing is an answer")
		link.answersAlways(0, kv.ErrUnavailable)
		got := waitFor(t.Context(), a, "key")
		time.Sleep(time.Hour)
		require.Empty(t, got)
		link.SetIntercept(nil)
		g := <-got
		require.NoError(t, g.err)
		require.NoError(t, g.Release(t.Context()))
	})
}

func TestRefusalIsWaitedOutForTheLimit(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		options []lease.Option
		limit   time.Duration
	}{
		"two TTLs":  {nil, 2 * ttl},
		"a minute":  {[]lease.Option{lease.WithRefusedLimit(time.Minute)}, time.Minute},
		"no moment": {[]lease.Option{lease.WithRefusedLimit(0)}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				b, _ := w.client("b")
				held := w.acquire(b, "held")
				a, link := w.client("a", test.options...)
				w.turn(a, "key")
				var refused atomic.Bool
				link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
					if refused.Load() && call.Key != "session/"+a.Session() {
						return kv.ErrRefused
					}
					return next(ctx)
				})
				got := waitFor(t.Context(), a, "held")
				time.Sleep(time.Minute)
				for range 2 { // what was refused before is forgotten
					refused.Store(true)
					time.Sleep(test.limit * 3 / 4)
					refused.Store(false)
					time.Sleep(10 * time.Second)
				}
				if test.limit > 0 {
					require.Empty(t, got)
				}
				refused.Store(true)
				began := time.Now()
				if test.limit > 0 {
					require.ErrorIs(t, (<-got).err, kv.ErrRefused)
					require.InDelta(t, test.limit, time.Since(began), float64(7*time.Second), "and a pause of 5 s")
				}
				began = time.Now()
				_, err := a.Acquire(t.Context(), "key")
				require.ErrorIs(t, err, kv.ErrRefused)
				require.InDelta(t, test.limit, time.Since(began), float64(7*time.Second))
				require.NoError(t, held.Release(t.Context()))
				refused.Store(false)
			})
		})
	}
}

func TestAWaitThatEndsTellsWhoHasTheKeyAndWhatTheStoreDid(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		b, _ := w.client("b")
		held := w.acquire(b, "key")
		a, link := w.client("a")
		ended := func() *lease.WaitError {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			_, err := a.Acquire(ctx, "key")
			require.ErrorIs(t, err, context.DeadlineExceeded)
			told := &lease.WaitError{}
			require.ErrorAs(t, err, &told)
			require.Equal(t, "key", told.Key)
			require.Equal(t, 20*time.Second, told.Waited)
			return told
		}
		e := ended()
		require.ErrorIs(t, e, lease.ErrHeld)
		require.NoError(t, e.Trouble)
		require.Equal(t, "b", e.Holder.Owner)
		require.Equal(t, held.Token(), e.Holder.Token)
		require.False(t, e.Own)
		require.Positive(t, e.Silent)
		require.LessOrEqual(t, e.Silent, ttl)
		require.ErrorContains(t, e, `waited 20s for "key": context deadline exceeded (held by b, token`)

		var failing atomic.Bool
		link.fails(&failing, "Get", "", kv.ErrUnavailable)
		time.AfterFunc(time.Second, func() { failing.Store(true) })
		e = ended()
		require.ErrorIs(t, e, lease.ErrHeld)
		require.ErrorIs(t, e, kv.ErrUnavailable)
		require.ErrorIs(t, e, context.DeadlineExceeded, "all three")
		failing.Store(false)

		require.NoError(t, held.Release(t.Context()))
		own := w.acquire(a, "key")
		e = ended()
		require.True(t, e.Own)
		require.Equal(t, own.Token(), e.Holder.Token)
		require.ErrorContains(t, e, "held by this client")
		require.NoError(t, own.Release(t.Context()))
	})
}

func TestAWaitThatEndsNamesNobodyWhereTheKeyIsFree(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		b, _ := w.client("b")
		held := w.acquire(b, "key")
		a, link := w.client("a")
		w.turn(a, "warm")
		var failing atomic.Bool
		link.fails(&failing, "AtomicPut", "lease/", kv.ErrThrottled)
		failing.Store(true)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		time.AfterFunc(10*time.Second, func() { _ = held.Release(t.Context()) })
		_, err := a.Acquire(ctx, "key")
		told := &lease.WaitError{}
		require.ErrorAs(t, err, &told)
		require.Nil(t, told.Holder)
		require.NotErrorIs(t, err, lease.ErrHeld)
		require.ErrorIs(t, err, kv.ErrThrottled)
	})
}

func TestAWaitThatCloseEndsIsToldSo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		b, _ := w.client("b")
		w.acquire(b, "key")
		a, _ := w.client("a")
		got := waitFor(t.Context(), a, "key")
		time.Sleep(time.Minute)
		require.NoError(t, a.Close(t.Context()))
		err := (<-got).err
		require.ErrorIs(t, err, lease.ErrClosed)
		require.NotErrorIs(t, err, lease.ErrHeld)
	})
}

func TestCheckTellsOfAStoreThatHasNotAnsweredForTwoTTLs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		require.NoError(t, a.Check(), "nothing was asked of it")
		l := w.acquire(a, "key")
		link.SetCut(true)
		time.Sleep(2 * ttl)
		require.NoError(t, a.Check())
		time.Sleep(ttl)
		require.ErrorContains(t, a.Check(), "has not answered for")
		require.ErrorIs(t, a.Check(), kv.ErrUncertain)
		link.SetCut(false)
		time.Sleep(ttl)
		_, err := a.TryAcquire(t.Context(), "other")
		require.NoError(t, err)
		require.NoError(t, a.Check())
		require.ErrorIs(t, l.Release(t.Context()), lease.ErrLost)
	})
}
