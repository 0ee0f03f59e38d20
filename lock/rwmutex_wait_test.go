package lock_test

import (
	"context"
	"fmt"
	"strings"
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

// While the store is away, calls that wait go on, and what refuses or cannot be
// read ends them, as with Mutex.Lock.
func TestRWMutexWaitsOutWhatTimeMends(t *testing.T) {
	t.Parallel()
	for name, get := range map[string]func(*lock.RWMutex, context.Context) error{
		"RDo": func(m *lock.RWMutex, ctx context.Context) error { return m.RDo(ctx, readNothing) },
		"Do":  func(m *lock.RWMutex, ctx context.Context) error { return m.Do(ctx, nop) },
	} {
		for missing, op := range map[string]string{"everything": "", "the look": "Get", "the listing": "ListPage"} {
			t.Run(name+" without "+missing, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					memory := memkv.New()
					var failure atomic.Pointer[error]
					var calls atomic.Int32
					client := newClient(t, kv.Instrument(memory, func(
						ctx context.Context, call kv.Call, next func(context.Context) error,
					) error {
						if err := failure.Load(); err != nil && (op == "" || call.Op == op && strings.HasPrefix(call.Key, "lease/rw/")) {
							calls.Add(1)
							return *err
						}
						return next(ctx)
					}), lease.WithRefusedLimit(time.Minute))
					m := lock.NewRWMutex(client, "m")
					ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
					defer cancel()
					if op == "" {
						failure.Store(&kv.ErrUnavailable)
						require.ErrorIs(t, get(m, ctx), kv.ErrUnavailable, "the store has never answered")
						failure.Store(nil)
					}
					require.NoError(t, get(m, ctx))

					failure.Store(&kv.ErrUnavailable)
					got := make(chan error, 1)
					calls.Store(0)
					go func() { got <- get(m, ctx) }()
					time.Sleep(time.Hour)
					if op == "ListPage" && name == "RDo" || op == "Get" && name == "Do" {
						require.NoError(t, <-got, "it does not need that")
						require.Empty(t, rwRows(t, memory))
						return
					}
					require.Empty(t, got)
					require.Less(t, int(calls.Load()), 6*3600/5, "at most 5 s apart")
					failure.Store(nil)
					time.Sleep(10 * time.Second)
					require.NoError(t, <-got)

					failure.Store(&kv.ErrRefused)
					began := time.Now()
					require.ErrorIs(t, get(m, ctx), kv.ErrRefused)
					require.InDelta(t, time.Minute, time.Since(began), float64(15*time.Second))
					failure.Store(nil)
					time.Sleep(time.Minute)
					require.Empty(t, rwRows(t, memory))
				})
			})
		}
	}
}

// Who writes in a loop leaves gaps in which others look (R15).
func TestRWMutexAClientThatWritesInALoopLetsReadersIn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newSlow(memkv.New(), 5*time.Millisecond)
		ctx, stop := context.WithCancel(t.Context())
		var writers sync.WaitGroup
		m := lock.NewRWMutex(newClient(t, store), "m")
		for range 3 {
			writers.Go(func() {
				for ctx.Err() == nil {
					_ = m.Do(ctx, func(context.Context, *lease.Lease) error {
						time.Sleep(20 * time.Millisecond)
						return nil
					})
				}
			})
		}
		reader := lock.NewRWMutex(newClient(t, store), "m")
		for range 10 {
			time.Sleep(time.Second)
			began := time.Now()
			require.NoError(t, reader.RDo(t.Context(), readNothing))
			require.Less(t, time.Since(began), 20*time.Second)
		}
		stop()
		writers.Wait()
	})
}

// A row that cannot be read is left alone, and nobody gets past it (R18).
func TestRWMutexLeavesAloneWhatItCannotRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		m := lock.NewRWMutex(newClient(t, store), "m")
		_, err := store.AtomicPut(t.Context(), "lease/rw/m/r/x/0", kv.WithJSON(map[string]int{"f": 99}))
		require.NoError(t, err)
		require.NoError(t, m.RDo(t.Context(), readNothing), "other readers do not look there")
		require.ErrorIs(t, m.Do(t.Context(), nop), kv.ErrFormat)
		require.ErrorIs(t, m.TryDo(t.Context(), nop), kv.ErrFormat)
		require.NoError(t, store.Delete(t.Context(), "lease/rw/m/r/x/0"))
		require.NoError(t, m.Do(t.Context(), nop))
		require.NoError(t, store.Put(t.Context(), "lease/rw/m/w", kv.WithJSON(map[string]int{"f": 99})))
		require.ErrorIs(t, m.RDo(t.Context(), readNothing), kv.ErrFormat)
		require.ErrorIs(t, m.TryRDo(t.Context(), readNothing), kv.ErrFormat)
		require.ErrorIs(t, m.Do(t.Context(), nop), kv.ErrFormat)
		require.Empty(t, rwReaderRows(t, store))
	})
}

