package lock_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

// readNothing is a reader's job that has nothing to do.
func readNothing(context.Context, *lock.ReadLease) error { return nil }

// mustNotRead is a reader's job that must not be run.
func mustNotRead(t *testing.T) func(context.Context, *lock.ReadLease) error {
	return func(context.Context, *lock.ReadLease) error {
		t.Error("run beside a writer")
		return nil
	}
}

// guarded is a resource that readers and writers use, with its two bars.
type guarded struct {
	mu               sync.Mutex
	writers, readers uint64
}

func (g *guarded) read(epoch uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if epoch < g.writers {
		return false
	}
	g.readers = max(g.readers, epoch)
	return true
}

func (g *guarded) write(token uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if token < g.writers || token <= g.readers {
		return false
	}
	g.writers = token
	return true
}

// crowd is who is in at a time.
type crowd struct {
	mu               sync.Mutex
	readers, writers int
	most             int // readers
	reads, writes    int
	wrong            string
}

func (c *crowd) enter(writing bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if writing {
		c.writers++
		c.writes++
	} else {
		c.readers++
		c.reads++
		c.most = max(c.most, c.readers)
	}
	if c.writers > 1 || c.writers == 1 && c.readers > 0 {
		c.wrong = fmt.Sprintf("%d writers beside %d readers", c.writers, c.readers)
	}
}

func (c *crowd) leave(writing bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if writing {
		c.writers--
	} else {
		c.readers--
	}
}

// rwRows are the rows of all RWMutexes that name a session.
func rwRows(t *testing.T, store kv.Store) (keys []string) {
	t.Helper()
	for pair, err := range kv.All(t.Context(), store, "lease/rw/") {
		require.NoError(t, err)
		record, err := rows.DecodeLease(pair)
		require.NoError(t, err)
		if record.Session != "" {
			keys = append(keys, pair.Key)
		}
	}
	return keys
}

func TestI14RWMutexLetsReadersInTogetherAndWritersAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memory := memkv.New()
		store := newSlow(memory, 5*time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		var c crowd
		var g guarded
		var wait sync.WaitGroup
		for range 4 {
			m := lock.NewRWMutex(newClient(t, store), "map")
			for i := range 4 {
				wait.Go(func() {
					for range 10 {
						var err error
						if writing := i == 0; writing {
							err = m.Do(ctx, func(_ context.Context, l *lease.Lease) error {
								c.enter(true)
								defer c.leave(true)
								time.Sleep(20 * time.Millisecond)
								if !g.write(l.Token()) {
									return errors.New("a writer is refused")
								}
								return nil
							})
						} else {
							err = m.RDo(ctx, func(_ context.Context, l *lock.ReadLease) error {
								c.enter(false)
								defer c.leave(false)
								time.Sleep(50 * time.Millisecond)
								if !g.read(l.Epoch()) {
									return errors.New("a reader is refused")
								}
								return nil
							})
						}
						if err != nil {
							t.Error(err)
							return
						}
						time.Sleep(100 * time.Millisecond)
					}
				})
			}
		}
		wait.Wait()
		require.Empty(t, c.wrong)
		require.Equal(t, []int{120, 40}, []int{c.reads, c.writes})
		require.Greater(t, c.most, 4)
		require.Empty(t, rwRows(t, memory))
	})
}

