package lock_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
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

func nopMulti(context.Context, *lock.MultiLease) error { return nil }

// lockedRows returns the keys that anybody has in the store.
func lockedRows(t *testing.T, store kv.Store) (keys []string) {
	t.Helper()
	pairs, err := store.List(t.Context(), "lease/")
	if !errors.Is(err, kv.ErrKeyNotFound) {
		require.NoError(t, err)
	}
	for _, pair := range pairs {
		keys = append(keys, strings.TrimPrefix(pair.Key, "lease/"))
	}
	return keys
}

func TestMultiLocksAllOrNone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		a, b := newClient(t, store), newClient(t, store, lease.WithOwner("b"))
		theirs, err := lock.NewMutex(b, "y").Lock(t.Context())
		require.NoError(t, err)
		m := lock.NewMulti(a, []string{"z", "x", "y", "x"})
		require.Equal(t, []string{"x", "y", "z"}, m.Names())
		_, err = m.TryLock(t.Context())
		var held *lease.HeldError
		require.ErrorAs(t, err, &held)
		require.Equal(t, "y", held.Holder.Key)
		require.Equal(t, "b", held.Holder.Owner)
		require.Equal(t, []string{"y"}, lockedRows(t, store), "x was given back, z never asked for")

		require.NoError(t, theirs.Release(t.Context()))
		l, err := m.TryLock(t.Context())
		require.NoError(t, err)
		require.Equal(t, []string{"x", "y", "z"}, lockedRows(t, store))
		require.True(t, l.Held())
		require.NoError(t, l.Err())
		require.NoError(t, l.Release(t.Context()))
		require.Empty(t, lockedRows(t, store))
	})
}

func TestMultiSaysWhatItHas(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := lock.NewMulti(newClient(t, memkv.New()), []string{"x", "y"}, lease.WithMaxHold(4*time.Second))
		first, err := m.Lock(t.Context())
		require.NoError(t, err)
		require.Greater(t, first.Remaining(), time.Duration(0))
		require.LessOrEqual(t, first.Remaining(), 4*time.Second)
		require.Nil(t, first.Lease("w"))
		for name, token := range first.Tokens() {
			require.Equal(t, first.Lease(name).Token(), token)
			require.NotZero(t, token)
		}
		require.NoError(t, first.Release(t.Context()))
		require.NoError(t, first.Release(t.Context()), "again")
		require.ErrorIs(t, first.Err(), lease.ErrNotHeld)
		require.ErrorIs(t, context.Cause(first.Context()), lease.ErrNotHeld)
		require.Zero(t, first.Remaining())
		second, err := m.Lock(t.Context())
		require.NoError(t, err)
		for name, token := range second.Tokens() {
			require.Greater(t, token, first.Tokens()[name])
		}
		require.NoError(t, second.Release(t.Context()))
	})
}

func TestMultisOfOppositeOrdersDoNotDeadlock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newSlow(memkv.New(), 5*time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		var wait sync.WaitGroup
		for _, names := range [][]string{{"x", "y"}, {"y", "x"}} {
			m := lock.NewMulti(newClient(t, store), names)
			wait.Go(func() {
				for range 20 {
					if err := m.Do(ctx, nopMulti); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wait.Wait()
	})
}

func TestMultiEndsWithItsFirstLoss(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		m := lock.NewMulti(newClient(t, store), []string{"x", "y", "z"})
		operator := newClient(t, store)
		err := m.Do(t.Context(), func(ctx context.Context, l *lock.MultiLease) error {
			h, err := operator.Inspect(ctx, "y")
			require.NoError(t, err)
			require.NoError(t, operator.Break(ctx, h, lease.BreakForce()))
			select {
			case <-ctx.Done():
			case <-time.After(time.Minute):
				t.Error("it does not end")
			}
			var lost *lease.LostError
			require.ErrorAs(t, context.Cause(ctx), &lost)
			require.Equal(t, "y", lost.Key)
			require.False(t, l.Held())
			require.ErrorIs(t, l.Err(), lost)
			require.True(t, l.Lease("x").Held(), "only one is lost")
			return nil
		})
		require.ErrorIs(t, err, lease.ErrLost)
		require.Empty(t, lockedRows(t, store), "the others are given back")
	})
}

// Computed from the clocks: a stopped timer must not make a lost set look held.
func TestMultiIsLostWithItsSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		mine := newLink(memkv.New())
		l, err := lock.NewMulti(newClient(t, mine), []string{"x", "y"}).Lock(t.Context())
		require.NoError(t, err)
		mine.setCut(true)
		time.Sleep(ttl)
		require.False(t, l.Held())
		require.ErrorIs(t, l.Err(), lease.ErrLost)
		require.ErrorIs(t, l.Release(t.Context()), lease.ErrLost)
	})
}

