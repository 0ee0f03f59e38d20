package lock_test

import (
	"context"
	"errors"
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

// I5 for these tests: until a waiter has what a client has left that is no more.
const rwTakeover = (ttl + ttl/16 + ttl/3) + 1200*time.Millisecond

// hooked is a store that calls hook around each call on rows of RWMutexes. next
// carries it out, however late.
func hooked(store kv.Store, hook func(call kv.Call, next func() error) error) kv.Store {
	return kv.Instrument(store, func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
		if !strings.HasPrefix(call.Key, "lease/rw/") {
			return next(ctx)
		}
		return hook(call, func() error { return next(context.WithoutCancel(ctx)) })
	})
}

func isReaderRow(call kv.Call) bool { return strings.Contains(call.Key, "/r/") }

// While a reader is about to write its row, a writer comes, and stays.
func TestR22AReaderLooksAfterItHasWritten(t *testing.T) {
	t.Parallel()
	for name, read := range map[string]func(*lock.RWMutex, context.Context) (*lock.ReadLease, error){
		"RLock": (*lock.RWMutex).RLock, "TryRLock": (*lock.RWMutex).TryRLock,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				store := memkv.New()
				writer := lock.NewRWMutex(newClient(t, store), "m")
				var once sync.Once
				var l *lease.Lease
				m := lock.NewRWMutex(newClient(t, hooked(store, func(call kv.Call, next func() error) error {
					if call.Op == "AtomicPut" && isReaderRow(call) {
						once.Do(func() {
							var err error
							l, err = writer.TryLock(t.Context())
							require.NoError(t, err)
						})
					}
					return next()
				})), "m")
				require.NoError(t, writer.RDo(t.Context(), readNothing)) // the writers' row is there
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				_, err := read(m, ctx)
				require.ErrorIs(t, err, lease.ErrHeld)
				require.True(t, l.Held())
				require.Equal(t, []string{"lease/rw/m/w"}, rwRows(t, store), "the reader has given its row back")
			})
		})
	}
}

// While a writer is about to write its row, a reader comes, and stays.
func TestR22AWriterListsAfterItHasWritten(t *testing.T) {
	t.Parallel()
	for name, write := range map[string]func(*lock.RWMutex, context.Context) (*lease.Lease, error){
		"Lock": (*lock.RWMutex).Lock, "TryLock": (*lock.RWMutex).TryLock,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				store := memkv.New()
				reader := lock.NewRWMutex(newClient(t, store), "m")
				require.NoError(t, reader.RDo(t.Context(), readNothing)) // the writers' row is there
				var once sync.Once
				var r *lock.ReadLease
				m := lock.NewRWMutex(newClient(t, hooked(store, func(call kv.Call, next func() error) error {
					if call.Op == "AtomicPut" && !isReaderRow(call) {
						once.Do(func() {
							var err error
							r, err = reader.TryRLock(t.Context())
							require.NoError(t, err)
						})
					}
					return next()
				})), "m")
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				_, err := write(m, ctx)
				require.ErrorIs(t, err, lease.ErrHeld)
				require.True(t, r.Held())
				require.NoError(t, reader.TryRDo(t.Context(), readNothing), "the writer has given its row back")
			})
		})
	}
}

