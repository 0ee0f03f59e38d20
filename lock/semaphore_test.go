package lock_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

func TestSemaphoreLetsSoManyInAndNoMore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newSlow(memkv.New(), 5*time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		var in, most, rounds atomic.Int32
		var wait sync.WaitGroup
		for range 6 {
			s := lock.NewSemaphore(newClient(t, store), "crawl", 5)
			for range 2 {
				wait.Go(func() {
					for range 10 {
						if err := s.Do(ctx, func(context.Context, *lease.Lease) error {
							n := in.Add(1)
							most.Store(max(most.Load(), n))
							time.Sleep(100 * time.Millisecond)
							in.Add(-1)
							rounds.Add(1)
							return nil
						}); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
		}
		wait.Wait()
		require.Equal(t, int32(5), most.Load())
		require.Equal(t, int32(120), rounds.Load())
	})
}

func TestSemaphoreCosts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		mine, theirs := newLink(store), newLink(store)
		a, b := lock.NewSemaphore(newClient(t, mine), "s", 1), lock.NewSemaphore(newClient(t, theirs), "s", 1)
		l, err := a.Acquire(t.Context())
		require.NoError(t, err)
		require.Equal(t, map[string]int{"Get": 1, "AtomicPut": 2, "session AtomicPut": 1}, mine.take(), "the first time")
		require.ErrorIs(t, b.TryDo(t.Context(), mustNotRun(t)), lease.ErrHeld)
		theirs.take()
		_, err = b.TryAcquire(t.Context())
		var held *lease.HeldError
		require.ErrorAs(t, err, &held)
		require.Len(t, held.Holders, 1)
		require.Equal(t, map[string]int{"AtomicPut": 1, "ListPage": 1}, theirs.take(), "full: refused")
		require.NoError(t, l.Release(t.Context()))
		require.Equal(t, map[string]int{"AtomicDelete": 1}, mine.take())
		require.NoError(t, a.Do(t.Context(), nop))
		require.Equal(t, map[string]int{"AtomicPut": 1, "AtomicDelete": 1}, mine.take())
		time.Sleep(lease.DefaultTTL)
		mine.take()
		require.NoError(t, a.Do(t.Context(), nop))
		require.Equal(t, map[string]int{"Get": 1, "AtomicPut": 1, "AtomicDelete": 1}, mine.take())
	})
}

func TestSemaphoreIsResizedAndEvictsNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		a, b := lock.NewSemaphore(newClient(t, store), "s", 1), lock.NewSemaphore(newClient(t, store), "s", 1)
		first, err := a.Acquire(t.Context())
		require.NoError(t, err)
		got := make(chan *lease.Lease, 1)
		go func() {
			l, _ := b.Acquire(t.Context())
			got <- l
		}()
		time.Sleep(time.Minute)
		require.Empty(t, got)
		require.NoError(t, a.Resize(t.Context(), 2))
		time.Sleep(5 * time.Second)
		require.Len(t, got, 1, "who waits hears of it")
		second := <-got
		require.NotEqual(t, first.Key(), second.Key())
		require.NoError(t, b.Resize(t.Context(), 1))
		time.Sleep(lease.DefaultTTL)
		require.True(t, first.Held() && second.Held())
		holders, err := b.Holders(t.Context())
		require.NoError(t, err)
		require.Len(t, holders, 2)
		for _, l := range []*lease.Lease{first, second} {
			require.NoError(t, l.Release(t.Context()))
		}
		require.NoError(t, a.Do(t.Context(), func(ctx context.Context, l *lease.Lease) error {
			require.Equal(t, "semaphore/s/0", l.Key())
			require.ErrorIs(t, b.TryDo(ctx, mustNotRun(t)), lease.ErrHeld)
			return nil
		}))
	})
}

