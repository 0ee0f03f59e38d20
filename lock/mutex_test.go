package lock_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

func TestDoRunsUnderTheLockAndReleasesAfterwards(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		a, b := lock.NewMutex(newClient(t, store), "job"), lock.NewMutex(newClient(t, store), "job")
		ran := false
		require.NoError(t, a.Do(t.Context(), func(ctx context.Context, l *lease.Lease) error {
			ran = true
			require.True(t, l.Held())
			_, err := b.TryLock(ctx)
			require.ErrorIs(t, err, lease.ErrHeld)
			return nil
		}))
		require.True(t, ran)
		l, err := b.TryLock(t.Context())
		require.NoError(t, err)
		require.NoError(t, l.Release(t.Context()))
	})
}

func TestDoReturnsTheErrorOfItsFunction(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := lock.NewMutex(newClient(t, memkv.New()), "job")
		failed := errors.New("failed")
		require.ErrorIs(t, m.Do(t.Context(), func(context.Context, *lease.Lease) error { return failed }), failed)
	})
}

func TestDoPassesAPanicOnAndReleases(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := lock.NewMutex(newClient(t, memkv.New()), "job")
		require.PanicsWithValue(t, "boom", func() {
			_ = m.Do(t.Context(), func(context.Context, *lease.Lease) error { panic("boom") })
		})
		l, err := m.TryLock(t.Context())
		require.NoError(t, err)
		require.NoError(t, l.Release(t.Context()))
	})
}

func TestDoTellsItsFunctionOfALossAndReportsIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		m := lock.NewMutex(newClient(t, store), "job")
		err := m.Do(t.Context(), func(ctx context.Context, _ *lease.Lease) error {
			pairs, err := store.List(ctx, "session/")
			require.NoError(t, err)
			require.NoError(t, store.Delete(ctx, pairs[0].Key))
			<-ctx.Done()
			var lost *lease.LostError
			require.ErrorAs(t, context.Cause(ctx), &lost)
			require.Equal(t, lease.ReasonKilled, lost.Reason)
			return nil
		})
		require.ErrorIs(t, err, lease.ErrLost)
	})
}

func TestDoEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		m := lock.NewMutex(newClient(t, store), "job")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.NoError(t, m.Do(ctx, func(ctx context.Context, _ *lease.Lease) error {
			<-ctx.Done()
			return nil
		}), "and releases all the same")
		pairs, err := store.List(t.Context(), "lease/")
		require.NoError(t, err)
		require.Empty(t, pairs)
	})
}

func TestDoReleasesOnlyAfterItsFunctionReturned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		a, b := lock.NewMutex(newClient(t, store), "job"), lock.NewMutex(newClient(t, store), "job")
		ctx, cancel := context.WithCancel(t.Context())
		require.NoError(t, a.Do(ctx, func(ctx context.Context, _ *lease.Lease) error {
			cancel()
			<-ctx.Done()
			time.Sleep(10 * ttl) // it takes its time to stop
			_, err := b.TryLock(t.Context())
			require.ErrorIs(t, err, lease.ErrHeld)
			return nil
		}))
		l, err := b.TryLock(t.Context())
		require.NoError(t, err)
		require.NoError(t, l.Release(t.Context()))
	})
}

func TestDoReleasesWhenItsGoroutineEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := lock.NewMutex(newClient(t, memkv.New()), "job")
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = m.Do(t.Context(), func(context.Context, *lease.Lease) error {
				runtime.Goexit()
				return nil
			})
			t.Error("Do returned")
		}()
		<-ended
		l, err := m.TryLock(t.Context())
		require.NoError(t, err)
		require.NoError(t, l.Release(t.Context()))
	})
}

func TestDoAllowsItsFunctionToRelease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		a, b := lock.NewMutex(newClient(t, store), "job"), lock.NewMutex(newClient(t, store), "job")
		require.NoError(t, a.Do(t.Context(), func(ctx context.Context, l *lease.Lease) error {
			require.NoError(t, l.Release(ctx))
			next, err := b.TryLock(t.Context())
			require.NoError(t, err)
			require.NoError(t, l.Release(ctx), "again: as the first time")
			require.True(t, next.Held(), "and it is not theirs")
			return next.Release(t.Context())
		}))
	})
}

func TestMutexPassesItsOptionsOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newClient(t, memkv.New())
		m := lock.NewMutex(client, "job", lease.WithMaxHold(time.Second), lease.WithValue([]byte("me")))
		for name, acquire := range map[string]func(context.Context) (*lease.Lease, error){
			"Lock": m.Lock, "TryLock": m.TryLock,
		} {
			l, err := acquire(t.Context())
			require.NoError(t, err, name)
			require.Equal(t, []byte("me"), l.Value(), name)
			require.NoError(t, l.Release(t.Context()), name)
		}
		err := m.Do(t.Context(), func(ctx context.Context, _ *lease.Lease) error {
			<-ctx.Done()
			return nil
		})
		var lost *lease.LostError
		require.ErrorAs(t, err, &lost)
		require.Equal(t, lease.ReasonMaxHold, lost.Reason)
	})
}