// A look that takes longer than the session lasts: the lock is not granted by it.
func TestR22NothingIsGrantedByASessionThatEndedDuringTheLook(t *testing.T) {
	t.Parallel()
	lock1 := func(m *lock.RWMutex, ctx context.Context) (interface{ Held() bool }, error) { return m.Lock(ctx) }
	for name, test := range map[string]struct {
		request string
		skip    int // looks that go well
		get     func(m *lock.RWMutex, ctx context.Context) (interface{ Held() bool }, error)
		waits   bool
	}{
		"RLock":    {"Get", 0, func(m *lock.RWMutex, ctx context.Context) (interface{ Held() bool }, error) { return m.RLock(ctx) }, true},
		"TryRLock": {"Get", 1, func(m *lock.RWMutex, ctx context.Context) (interface{ Held() bool }, error) { return m.TryRLock(ctx) }, false},
		"Lock":     {"ListPage", 0, lock1, true},
		"TryLock":  {"ListPage", 1, func(m *lock.RWMutex, ctx context.Context) (interface{ Held() bool }, error) { return m.TryLock(ctx) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				store := memkv.New()
				var away atomic.Bool
				looks, wrote := 0, false
				client := newClient(t, kv.Instrument(store, func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
					if strings.HasPrefix(call.Key, "session/") && away.Load() {
						return &kv.UncertainError{Key: call.Key, Err: errLost}
					}
					err := next(ctx)
					if call.Op == "AtomicPut" && strings.HasPrefix(call.Key, "lease/rw/") {
						wrote = true
					}
					if call.Op == test.request && strings.HasPrefix(call.Key, "lease/rw/") && (wrote || test.skip > 0) {
						if looks++; looks == test.skip+1 {
							away.Store(true)
							time.Sleep(2 * ttl)
							away.Store(false)
						}
					}
					return err
				}))
				require.NoError(t, lock.NewMutex(client, "warm").Do(t.Context(), nop))
				require.NoError(t, lock.NewRWMutex(newClient(t, store), "m").RDo(t.Context(), readNothing))
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				l, err := test.get(lock.NewRWMutex(client, "m"), ctx)
				require.Greater(t, looks, test.skip)
				if test.waits {
					require.NoError(t, err)
					require.True(t, l.Held(), "by another session")
					require.Greater(t, looks, 1)
					return
				}
				require.ErrorIs(t, err, lease.ErrLost)
			})
		})
	}
}

// A reader that dies is waited out once, and its row removed.
func TestR22AWriterFollowsReadersThatDied(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		dying := newLink(store)
		d := lock.NewRWMutex(newClient(t, dying), "m")
		for range 100 {
			_, err := d.RLock(t.Context())
			require.NoError(t, err)
		}
		mine := newLink(store)
		m := lock.NewRWMutex(newClient(t, mine), "m")
		dying.setCut(true)
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		l, err := m.Lock(ctx)
		require.NoError(t, err)
		require.Less(t, time.Since(began), rwTakeover)
		require.Greater(t, time.Since(began), ttl)
		require.Equal(t, 100, mine.take()["AtomicDelete"])
		require.Len(t, rwRows(t, store), 1, "the writer's own")
		require.NoError(t, l.Release(t.Context()))
	})
}

// A writer that dies is followed by readers without anybody taking its row, and by
// writers after them: the epochs keep their order.
func TestR22ReadersFollowAWriterThatDied(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		dying := newLink(store)
		dead, err := lock.NewRWMutex(newClient(t, dying), "m").Lock(t.Context())
		require.NoError(t, err)
		require.NoError(t, dead.Update(t.Context(), []byte("changes the version")))
		m := lock.NewRWMutex(newClient(t, store), "m")
		dying.setCut(true)
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		r, err := m.RLock(ctx)
		require.NoError(t, err)
		require.Less(t, time.Since(began), rwTakeover)
		require.Greater(t, time.Since(began), ttl)
		require.False(t, dead.Held())
		require.GreaterOrEqual(t, r.Epoch(), dead.Token())
		require.NoError(t, r.Release(t.Context()))
		l, err := m.Lock(ctx)
		require.NoError(t, err)
		require.True(t, l.TakenOver())
		require.Greater(t, l.Token(), r.Epoch())
		require.NoError(t, l.Release(t.Context()))
	})
}