func TestSemaphoreRefusesAnotherNumber(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		mine := newLink(memkv.New())
		client := newClient(t, mine)
		for _, s := range []*lock.Semaphore{
			new(lock.Semaphore), lock.NewSemaphore(client, "", 1), lock.NewSemaphore(client, "s", 0),
			lock.NewSemaphore(client, "s", lock.MaxPermits+1),
		} {
			_, err := s.TryAcquire(t.Context())
			require.ErrorIs(t, err, lease.ErrInvalid)
		}
		s := lock.NewSemaphore(client, "s", 5)
		require.ErrorIs(t, s.Resize(t.Context(), 0), lease.ErrInvalid)
		require.ErrorIs(t, s.Do(t.Context(), nil), lease.ErrInvalid)
		require.Empty(t, mine.take())
		require.NoError(t, s.Do(t.Context(), nop))
		require.NoError(t, s.Resize(t.Context(), 7))
		require.NoError(t, lock.NewSemaphore(client, "s", 5).Do(t.Context(), nop), "the number to name stays")
		err := lock.NewSemaphore(client, "s", 7).Do(t.Context(), nop)
		require.ErrorIs(t, err, lease.ErrInvalid)
		require.ErrorContains(t, err, "7 permits here, 5 where it was used first")
	})
}

// Whose client holds all permits by itself has nothing to list, and hears of it
// all the same.
func TestSemaphoreThatShrinksIsHeardOfWhereAllPermitsAreHeld(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		a := lock.NewSemaphore(newClient(t, store), "s", 2)
		b := lock.NewSemaphore(newClient(t, store, lease.WithTTL(time.Hour)), "s", 2)
		held := map[string]*lease.Lease{}
		for range 2 {
			l, err := b.Acquire(t.Context())
			require.NoError(t, err)
			held[l.Key()] = l
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		got := make(chan string, 1)
		go func() {
			l, err := b.Acquire(ctx)
			if err != nil {
				t.Error(err)
				return
			}
			got <- l.Key()
		}()
		time.Sleep(time.Second)
		require.NoError(t, a.Resize(t.Context(), 1))
		time.Sleep(16 * time.Second)
		require.NoError(t, held["semaphore/s/1"].Release(t.Context()))
		time.Sleep(time.Minute)
		require.Empty(t, got, "it is none of the semaphore's any more")
		require.NoError(t, held["semaphore/s/0"].Release(t.Context()))
		require.Equal(t, "semaphore/s/0", <-got)
	})
}

// What an answer shows is as old as its request.
func TestSemaphoreCountsTheAgeOfItsNumberFromTheRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		late := kv.Instrument(store, func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Op == "Get" && call.Key == "lease/semaphore/s/n" {
				defer time.Sleep(10 * time.Second)
			}
			return next(ctx)
		})
		a := lock.NewSemaphore(newClient(t, store), "s", 16)
		require.NoError(t, a.Do(t.Context(), nop)) // makes the row
		resized := make(chan error, 1)
		time.AfterFunc(time.Second, func() { resized <- a.Resize(t.Context(), 1) })
		var others []*lock.Semaphore
		var wait sync.WaitGroup
		for range 8 { // which begin at different ones
			b := lock.NewSemaphore(newClient(t, late), "s", 16)
			others = append(others, b)
			wait.Go(func() { _ = b.Do(t.Context(), nop) })
		}
		wait.Wait()
		require.NoError(t, <-resized)
		time.Sleep(7 * time.Second)
		_, err := a.TryAcquire(t.Context())
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour) // else a try takes 3 s at most
		defer cancel()
		for _, b := range others { // 17 s after Resize
			wait.Go(func() {
				if err := b.TryDo(ctx, mustNotRun(t)); !errors.Is(err, lease.ErrHeld) {
					t.Error(err)
				}
			})
		}
		wait.Wait()
	})
}

func TestSemaphoreNamesDoNotLieWithinEachOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newClient(t, memkv.New())
		for _, name := range []string{"s", "s/0", "s/n", "s%2F0", "é\xff"} {
			s := lock.NewSemaphore(client, name, 1)
			l, err := s.TryAcquire(t.Context())
			require.NoError(t, err, name)
			holders, err := s.Holders(t.Context())
			require.NoError(t, err)
			require.Len(t, holders, 1, name)
			require.Equal(t, l.Token(), holders[0].Token)
		}
	})
}

