package lease_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

func TestR14RowThatLandsAfterTheLastReadBeganIsStillGivenBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		link := newLink(w.store)
		a, err := lease.New(slow{link}, lease.WithTTL(ttl))
		require.NoError(t, err)
		defer func() { require.NoError(t, a.Close(t.Context())) }()
		began := time.Now()
		var land func(context.Context) error
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			switch {
			case call.Key == "lease/key" && call.Op == "AtomicPut":
				land = next
				return &kv.UncertainError{Key: call.Key, Err: errLost}
			case call.Key == "lease/key" && call.Op == "Get" && land != nil && time.Since(began) > time.Minute:
				err := next(ctx) // which finds nothing
				require.NoError(t, land(context.Background()))
				land = nil
				time.Sleep(2*time.Minute + time.Second - time.Since(began)) // now no write lands any more
				return err
			}
			return next(ctx)
		})
		_, err = a.TryAcquire(t.Context(), "key")
		require.ErrorIs(t, err, kv.ErrUncertain)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		require.Nil(t, land)
		require.Empty(t, w.rows("lease/"))
	})
}

func TestR14AbandonedAcquireIsGivenBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		b, _ := w.client("b")
		w.acquire(a, "other")
		link.LoseAnswer("AtomicPut", "lease/")
		_, err := a.TryAcquire(t.Context(), "key")
		require.ErrorIs(t, err, kv.ErrUncertain)
		time.Sleep(time.Second)
		require.Equal(t, []string{"lease/other"}, w.rows("lease/"))
		require.NotNil(t, w.acquire(b, "key"))
	})
}

// slow is a store whose unanswered writes may land a minute later.
type slow struct{ *link }

func (slow) MaxWriteDelay() time.Duration { return time.Minute }

func TestR14AcquireThatLandsLateIsGivenBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		l := newLink(w.store)
		a, err := lease.New(slow{l}, lease.WithTTL(ttl))
		require.NoError(t, err)
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_ = a.Close(ctx) // a check that failed has left the lease
		})
		other := w.acquire(a, "other")
		landed := make(chan error, 1)
		l.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Key != "lease/key" || call.Op != "AtomicPut" {
				return next(ctx)
			}
			go func() {
				time.Sleep(50 * time.Second)
				landed <- next(context.Background())
			}()
			return &kv.UncertainError{Key: call.Key, Err: errLost}
		})
		_, err = a.TryAcquire(t.Context(), "key")
		require.ErrorIs(t, err, kv.ErrUncertain)
		require.NoError(t, <-landed)
		require.Len(t, w.rows("lease/"), 2)
		time.Sleep(time.Minute)
		require.Equal(t, []string{"lease/other"}, w.rows("lease/"))
		time.Sleep(2 * time.Minute)
		l.Take()
		time.Sleep(2 * time.Minute)
		require.Zero(t, l.Take()["Get"], "and then it looks no more")
		require.NoError(t, other.Release(t.Context()))
	})
}

func TestR9RowGrantedTooLateIsGivenBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		w.acquire(a, "other")
		session := w.rows("session/")[0]
		var slowed atomic.Bool
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			switch {
			case call.Key == "lease/key" && slowed.CompareAndSwap(false, true):
				err := next(ctx)
				time.Sleep(ttl)
				return err
			case call.Key == session && call.Op == "AtomicPut" && slowed.Load():
				return &kv.UncertainError{Key: call.Key, Err: errLost}
			case strings.HasPrefix(call.Key, "session/") && call.Op == "AtomicPut":
				return errLost // and no new session can be opened
			}
			return next(ctx)
		})
		_, err := a.TryAcquire(patient(t), "key")
		require.ErrorIs(t, err, errLost)
		require.Equal(t, []string{"lease/other"}, w.rows("lease/"))
	})
}

// An acquiring write has landed, which its uncertain answer shows, and nobody
// waits for it any more.
func TestR14WriteThatIsShownToHaveLandedIsGivenBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		w.acquire(a, "warm")
		ctx, giveUp := context.WithCancel(t.Context())
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if err := next(ctx); err != nil || call.Op != "AtomicPut" || call.Key != "lease/key" {
				return err
			}
			giveUp()
			landed, err := w.store.Get(t.Context(), call.Key)
			require.NoError(t, err)
			return &kv.UncertainError{Key: call.Key, Version: landed.Version, Current: landed, Err: errLost}
		})
		_, err := a.TryAcquire(ctx, "key")
		require.Error(t, err)
		time.Sleep(time.Minute)
		require.Equal(t, []string{"lease/warm"}, w.rows("lease/"))
	})
}