// The epochs of readers lie between the tokens of the writers before and after.
func TestR22EpochsLieBetweenTokens(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		var last uint64
		for range 5 {
			m := lock.NewRWMutex(newClient(t, store), "m")
			r, err := m.RLock(t.Context())
			require.NoError(t, err)
			require.GreaterOrEqual(t, r.Epoch(), last)
			second, err := m.TryRLock(t.Context())
			require.NoError(t, err)
			require.Equal(t, r.Epoch(), second.Epoch(), "no writer was between")
			require.NoError(t, r.Release(t.Context()))
			require.NoError(t, second.Release(t.Context()))
			l, err := m.Lock(t.Context())
			require.NoError(t, err)
			require.Greater(t, l.Token(), r.Epoch())
			require.NoError(t, l.Release(t.Context()))
			last = l.Token()
			h, err := newClient(t, store).Holder(t.Context(), "rw/m/w")
			require.NoError(t, err)
			require.NoError(t, newClient(t, store).Discard(t.Context(), h), "an operator")
		}
	})
}

// The epoch is that of the look after the write: a writer that came and went between an
// earlier look and the write would have a token above it.
func TestR22TheEpochIsThatOfTheLookAfterTheWrite(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		writer := lock.NewRWMutex(newClient(t, store), "m")
		var token uint64
		m := lock.NewRWMutex(newClient(t, hooked(store, func(call kv.Call, next func() error) error {
			if call.Op == "AtomicPut" && isReaderRow(call) {
				require.NoError(t, writer.Do(t.Context(), func(_ context.Context, l *lease.Lease) error {
					token = l.Token()
					return nil
				}))
			}
			return next()
		})), "m")
		require.NoError(t, writer.RDo(t.Context(), readNothing))
		r, err := m.TryRLock(t.Context())
		require.NoError(t, err)
		require.Greater(t, r.Epoch(), token)
	})
}

// A process that is paused between its look at the lock and its act acts when others
// have the lock by then. The resource's bars keep it out, whichever it is.
func TestR22BarsRefuseWhoWasPaused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		var g guarded
		paused := func() (*link, *lock.RWMutex) {
			l := newLink(store)
			return l, lock.NewRWMutex(newClient(t, l), "m")
		}
		m := lock.NewRWMutex(newClient(t, store), "m")

		link, p := paused()
		writer, err := p.Lock(ctx)
		require.NoError(t, err)
		require.True(t, g.write(writer.Token()))
		link.setCut(true)
		require.NoError(t, m.RDo(ctx, func(_ context.Context, l *lock.ReadLease) error {
			require.True(t, g.read(l.Epoch()))
			require.False(t, g.write(writer.Token()), "beside a later reader")
			return nil
		}))

		link, p = paused()
		reader, err := p.RLock(ctx)
		require.NoError(t, err)
		require.True(t, g.read(reader.Epoch()))
		link.setCut(true)
		require.NoError(t, m.Do(ctx, func(_ context.Context, l *lease.Lease) error {
			require.True(t, g.write(l.Token()))
			require.False(t, g.read(reader.Epoch()), "beside a later writer")
			return nil
		}))
		require.NoError(t, m.RDo(ctx, func(_ context.Context, l *lock.ReadLease) error {
			require.True(t, g.read(l.Epoch()), "nobody who holds the lock is refused")
			return nil
		}))
	})
}

// Where w was handed over within a process, the next writer lists for itself: the one
// before may never have had the lock.
func TestR22AWriterThatIsHandedTheRowListsToo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		r, err := lock.NewRWMutex(newClient(t, store), "m").RLock(t.Context())
		require.NoError(t, err)
		m := lock.NewRWMutex(newClient(t, store), "m")
		first, stop := context.WithCancel(t.Context())
		gaveUp, got := make(chan error, 1), make(chan *lease.Lease, 1)
		go func() { gaveUp <- m.Do(first, nop) }()
		time.Sleep(100 * time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		go func() {
			l, err := m.Lock(ctx)
			if err != nil {
				t.Error(err)
			}
			got <- l
		}()
		time.Sleep(100 * time.Millisecond)
		stop()
		var ended *lease.WaitError
		require.ErrorAs(t, <-gaveUp, &ended)
		require.ErrorIs(t, ended, context.Canceled)
		require.Equal(t, r.Lease().Key(), ended.Key)
		require.Len(t, ended.Holders, 1)
		require.InDelta(t, 200*time.Millisecond, ended.Waited, float64(10*time.Millisecond))
		time.Sleep(time.Minute)
		require.Empty(t, got, "the reader reads")
		require.NoError(t, r.Release(t.Context()))
		l := <-got
		require.NotNil(t, l)
		require.True(t, l.Held())
		require.NoError(t, l.Release(t.Context()))
	})
}