func TestSemaphoreKeepsAPermitOfAnOwnToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		tokens := map[string]uint64{}
		for range 10 {
			s := lock.NewSemaphore(newClient(t, store), "s", 3)
			l, err := s.TryAcquire(t.Context())
			require.NoError(t, err)
			require.Greater(t, l.Token(), tokens[l.Key()])
			tokens[l.Key()] = l.Token()
			require.NoError(t, l.Release(t.Context()))
		}
		require.Greater(t, len(tokens), 1, "clients begin at different ones")
	})
}

func TestSemaphoreResizeByTwoAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := kv.Instrument(memkv.New(), func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Op == "Get" {
				defer time.Sleep(10 * time.Millisecond) // so that both have read before either writes
			}
			return next(ctx)
		})
		s := lock.NewSemaphore(newClient(t, store), "s", 2)
		require.NoError(t, s.Do(t.Context(), nop))
		var wait sync.WaitGroup
		for n := range 2 {
			wait.Go(func() {
				if err := s.Resize(t.Context(), 10+n); err != nil {
					t.Error(err)
				}
			})
		}
		wait.Wait()
		time.Sleep(lease.DefaultTTL)
		var held []*lease.Lease
		for range 10 {
			l, err := s.TryAcquire(t.Context())
			require.NoError(t, err)
			held = append(held, l)
		}
		require.Len(t, held, 10)
	})
}

// As Mutex.Lock does, and until Close or the end of its context.
func TestSemaphoreAcquireWaitsOutAnOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var away atomic.Bool
		away.Store(true)
		store := kv.Instrument(memkv.New(), func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if away.Load() {
				return &kv.UncertainError{Key: call.Key, Err: errLost}
			}
			return next(ctx)
		})
		client := newClient(t, store)
		s := lock.NewSemaphore(client, "s", 1)
		away.Store(false)
		require.NoError(t, lock.NewMutex(client, "warm").Do(t.Context(), nop))
		away.Store(true)
		_, err := s.TryAcquire(t.Context())
		require.ErrorIs(t, err, errLost)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err = s.Acquire(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, errLost)
		got := make(chan error, 1)
		go func() { got <- s.Do(t.Context(), nop) }()
		time.Sleep(time.Hour)
		require.Empty(t, got)
		away.Store(false)
		time.Sleep(10 * time.Second)
		require.NoError(t, <-got)
		away.Store(true)
		time.Sleep(time.Minute)
		last, stop := context.WithTimeout(t.Context(), time.Hour)
		defer stop()
		go func() { got <- s.Do(last, nop) }()
		time.Sleep(time.Minute)
		require.Empty(t, got)
		closeSoon(client)
		require.ErrorIs(t, <-got, lease.ErrClosed)
		require.ErrorIs(t, lock.NewSemaphore(newClient(t, memkv.New()), "s", 2).Do(t.Context(), nil), lease.ErrInvalid)
	})
}

// A store that has never answered, and one that refuses, are told of, as by
// Mutex.Lock.
func TestSemaphoreAcquireTellsWhatWaitingDoesNotMend(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var failure atomic.Pointer[error]
		store := kv.Instrument(memkv.New(), func(ctx context.Context, _ kv.Call, next func(context.Context) error) error {
			if err := failure.Load(); err != nil {
				return *err
			}
			return next(ctx)
		})
		s := lock.NewSemaphore(newClient(t, store, lease.WithRefusedLimit(time.Minute)), "s", 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		failure.Store(&kv.ErrUnavailable)
		began := time.Now()
		require.ErrorIs(t, s.Do(ctx, nop), kv.ErrUnavailable)
		require.Zero(t, time.Since(began), "the store has never answered")
		failure.Store(nil)
		require.NoError(t, s.Do(ctx, nop))
		time.Sleep(time.Minute)
		failure.Store(&kv.ErrRefused)
		began = time.Now()
		require.ErrorIs(t, s.Do(ctx, nop), kv.ErrRefused)
		require.InDelta(t, time.Minute, time.Since(began), float64(10*time.Second))
	})
}