func TestRWMutexCosts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		mine, theirs := newLink(store), newLink(store)
		a, b := lock.NewRWMutex(newClient(t, mine), "m"), lock.NewRWMutex(newClient(t, theirs), "m")
		type calls = map[string]int

		r, err := a.RLock(t.Context())
		require.NoError(t, err)
		require.Equal(t, calls{"AtomicPut": 2, "Get": 1, "session AtomicPut": 1}, mine.take(), "the first time ever")
		require.NoError(t, r.Release(t.Context()))
		require.Equal(t, calls{"AtomicDelete": 1}, mine.take())
		r, err = a.RLock(t.Context())
		require.NoError(t, err)
		require.Equal(t, calls{"AtomicPut": 1, "Get": 1}, mine.take(), "RLock")
		try, err := a.TryRLock(t.Context())
		require.NoError(t, err)
		require.Equal(t, calls{"AtomicPut": 1, "Get": 2}, mine.take(), "TryRLock")

		require.ErrorIs(t, b.TryDo(t.Context(), mustNotRun(t)), lease.ErrHeld)
		require.Equal(t, calls{"ListPage": 1, "session Get": 1}, theirs.take(), "TryLock, refused by readers")
		require.ErrorIs(t, b.TryDo(t.Context(), mustNotRun(t)), lease.ErrHeld)
		require.Equal(t, calls{"ListPage": 1}, theirs.take(), "and their session seen")
		require.NoError(t, r.Release(t.Context()))
		require.NoError(t, try.Release(t.Context()))
		mine.take()

		l, err := b.Lock(t.Context())
		require.NoError(t, err)
		theirs.take()
		require.NoError(t, l.Release(t.Context()))
		require.Equal(t, calls{"AtomicPut": 1}, theirs.take())
		l, err = b.Lock(t.Context())
		require.NoError(t, err)
		require.Equal(t, calls{"Get": 1, "AtomicPut": 1, "ListPage": 1}, theirs.take(), "Lock")
		require.ErrorIs(t, a.TryRDo(t.Context(), mustNotRead(t)), lease.ErrHeld)
		mine.take()
		require.ErrorIs(t, a.TryRDo(t.Context(), mustNotRead(t)), lease.ErrHeld)
		require.Equal(t, calls{"Get": 1}, mine.take(), "TryRLock, refused")
		require.ErrorIs(t, a.TryDo(t.Context(), mustNotRun(t)), lease.ErrHeld)
		require.Equal(t, calls{"Get": 1, "ListPage": 1}, mine.take(), "TryLock, refused by a writer")
		require.NoError(t, l.Release(t.Context()))
		theirs.take()
		l, err = b.TryLock(t.Context())
		require.NoError(t, err)
		require.Equal(t, calls{"Get": 1, "AtomicPut": 1, "ListPage": 2}, theirs.take(), "TryLock")
		require.NoError(t, l.Release(t.Context()))

		mine.take()
		other := lock.NewRWMutex(newClient(t, mine), "other")
		require.NoError(t, other.Do(t.Context(), nop))
		first := calls{"Get": 1, "AtomicPut": 2, "ListPage": 1, "session AtomicPut": 1}
		require.Equal(t, first, mine.take(), "a writer comes first")
		require.NoError(t, other.RDo(t.Context(), readNothing))
		require.Equal(t, calls{"Get": 1, "AtomicPut": 1, "AtomicDelete": 1}, mine.take(), "its row is there")
	})
}

// While somebody writes, all that wait to read at one RWMutex cost one read per
// poll.
func TestRWMutexReadersThatWaitShareAPoller(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		mine := newLink(store)
		a, b := lock.NewRWMutex(newClient(t, mine), "m"), lock.NewRWMutex(newClient(t, store), "m")
		l, err := b.Lock(t.Context())
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		var wait sync.WaitGroup
		const readers = 10
		for range readers {
			wait.Go(func() {
				if err := a.RDo(ctx, readNothing); err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(30 * time.Second) // polls are a second apart by now
		mine.take()
		time.Sleep(10 * time.Second)
		require.InDelta(t, 10, mine.take()["Get"], 2)
		require.NoError(t, l.Release(t.Context()))
		time.Sleep(1100 * time.Millisecond)
		wait.Wait()
		calls := mine.take()
		require.Equal(t, readers, calls["AtomicPut"])
		require.LessOrEqual(t, calls["Get"], readers+2)
		require.Equal(t, readers, calls["AtomicDelete"])
	})
}

// A writer of the same RWMutex hears at once of readers that leave.
func TestRWMutexWriterHearsOfReadersThatLeave(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		mine := newLink(memkv.New())
		m := lock.NewRWMutex(newClient(t, mine), "m")
		r, err := m.RLock(t.Context())
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- m.Do(ctx, nop) }()
		time.Sleep(time.Minute + time.Millisecond)
		require.Empty(t, done)
		began := time.Now()
		require.NoError(t, r.Release(t.Context()))
		require.NoError(t, <-done)
		require.Zero(t, time.Since(began))
	})
}