// rwSteps calls test with each step of each way to get the lock: get is the way, and
// step the call of the store on its rows, from 1, of those that it makes when the lock
// is free.
func rwSteps(t *testing.T, test func(t *testing.T, get func(*lock.RWMutex, context.Context) error, step int)) {
	for name, way := range map[string]struct {
		steps int
		get   func(*lock.RWMutex, context.Context) error
	}{
		"RDo":    {3, func(m *lock.RWMutex, ctx context.Context) error { return m.RDo(ctx, readNothing) }},
		"TryRDo": {4, func(m *lock.RWMutex, ctx context.Context) error { return m.TryRDo(ctx, readNothing) }},
		"Do":     {4, func(m *lock.RWMutex, ctx context.Context) error { return m.Do(ctx, nop) }},
		"TryDo":  {5, func(m *lock.RWMutex, ctx context.Context) error { return m.TryDo(ctx, nop) }},
	} {
		for step := range way.steps {
			t.Run(fmt.Sprint(name, " ", step+1), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) { test(t, way.get, step+1) })
			})
		}
	}
}

// rwStepped is an RWMutex whose row w is there, over a store that calls hook instead of
// the given step.
func rwStepped(
	t *testing.T, step int, hook func(client *lease.Client, call kv.Call, next func() error) error,
) (store kv.Store, client *lease.Client, m *lock.RWMutex) {
	store = memkv.New()
	require.NoError(t, lock.NewRWMutex(newClient(t, store), "m").RDo(t.Context(), readNothing))
	var calls atomic.Int32
	client = newClient(t, hooked(store, func(call kv.Call, next func() error) error {
		if int(calls.Add(1)) == step {
			return hook(client, call, next)
		}
		return next()
	}))
	require.NoError(t, lock.NewMutex(client, "warm").Do(t.Context(), nop))
	return store, client, lock.NewRWMutex(client, "m")
}

// requireLockable: whoever comes gets the lock, both ways, and no row is left.
func requireLockable(t *testing.T, store kv.Store) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	other := lock.NewRWMutex(newClient(t, store), "m")
	require.NoError(t, other.Do(ctx, nop))
	require.NoError(t, other.RDo(ctx, readNothing))
	require.Empty(t, rwRows(t, store))
}

// An answer or a request that is lost at any step costs a call that waits some time, and
// a try its success. Nothing is left behind.
func TestRWMutexOutcomesThatAreUnknown(t *testing.T) {
	t.Parallel()
	rwSteps(t, func(t *testing.T, get func(*lock.RWMutex, context.Context) error, step int) {
		for _, applied := range []bool{false, true} {
			store, client, m := rwStepped(t, step, func(_ *lease.Client, call kv.Call, next func() error) error {
				if applied {
					if err := next(); err != nil {
						return err
					}
				}
				return &kv.UncertainError{Key: call.Key, Err: errLost}
			})
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			began := time.Now()
			err := get(m, ctx)
			cancel()
			if err != nil {
				require.ErrorIs(t, err, errLost)
			}
			require.Less(t, time.Since(began), 2*time.Second)
			time.Sleep(time.Minute) // R14
			requireLockable(t, store)
			require.NoError(t, client.Close(t.Context()))
		}
	})
}