func TestMutexRefusesMisuse(t *testing.T) {
	t.Parallel()
	client := newClient(t, memkv.New())
	for name, m := range map[string]*lock.Mutex{
		"no client":    lock.NewMutex(nil, "job"),
		"zero":         {},
		"no name":      lock.NewMutex(client, ""),
		"long name":    lock.NewMutex(client, strings.Repeat("x", lease.MaxKeySize+1)),
		"wrong option": lock.NewMutex(client, "job", lease.WithMaxHold(-1)),
	} {
		_, err := m.Lock(t.Context())
		require.ErrorIs(t, err, lease.ErrInvalid, name)
		_, err = m.TryLock(t.Context())
		require.ErrorIs(t, err, lease.ErrInvalid, name)
		require.ErrorIs(t, m.Do(t.Context(), mustNotRun(t)), lease.ErrInvalid, name)
	}
	require.ErrorIs(t, lock.NewMutex(client, "job").Do(t.Context(), nil), lease.ErrInvalid)
	require.NoError(t, client.Close(t.Context()))
	_, err := lock.NewMutex(client, "job").Lock(t.Context())
	require.ErrorIs(t, err, lease.ErrClosed)
}

func TestMutexIsNotReentrant(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := lock.NewMutex(newClient(t, memkv.New(), lease.WithOwner("myself")), "job")
		l, err := m.Lock(t.Context())
		require.NoError(t, err)
		_, err = m.TryLock(t.Context())
		var held *lease.HeldError
		require.ErrorAs(t, err, &held)
		require.Equal(t, "myself", held.Holder.Owner)
		require.Equal(t, l.Token(), held.Holder.Token)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err = m.Lock(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.True(t, l.Held())
		require.NoError(t, l.Release(t.Context()))
	})
}

func TestTheOptionsOfAMutexAreACopy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		options := []lease.AcquireOption{lease.WithValue([]byte("mine"))}
		m := lock.NewMutex(newClient(t, memkv.New()), "job", options...)
		options[0] = lease.WithValue([]byte("the caller's"))
		l, err := m.Lock(t.Context())
		require.NoError(t, err)
		require.Equal(t, "mine", string(l.Value()))
		require.NoError(t, l.Release(t.Context()))
	})
}

func TestDoTellsWhatItsFunctionSaidAndThatTheLockWasLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := lock.NewMutex(newClient(t, memkv.New()), "job", lease.WithMaxHold(time.Second))
		err := m.Do(t.Context(), func(ctx context.Context, _ *lease.Lease) error {
			<-ctx.Done()
			return errLost
		})
		require.ErrorIs(t, err, errLost)
		require.ErrorIs(t, err, lease.ErrLost)
	})
}

func TestTheContextOfAFunctionThatReturnedHasEnded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newClient(t, memkv.New())
		var under context.Context
		fn := func(ctx context.Context, _ *lease.Lease) error {
			under = ctx
			return ctx.Err()
		}
		require.NoError(t, lock.NewMutex(client, "job").Do(t.Context(), fn))
		require.Error(t, under.Err(), "what fn has begun and not waited for is told to stop")
		_, err := lock.NewOnce(client, "job").Do(t.Context(), "slot", fn)
		require.NoError(t, err)
		require.Error(t, under.Err())
	})
}

func TestTheContextOfAFunctionEndsWithItsCallersAndWithItsLease(t *testing.T) {
	t.Parallel()
	ends := map[string]func(client *lease.Client, cancel context.CancelFunc){
		"the caller's": func(_ *lease.Client, cancel context.CancelFunc) { cancel() },
		"its lease":    func(client *lease.Client, _ context.CancelFunc) { go closeSoon(client) },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				for _, once := range []bool{false, true} {
					client := newClient(t, memkv.New())
					ctx, cancel := context.WithCancel(t.Context())
					fn := func(ctx context.Context, _ *lease.Lease) error {
						end(client, cancel)
						select {
						case <-ctx.Done():
							return nil
						case <-time.After(ttl):
							return errLost
						}
					}
					var err error
					if once {
						_, err = lock.NewOnce(client, "job").Do(ctx, "slot", fn)
					} else {
						err = lock.NewMutex(client, "job").Do(ctx, fn)
					}
					require.NotErrorIs(t, err, errLost, "it was not told")
				}
			})
		})
	}
}

func TestTryDoRunsUnderTheLockOrNotAtAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		a, b := lock.NewMutex(newClient(t, store), "job"), lock.NewMutex(newClient(t, store), "job")
		failed, inner := errors.New("failed"), error(nil)
		err := a.TryDo(t.Context(), func(ctx context.Context, l *lease.Lease) error {
			require.True(t, l.Held())
			began := time.Now()
			inner = b.TryDo(ctx, func(context.Context, *lease.Lease) error { panic("it is held") })
			require.Zero(t, time.Since(began))
			_, err := b.TryLock(ctx)
			require.ErrorIs(t, err, lease.ErrHeld)
			return failed
		})
		require.ErrorIs(t, err, failed)
		require.ErrorIs(t, inner, lease.ErrHeld)
		require.NoError(t, b.TryDo(t.Context(), func(context.Context, *lease.Lease) error { return nil }), "it was released")
		require.ErrorIs(t, a.TryDo(t.Context(), nil), lease.ErrInvalid)
	})
}

// A mutex called pool/mail/1 would be partition 1 of the pool mail.
func TestMutexRefusesTheKeysOfOthers(t *testing.T) {
	t.Parallel()
	store := memkv.New()
	for _, name := range []string{"once/job/slot", "semaphore/s/0", "rw/m/w", "election/leader", "pool/mail/1"} {
		m := lock.NewMutex(newClient(t, store), name)
		_, err := m.Lock(t.Context())
		require.ErrorIs(t, err, lease.ErrInvalid)
		require.ErrorContains(t, err, name)
		_, err = m.TryLock(t.Context())
		require.ErrorIs(t, err, lease.ErrInvalid)
	}
	l, err := lock.NewMutex(newClient(t, store), "pools/mail").TryLock(t.Context())
	require.NoError(t, err)
	require.NoError(t, l.Release(t.Context()))
}