func TestRWMutexOfOneClientUsesItsRowsAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		client := newClient(t, store)
		m := lock.NewRWMutex(client, "m")
		keys := func() map[string]bool {
			seen := map[string]bool{}
			for _, key := range rwRows(t, store) {
				seen[key[strings.LastIndex(key, "/")+1:]] = true
			}
			return seen
		}
		var all []*lock.ReadLease
		for range 3 {
			r, err := m.RLock(t.Context())
			require.NoError(t, err)
			all = append(all, r)
		}
		other, err := lock.NewRWMutex(client, "m").RLock(t.Context()) // knows nothing of the others' numbers
		require.NoError(t, err)
		require.Equal(t, map[string]bool{"0": true, "1": true, "2": true, "3": true}, keys())
		require.NoError(t, all[1].Release(t.Context()))
		for range 100 {
			require.NoError(t, m.RDo(t.Context(), func(context.Context, *lock.ReadLease) error {
				require.Equal(t, map[string]bool{"0": true, "1": true, "2": true, "3": true}, keys())
				return nil
			}))
			require.NoError(t, all[1].Release(t.Context()), "again")
		}
		require.NoError(t, other.Release(t.Context()))
		require.NoError(t, all[0].Release(t.Context()))
		require.NoError(t, all[2].Release(t.Context()))
		require.Empty(t, keys())
	})
}

// A lock that was lost and is never released takes no number for ever.
func TestRWMutexNumbersOfLostLocksAreUsedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := lock.NewRWMutex(newClient(t, memkv.New()), "m", lease.WithMaxHold(time.Second))
		var lost *lock.ReadLease
		for range 10 {
			r, err := m.RLock(t.Context())
			require.NoError(t, err)
			require.Equal(t, "0", r.Lease().Key()[len(r.Lease().Key())-1:])
			if lost != nil {
				require.ErrorIs(t, lost.Release(t.Context()), lease.ErrLost)
				next, err := m.RLock(t.Context())
				require.NoError(t, err)
				require.Equal(t, "1", next.Lease().Key()[len(next.Lease().Key())-1:], "0 is the other's now")
				require.NoError(t, next.Release(t.Context()))
			}
			lost = r
			time.Sleep(ttl) // it is given back after the margin
		}
	})
}

// A reader's row is nobody else's, so it is not left to others now and then.
func TestRWMutexReadersDoNotRest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := lock.NewRWMutex(newClient(t, memkv.New()), "m")
		const rounds, hold = 100, 100 * time.Millisecond
		began := time.Now()
		for range rounds {
			require.NoError(t, m.RDo(t.Context(), func(context.Context, *lock.ReadLease) error {
				time.Sleep(hold)
				return nil
			}))
		}
		require.Equal(t, rounds*hold, time.Since(began))
	})
}

// Somebody else can have a row of this client's: a clone of the process, or a
// session that it has lost.
func TestRWMutexPassesOverARowThatAnotherHas(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		m := lock.NewRWMutex(newClient(t, store), "m")
		r, err := m.RLock(t.Context())
		require.NoError(t, err)
		key := r.Lease().Key()
		require.NoError(t, r.Release(t.Context()))
		other := newClient(t, store)
		l, err := other.TryAcquire(t.Context(), key)
		require.NoError(t, err)
		r, err = m.RLock(t.Context())
		require.NoError(t, err)
		require.Equal(t, strings.TrimSuffix(key, "0")+"1", r.Lease().Key())
		require.True(t, l.Held() && r.Held())
	})
}

func TestRWMutexRefusesWhatCannotBeLocked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		mine := newLink(memkv.New())
		client := newClient(t, mine)
		for name, m := range map[string]*lock.RWMutex{
			"want a client": new(lock.RWMutex),
			"of 0 bytes":    lock.NewRWMutex(client, ""),
			"1 to 967":      lock.NewRWMutex(client, strings.Repeat("x", 968)),
			"WithMaxHold":   lock.NewRWMutex(client, "m", lease.WithMaxHold(-1)),
		} {
			_, err := m.RLock(t.Context())
			require.ErrorIs(t, err, lease.ErrInvalid)
			require.ErrorContains(t, err, name)
			_, err = m.TryRLock(t.Context())
			require.ErrorIs(t, err, lease.ErrInvalid, name)
			_, err = m.Lock(t.Context())
			require.ErrorIs(t, err, lease.ErrInvalid, name)
			_, err = m.TryLock(t.Context())
			require.ErrorIs(t, err, lease.ErrInvalid, name)
		}
		_, err := new(lock.RWMutex).Holders(t.Context())
		require.ErrorIs(t, err, lease.ErrInvalid)
		m := lock.NewRWMutex(client, "m")
		require.ErrorIs(t, m.Do(t.Context(), nil), lease.ErrInvalid)
		require.ErrorIs(t, m.TryDo(t.Context(), nil), lease.ErrInvalid)
		require.ErrorIs(t, m.RDo(t.Context(), nil), lease.ErrInvalid)
		require.ErrorIs(t, m.TryRDo(t.Context(), nil), lease.ErrInvalid)
		require.NoError(t, lock.NewRWMutex(client, strings.Repeat("x", 967)).RDo(t.Context(), readNothing))
	})
}

