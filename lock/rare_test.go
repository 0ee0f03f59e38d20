package lock_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

// A reader whose session cannot be asked after may be alive.
func TestR22AWriterDoesNotTakeAReaderForNoneThatItCannotAskAfter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		reader := lock.NewRWMutex(newClient(t, store), "m")
		r, err := reader.RLock(t.Context())
		require.NoError(t, err)
		var failing atomic.Bool
		failing.Store(true)
		m := lock.NewRWMutex(newClient(t, kv.Instrument(store, func(
			ctx context.Context, call kv.Call, next func(context.Context) error,
		) error {
			if failing.Load() && call.Op == "Get" && strings.HasPrefix(call.Key, "session/") {
				return kv.ErrUnavailable
			}
			return next(ctx)
		})), "m")
		_, err = m.TryLock(t.Context())
		require.ErrorIs(t, err, kv.ErrUnavailable)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err = m.Lock(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.True(t, r.Held())
		failing.Store(false)
		require.NoError(t, r.Release(t.Context()))
		l, err := m.Lock(t.Context())
		require.NoError(t, err)
		require.NoError(t, l.Release(t.Context()))
	})
}

// Readers whose rows could not be written leave their numbers to the next, so
// that a lock has few rows however often it could not be had.
func TestRWMutexNumbersOfReadersThatFailedAreUsedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		var failing atomic.Bool
		m := lock.NewRWMutex(newClient(t, hooked(store, func(call kv.Call, next func() error) error {
			if failing.Load() && call.Op == "AtomicPut" && isReaderRow(call) {
				return kv.ErrRefused
			}
			return next()
		})), "m")
		require.NoError(t, m.RDo(t.Context(), readNothing))
		failing.Store(true)
		for range 5 {
			_, err := m.TryRLock(t.Context())
			require.ErrorIs(t, err, kv.ErrRefused)
		}
		failing.Store(false)
		r, err := m.RLock(t.Context())
		require.NoError(t, err)
		require.True(t, strings.HasSuffix(r.Lease().Key(), "/0"), r.Lease().Key())
		require.NoError(t, r.Release(t.Context()))
	})
}

// The pauses that failures have made longer end with the first look that succeeds.
func TestRWMutexReaderLooksAsOftenAsBeforeAfterAnOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		writer, err := lock.NewRWMutex(newClient(t, store), "m").Lock(t.Context())
		require.NoError(t, err)
		var failing atomic.Bool
		var looks atomic.Int32
		m := lock.NewRWMutex(newClient(t, hooked(store, func(call kv.Call, next func() error) error {
			if call.Op == "Get" && strings.HasSuffix(call.Key, "/w") {
				looks.Add(1)
				if failing.Load() {
					return kv.ErrUnavailable
				}
			}
			return next()
		})), "m")
		read := make(chan error, 1)
		go func() {
			read <- m.RDo(t.Context(), readNothing)
		}()
		time.Sleep(time.Minute)
		failing.Store(true)
		time.Sleep(time.Minute)
		failing.Store(false)
		time.Sleep(10 * time.Second) // the longest pause of all
		looks.Store(0)
		time.Sleep(time.Minute)
		require.GreaterOrEqual(t, looks.Load(), int32(50), "one a second")
		require.NoError(t, writer.Release(t.Context()))
		require.NoError(t, <-read)
	})
}

// The process was frozen while it listed the readers, and no timer has gone off
// yet: the clocks alone tell that the lease is lost.
func TestR22NothingIsGrantedAfterAFreezeDuringTheListing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		c := clock.NewSkewed(clock.System, 1, 0)
		frozen := false
		m := lock.NewRWMutex(newClient(t, hooked(store, func(call kv.Call, next func() error) error {
			err := next()
			if call.Op == "ListPage" && !frozen {
				frozen = true
				c.Step(time.Hour)
			}
			return err
		}), lease.WithClock(c)), "m")
		l, err := m.Lock(t.Context())
		require.NoError(t, err)
		require.True(t, frozen)
		require.True(t, l.Held())
		require.NoError(t, l.Release(t.Context()))
	})
}

// Who has resized a semaphore goes by the new size at once.
func TestSemaphoreWhoHasResizedItTakesNoPermitBeyond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := lock.NewSemaphore(newClient(t, memkv.New()), "s", 20)
		var held []*lease.Lease
		for range 5 {
			l, err := s.Acquire(t.Context())
			require.NoError(t, err)
			held = append(held, l)
		}
		require.NoError(t, s.Resize(t.Context(), 1))
		other := 0
		for range 5 {
			l, err := s.TryAcquire(t.Context())
			if err == nil {
				other++
				require.True(t, strings.HasSuffix(l.Key(), "/0"), l.Key())
			}
		}
		require.LessOrEqual(t, other, 1)
		for _, l := range held {
			require.NoError(t, l.Release(t.Context()))
		}
	})
}

// The row that counts the permits is another's by now, who names another number:
// who waits does not go by that.
func TestSemaphoreWaiterDoesNotTakeAnotherNumbersPermits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		c := newClient(t, store)
		s := lock.NewSemaphore(c, "s", 1)
		l, err := s.Acquire(t.Context())
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		waiter := lock.NewSemaphore(newClient(t, store), "s", 1)
		waited := make(chan error, 1)
		go func() {
			_, err := waiter.Acquire(ctx)
			waited <- err
		}()
		time.Sleep(time.Second)
		h, err := c.Holder(t.Context(), "semaphore/s/n")
		require.NoError(t, err)
		require.NoError(t, c.Replace(t.Context(), h, []byte(`{"f":1,"permits":7,"size":7}`)))
		require.ErrorIs(t, <-waited, context.DeadlineExceeded)
		require.NoError(t, l.Release(t.Context()))
	})
}

// What a listing that took long says of the size is as old as its beginning.
func TestSemaphoreSizeIsAsOldAsTheRequestThatShowedIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		a := lock.NewSemaphore(newClient(t, store), "s", 20)
		var held []*lease.Lease
		for range 20 {
			l, err := a.Acquire(t.Context())
			require.NoError(t, err)
			held = append(held, l)
		}
		var slow atomic.Bool
		slow.Store(true)
		b := lock.NewSemaphore(newClient(t, kv.Instrument(store, func(
			ctx context.Context, call kv.Call, next func(context.Context) error,
		) error {
			err := next(ctx)
			if slow.Load() && call.Op == "ListPage" && strings.HasPrefix(call.Key, "lease/semaphore/") {
				time.Sleep(12 * time.Second)
			}
			return err
		})), "s", 20)
		ctx, cancel := context.WithTimeout(t.Context(), 12*time.Second+time.Millisecond)
		defer cancel()
		waited := make(chan error, 1)
		go func() {
			_, err := b.Acquire(ctx)
			waited <- err
		}()
		time.Sleep(time.Second)
		require.NoError(t, a.Resize(t.Context(), 1))
		require.Error(t, <-waited)
		slow.Store(false)
		for _, l := range held {
			if !strings.HasSuffix(l.Key(), "/0") {
				require.NoError(t, l.Release(t.Context()))
			}
		}
		time.Sleep(5 * time.Second) // 16 s after Resize
		_, err := b.TryAcquire(t.Context())
		require.ErrorIs(t, err, lease.ErrHeld)
	})
}