func TestMultiBeginsAgainWhenANameIsLostWhileItWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		operator := newClient(t, store)
		theirs, err := lock.NewMutex(operator, "y").Lock(t.Context())
		require.NoError(t, err)
		type result struct {
			l   *lock.MultiLease
			err error
		}
		got := make(chan result, 1)
		m := lock.NewMulti(newClient(t, store), []string{"x", "y"})
		go func() {
			l, err := m.Lock(t.Context())
			got <- result{l, err}
		}()
		time.Sleep(time.Second)
		first, err := operator.Inspect(t.Context(), "x")
		require.NoError(t, err)
		require.True(t, first.Held(), "it has x and waits for y")
		require.NoError(t, operator.Break(t.Context(), first))
		time.Sleep(10 * time.Second)
		second, err := operator.Inspect(t.Context(), "x")
		require.NoError(t, err)
		require.Greater(t, second.Token, first.Token, "it has x anew")
		require.NoError(t, theirs.Release(t.Context()))
		r := <-got
		require.NoError(t, r.err)
		require.True(t, r.l.Held())
		require.Equal(t, second.Token, r.l.Tokens()["x"])
		require.NoError(t, r.l.Release(t.Context()))
	})
}

func TestMultiTellsATryOfALossMeanwhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		late := map[string]time.Duration{"lease/x": 600 * time.Millisecond, "lease/y": 500 * time.Millisecond}
		stalled := kv.Instrument(store, func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			defer time.Sleep(late[call.Key])
			return next(ctx)
		})
		m := lock.NewMulti(newClient(t, stalled), []string{"x", "y"}, lease.WithMaxHold(time.Second))
		_, err := m.TryLock(t.Context())
		require.ErrorIs(t, err, lease.ErrLost)
		require.Empty(t, lockedRows(t, store))
	})
}

func TestMultiGivesBackWhatItHasWhenItsContextEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		theirs, err := lock.NewMutex(newClient(t, store), "y").Lock(t.Context())
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		m := lock.NewMulti(newClient(t, store), []string{"x", "y"})
		require.ErrorIs(t, m.Do(ctx, func(context.Context, *lock.MultiLease) error {
			t.Error("run")
			return nil
		}), context.DeadlineExceeded)
		require.Equal(t, []string{"y"}, lockedRows(t, store))
		require.NoError(t, theirs.Release(t.Context()))
	})
}

func TestMultiOfAClosedClient(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		theirs, err := lock.NewMutex(newClient(t, store), "y").Lock(t.Context())
		require.NoError(t, err)
		client := newClient(t, store)
		m := lock.NewMulti(client, []string{"x", "y"})
		ended := make(chan error, 1)
		go func() {
			_, err := m.Lock(t.Context())
			ended <- err
		}()
		time.Sleep(time.Second)
		require.NoError(t, client.Close(t.Context()))
		require.ErrorIs(t, <-ended, lease.ErrClosed)
		require.NoError(t, lock.NewMutex(newClient(t, store), "x").TryDo(t.Context(), nop), "x is free")
		require.NoError(t, theirs.Release(t.Context()))
	})
}

func TestMultiTryDoSkipsAndReleases(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		m := lock.NewMulti(newClient(t, store), []string{"x", "y"})
		other := lock.NewMulti(newClient(t, store), []string{"y", "z"})
		failed, inner := errors.New("failed"), error(nil)
		err := m.TryDo(t.Context(), func(ctx context.Context, _ *lock.MultiLease) error {
			inner = other.TryDo(ctx, nopMulti)
			return failed
		})
		require.ErrorIs(t, err, failed, "its function's own error")
		require.ErrorIs(t, inner, lease.ErrHeld)
		require.PanicsWithValue(t, "boom", func() {
			_ = m.TryDo(t.Context(), func(context.Context, *lock.MultiLease) error { panic("boom") })
		})
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = m.Do(t.Context(), func(context.Context, *lock.MultiLease) error {
				runtime.Goexit()
				return nil
			})
		}()
		<-ended
		require.Empty(t, lockedRows(t, store))
	})
}

func TestMultiRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	mine := newLink(memkv.New())
	client := newClient(t, mine)
	for problem, m := range map[string]*lock.Multi{
		"want a client":    new(lock.Multi),
		"at least one":     lock.NewMulti(client, nil),
		"of 0 bytes":       lock.NewMulti(client, []string{"x", ""}),
		"of 1001 bytes":    lock.NewMulti(client, []string{"x", strings.Repeat("y", 1001)}),
		"UTF-8":            lock.NewMulti(client, []string{"x", "\xff"}),
		"WithMaxHold(1ns)": lock.NewMulti(client, []string{"x"}, lease.WithMaxHold(1)),
		"nil option":       lock.NewMulti(client, []string{"x"}, nil),
		"begin with once/": lock.NewMulti(client, []string{"x", "once/job/slot"}),
	} {
		_, err := m.Lock(t.Context())
		require.ErrorIs(t, err, lease.ErrInvalid)
		require.ErrorContains(t, err, problem)
		_, err = m.TryLock(t.Context())
		require.ErrorIs(t, err, lease.ErrInvalid)
	}
	m := lock.NewMulti(client, []string{"x"})
	require.ErrorIs(t, m.Do(t.Context(), nil), lease.ErrInvalid)
	require.ErrorIs(t, m.TryDo(t.Context(), nil), lease.ErrInvalid)
	require.Empty(t, mine.take())
}