func TestRWMutexNamesDoNotLieWithinEachOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newClient(t, memkv.New())
		for _, name := range []string{"m", "m/w", "m/r", "m%2Fw", "é\xff"} {
			m := lock.NewRWMutex(client, name)
			l, err := m.TryLock(t.Context())
			require.NoError(t, err, name)
			holders, err := m.Holders(t.Context())
			require.NoError(t, err)
			require.Len(t, holders, 1, name)
			require.Equal(t, l.Token(), holders[0].Token)
		}
	})
}

// What fn does and how it ends is as with Mutex.Do.
func TestRWMutexDoGivesBackHoweverItsFunctionEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		m := lock.NewRWMutex(newClient(t, store), "m")
		failed := errors.New("failed")
		require.ErrorIs(t, m.RDo(t.Context(), func(context.Context, *lock.ReadLease) error { return failed }), failed)
		require.ErrorIs(t, m.TryRDo(t.Context(), func(context.Context, *lock.ReadLease) error { return failed }), failed)
		require.ErrorIs(t, m.TryDo(t.Context(), func(context.Context, *lease.Lease) error { return failed }), failed)
		require.PanicsWithValue(t, "p", func() {
			_ = m.RDo(t.Context(), func(context.Context, *lock.ReadLease) error { panic("p") })
		})
		require.Empty(t, rwRows(t, store))
		require.NoError(t, m.RDo(t.Context(), func(ctx context.Context, l *lock.ReadLease) error {
			require.True(t, l.Held())
			require.Positive(t, l.Remaining())
			require.NoError(t, l.Release(ctx))
			<-ctx.Done()
			require.ErrorIs(t, context.Cause(ctx), lease.ErrNotHeld)
			require.ErrorIs(t, context.Cause(l.Context()), lease.ErrNotHeld)
			require.ErrorIs(t, l.Err(), lease.ErrNotHeld)
			require.Zero(t, l.Remaining())
			return nil
		}))
	})
}

// A writer's row that is reserved for a writer is nobody's. A reader passes it, and that
// writer waits for the reader.
func TestR20ReaderPassesAReservedWriter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		a, b, c := newClient(t, store), newLink(store), newClient(t, store)
		held, err := lock.NewRWMutex(a, "m").Lock(t.Context())
		require.NoError(t, err)
		writers := lock.NewRWMutex(newClient(t, b, lease.WithTurnAfter(0)), "m")
		got := make(chan *lease.Lease, 1)
		go func() {
			l, err := writers.Lock(t.Context())
			assert.NoError(t, err)
			got <- l
		}()
		time.Sleep(100 * time.Millisecond)
		b.setCut(true)
		require.NoError(t, held.Release(t.Context()))
		h, err := c.Holder(t.Context(), "rw/m/w")
		require.NoError(t, err)
		require.False(t, h.Held())
		require.NotNil(t, h.Reserved())

		m := lock.NewRWMutex(c, "m")
		require.NoError(t, m.TryRDo(t.Context(), readNothing))
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		l, err := m.RLock(ctx)
		require.NoError(t, err)
		require.Greater(t, l.Epoch(), held.Token())
		b.setCut(false)
		time.Sleep(3 * time.Second)
		require.Empty(t, got, "the writer has its row, and waits for the reader")
		require.NoError(t, l.Release(t.Context()))
		time.Sleep(2 * time.Second)
		written := <-got
		require.Greater(t, written.Token(), l.Epoch())
		require.NoError(t, written.Release(t.Context()))
	})
}
