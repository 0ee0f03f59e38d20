package lock_test

import (
	"context"
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

// I5 for these tests: until a waiter has what a client has left that is no
// more.
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

// A look that takes longer than the session lasts: the lock is not granted by
// it.
func TestR22NothingIsGrantedByASessionThatEndedDuringTheLook(t *testing.T) {
	t.Parallel()
	type held interface{ Held() bool }
	for name, test := range map[string]struct {
		request string
		skip    int // looks that go well
		get     func(m *lock.RWMutex, ctx context.Context) (held, error)
		waits   bool
	}{
		"RLock": {"Get", 0, func(m *lock.RWMutex, ctx context.Context) (held, error) { return m.RLock(ctx) }, true},
		"TryRLock": {
			"Get", 1, func(m *lock.RWMutex, ctx context.Context) (held, error) { return m.TryRLock(ctx) }, false,
		},
		"Lock": {"ListPage", 0, func(m *lock.RWMutex, ctx context.Context) (held, error) { return m.Lock(ctx) }, true},
		"TryLock": {
			"ListPage", 1, func(m *lock.RWMutex, ctx context.Context) (held, error) { return m.TryLock(ctx) }, false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				store := memkv.New()
				var away atomic.Bool
				looks, wrote := 0, false
				client := newClient(t, kv.Instrument(store, func(
					ctx context.Context, call kv.Call, next func(context.Context) error,
				) error {
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

// A writer that dies is followed by readers without anybody taking its row, and
// by writers after them: the epochs keep their order.
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

// The epoch is that of the look after the write: a writer that came and went
// between an earlier look and the write would have a token above it.
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

// A process that is paused between its look at the lock and its act acts when
// others have the lock by then. The resource's bars keep it out, whichever it
// is.
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

// Where w was handed over within a process, the next writer lists for itself:
// the one before may never have had the lock.
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