func TestMultiCosts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		mine, theirs := newLink(store), newLink(store)
		a, b := newClient(t, mine), newClient(t, theirs)
		require.NoError(t, lock.NewMutex(a, "warm").Do(t.Context(), nop)) // the session
		require.NoError(t, lock.NewMutex(b, "warm").Do(t.Context(), nop))
		mine.take()
		theirs.take()
		names := []string{"k1", "k2", "k3", "k4", "k5"}
		l, err := lock.NewMulti(a, names).Lock(t.Context())
		require.NoError(t, err)
		require.Equal(t, map[string]int{"AtomicPut": 5}, mine.take())
		require.NoError(t, l.Release(t.Context()))
		require.Equal(t, map[string]int{"AtomicDelete": 5}, mine.take())

		third, err := lock.NewMutex(b, "k3").Lock(t.Context())
		require.NoError(t, err)
		_, err = lock.NewMulti(a, names).TryLock(t.Context())
		require.ErrorIs(t, err, lease.ErrHeld)
		require.Equal(t, map[string]int{"AtomicPut": 3, "AtomicDelete": 2, "session Get": 1}, mine.take())
		require.NoError(t, third.Release(t.Context()))
	})
}

// newSlow makes every call of a store take up to twice d.
func newSlow(store kv.Store, d time.Duration) kv.Store {
	return kv.Instrument(store, func(ctx context.Context, _ kv.Call, next func(context.Context) error) error {
		time.Sleep(rand.N(2*d + 1))
		return next(ctx)
	})
}

// A minute of random subsets of 50 names, with answers and requests lost.
func TestMultiStorm(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		var names [50]string
		var users [50]atomic.Int32
		for i := range names {
			names[i] = fmt.Sprintf("k%02d", i)
		}
		length := time.Minute
		if testing.Short() {
			length /= 6
		}
		ctx, cancel := context.WithTimeout(t.Context(), length)
		defer cancel()
		var rounds atomic.Int32
		var wait sync.WaitGroup
		var clients [3]*lease.Client
		for i := range clients {
			mine := newLink(newSlow(store, 10*time.Millisecond))
			mine.setFault(func(kv.Call, int) fault {
				switch rand.N(200) {
				case 0:
					return lostAnswer
				case 1:
					return lostRequest
				}
				return nothing
			})
			clients[i] = newClient(t, mine)
		}
		for g := range 8 {
			wait.Go(func() {
				for ctx.Err() == nil {
					subset := rand.Perm(len(names))[:1+rand.N(5)]
					var mine []string
					for _, i := range subset {
						mine = append(mine, names[i])
					}
					m := lock.NewMulti(clients[g%3], mine)
					fn := func(_ context.Context, l *lock.MultiLease) error {
						for _, i := range subset {
							if users[i].Add(1) != 1 {
								t.Errorf("%s has two users", names[i])
							}
						}
						time.Sleep(rand.N(50 * time.Millisecond))
						if !l.Held() {
							t.Error("lost:", l.Err())
						}
						for _, i := range subset {
							users[i].Add(-1)
						}
						rounds.Add(1)
						return nil
					}
					if g%2 == 0 {
						_ = m.TryDo(ctx, fn)
						time.Sleep(rand.N(50 * time.Millisecond))
					} else {
						_ = m.Do(ctx, fn)
					}
				}
			})
		}
		wait.Wait()
		require.Greater(t, rounds.Load(), int32(100), "no deadlock")
		t.Log(rounds.Load(), "rounds")
		time.Sleep(time.Minute) // what goes on in the background
		require.Empty(t, lockedRows(t, store))
	})
}

// What a Multi gives back without having had all of it, nobody has had.
func TestMultiThatFailsKeepsNothingForItsMinHold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		other := newClient(t, store)
		theirs, err := lock.NewMutex(other, "y").Lock(t.Context())
		require.NoError(t, err)
		m := lock.NewMulti(newClient(t, store), []string{"x", "y"}, lease.WithMinHold(time.Minute))
		_, err = m.TryLock(t.Context())
		require.ErrorIs(t, err, lease.ErrHeld)
		require.NoError(t, lock.NewMutex(other, "x").TryDo(t.Context(), nop))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = m.Lock(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NoError(t, lock.NewMutex(other, "x").TryDo(t.Context(), nop))
		require.NoError(t, theirs.Release(t.Context()))
		require.NoError(t, m.Do(t.Context(), nopMulti))
		require.ErrorIs(t, lock.NewMutex(other, "x").TryDo(t.Context(), nop), lease.ErrHeld, "what was had is kept")
		time.Sleep(time.Minute)
	})
}