// rwReaderRows are the rows of readers there are.
func rwReaderRows(t *testing.T, store kv.Store) (keys []string) {
	t.Helper()
	for pair, err := range kv.All(t.Context(), store, "lease/rw/m/r/") {
		require.NoError(t, err)
		keys = append(keys, pair.Key)
	}
	return keys
}

// A reader whose wait ends with its context says who writes.
func TestRWMutexSaysWhatItWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		l, err := lock.NewRWMutex(newClient(t, store, lease.WithOwner("writer")), "m").Lock(t.Context())
		require.NoError(t, err)
		var away atomic.Bool
		m := lock.NewRWMutex(newClient(t, kv.Instrument(store, func(
			ctx context.Context, call kv.Call, next func(context.Context) error,
		) error {
			if away.Load() && strings.HasPrefix(call.Key, "lease/rw/") {
				return kv.ErrUnavailable
			}
			return next(ctx)
		})), "m")
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		time.AfterFunc(5*time.Second, func() { away.Store(true) })
		var ended *lease.WaitError
		require.ErrorAs(t, m.RDo(ctx, mustNotRead(t)), &ended)
		require.Equal(t, "rw/m/w", ended.Key)
		require.Equal(t, "writer", ended.Holder.Owner)
		require.Equal(t, l.Token(), ended.Holder.Token)
		require.False(t, ended.Own)
		require.ErrorIs(t, ended, context.DeadlineExceeded)
		require.ErrorIs(t, ended, kv.ErrUnavailable)
		require.Equal(t, 10*time.Second, ended.Waited)
	})
}

// The lock-delay of a writer keeps readers out, that of a reader the writer.
func TestRWMutexWaitsForLockDelays(t *testing.T) {
	t.Parallel()
	for _, writing := range []bool{false, true} {
		t.Run(fmt.Sprint(writing), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				store := memkv.New()
				dying := newLink(store)
				d := lock.NewRWMutex(newClient(t, dying), "m", lease.WithLockDelay(time.Minute))
				m := lock.NewRWMutex(newClient(t, store), "m")
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				var err error
				if writing {
					_, err = d.Lock(ctx)
				} else {
					_, err = d.RLock(ctx)
				}
				require.NoError(t, err)
				dying.setCut(true)
				began := time.Now()
				if writing {
					require.NoError(t, m.RDo(ctx, readNothing))
				} else {
					require.NoError(t, m.Do(ctx, nop))
				}
				require.Greater(t, time.Since(began), ttl+time.Minute)
				require.Less(t, time.Since(began), rwTakeover+time.Minute)
			})
		})
	}
}

// An operator breaks a reader's row, or the writers', as any lease.
func TestRWMutexCanBeBroken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		operator := newClient(t, store)
		m := lock.NewRWMutex(newClient(t, store), "m")
		r, err := m.RLock(t.Context())
		require.NoError(t, err)
		holders, err := m.Holders(t.Context())
		require.NoError(t, err)
		require.Len(t, holders, 1)
		require.NoError(t, operator.Break(t.Context(), holders[0]))
		require.ErrorIs(t, r.Err(), lease.ErrLost)
		l, err := lock.NewRWMutex(operator, "m").TryLock(t.Context())
		require.NoError(t, err)
		require.ErrorIs(t, r.Release(t.Context()), lease.ErrLost)
		require.True(t, l.Held())
	})
}

// A try ends within 3 s, whatever the store does.
func TestRWMutexTriesDoNotHang(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var away atomic.Bool
		m := lock.NewRWMutex(newClient(t, kv.Instrument(memkv.New(), func(
			ctx context.Context, call kv.Call, next func(context.Context) error,
		) error {
			if away.Load() && strings.HasPrefix(call.Key, "lease/rw/") {
				<-ctx.Done()
				return ctx.Err()
			}
			return next(ctx)
		})), "m")
		require.NoError(t, m.TryRDo(t.Context(), readNothing))
		away.Store(true)
		for _, try := range []func() error{
			func() error { return m.TryDo(t.Context(), nop) },
			func() error { return m.TryRDo(t.Context(), readNothing) },
		} {
			began := time.Now()
			require.ErrorIs(t, try(), kv.ErrUnavailable)
			require.Equal(t, 3*time.Second, time.Since(began))
		}
	})
}