// A caller that gives up at any step holds nothing.
func TestRWMutexCallersThatGiveUp(t *testing.T) {
	t.Parallel()
	rwSteps(t, func(t *testing.T, get func(*lock.RWMutex, context.Context) error, step int) {
		for _, before := range []bool{true, false} {
			ctx, cancel := context.WithCancel(t.Context())
			store, client, m := rwStepped(t, step, func(_ *lease.Client, call kv.Call, next func() error) error {
				if before {
					cancel()
				}
				err := next()
				cancel()
				synctest.Wait()
				return err
			})
			if err := get(m, ctx); err != nil {
				require.ErrorIs(t, err, context.Canceled)
			}
			time.Sleep(time.Minute) // R14
			require.Empty(t, rwRows(t, store))
			requireLockable(t, store)
			require.NoError(t, client.Close(t.Context()))
		}
	})
}

// Close at any step interrupts the call, waits for it, and leaves nothing.
func TestRWMutexCloseAtEveryStep(t *testing.T) {
	t.Parallel()
	rwSteps(t, func(t *testing.T, get func(*lock.RWMutex, context.Context) error, step int) {
		closed := make(chan error, 1)
		store, _, m := rwStepped(t, step, func(client *lease.Client, _ kv.Call, next func() error) error {
			err := next()
			go func() { closed <- client.Close(context.Background()) }()
			time.Sleep(time.Second)
			return err
		})
		if err := get(m, t.Context()); err != nil {
			require.ErrorIs(t, err, lease.ErrClosed)
		}
		require.NoError(t, <-closed)
		require.ErrorIs(t, get(m, t.Context()), lease.ErrClosed)
		began := time.Now()
		requireLockable(t, store)
		require.Less(t, time.Since(began), time.Second, "Close has ended the session")
	})
}

// A session that ends at any step takes nothing with it that others have to wait for,
// and a call that waits goes on with the next session.
func TestRWMutexSessionLostAtEveryStep(t *testing.T) {
	t.Parallel()
	rwSteps(t, func(t *testing.T, get func(*lock.RWMutex, context.Context) error, step int) {
		var store kv.Store
		store, client, m := rwStepped(t, step, func(client *lease.Client, _ kv.Call, next func() error) error {
			err := next()
			require.NoError(t, store.Delete(t.Context(), "session/"+client.Session()))
			time.Sleep(ttl) // the next heartbeat finds that out
			return err
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := get(m, ctx); err != nil {
			require.True(t, errors.Is(err, lease.ErrLost) || errors.Is(err, kv.ErrUnavailable), err)
		}
		requireLockable(t, store)
		require.NoError(t, m.RDo(ctx, readNothing))
		require.NoError(t, client.Close(t.Context()))
	})
}

// delayed is a store whose writes may land an hour after their operation.
type delayed struct{ kv.Store }

func (delayed) MaxWriteDelay() time.Duration { return time.Hour }

// A create that lands after its caller has given up is given back. Until then a writer
// waits for it: the session lives.
func TestRWMutexACreateThatLandsLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var land func() error
		store := memkv.New()
		client := newClient(t, delayed{hooked(store, func(call kv.Call, next func() error) error {
			if call.Op == "AtomicPut" && isReaderRow(call) && land == nil {
				land = next
				return &kv.UncertainError{Key: call.Key, Err: errLost}
			}
			return next()
		})})
		require.NoError(t, lock.NewMutex(client, "warm").Do(t.Context(), nop))
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		require.ErrorIs(t, lock.NewRWMutex(client, "m").RDo(ctx, mustNotRead(t)), context.DeadlineExceeded)
		time.Sleep(10 * time.Second)
		require.NoError(t, land())
		other := lock.NewRWMutex(newClient(t, store), "m")
		_, err := other.TryLock(t.Context())
		require.ErrorIs(t, err, lease.ErrHeld)
		time.Sleep(time.Minute) // R14
		require.NoError(t, other.TryDo(t.Context(), nop))
		require.Empty(t, rwRows(t, store))
	})
}

// While the store is away, calls that wait go on, and what refuses or cannot be read
// ends them, as with Mutex.Lock.
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
					client := newClient(t, kv.Instrument(memory, func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
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
		m := lock.NewRWMutex(newClient(t, kv.Instrument(store, func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
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
		m := lock.NewRWMutex(newClient(t, kv.Instrument(memkv.New(), func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
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
