package lock_test

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

const (
	oldLease     = 20 * time.Second
	oldHeartbeat = 5 * time.Second
)

// oldClient stands in for the libraries that heartbeat each lock by itself. A lock
// is a row whose value is new with each heartbeat. Whoever has seen one value for
// longer than oldLease takes the row.
type oldClient struct{ store kv.Store }

func (o oldClient) acquire(ctx context.Context) (func(context.Context) error, <-chan struct{}, error) {
	pair, err := o.store.AtomicPut(ctx, "old", kv.WithString(rand.Text()))
	var conflict *kv.ConflictError
	for seen := (*kv.KVPair)(nil); errors.As(err, &conflict); {
		since := time.Now()
		for seen = conflict.Current; seen != nil && time.Since(since) <= oldLease; {
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return nil, nil, ctx.Err()
			}
			now, err := o.store.Get(ctx, "old")
			if err != nil || now.Version != seen.Version {
				seen, since = now, time.Now()
			}
		}
		pair, err = o.store.AtomicPut(ctx, "old", kv.WithString(rand.Text()), kv.WithPrevious(seen))
	}
	if err != nil {
		return nil, nil, err
	}
	l := &oldLock{store: o.store, pair: pair, stop: make(chan struct{}), lost: make(chan struct{})}
	l.beats.Go(l.heartbeat)
	return l.release, l.lost, nil
}

type oldLock struct {
	store      kv.Store
	pair       *kv.KVPair
	stop, lost chan struct{}
	beats      sync.WaitGroup
}

func (l *oldLock) heartbeat() {
	defer close(l.lost) // after a release too, as some libraries do
	for {
		select {
		case <-l.stop:
			return
		case <-time.After(oldHeartbeat):
		}
		pair, err := l.store.AtomicPut(context.Background(), "old", kv.WithString(rand.Text()), kv.WithPrevious(l.pair))
		if err != nil {
			return
		}
		l.pair = pair
	}
}

func (l *oldLock) release(ctx context.Context) error {
	close(l.stop)
	l.beats.Wait()
	return errors.Join(ctx.Err(), l.store.AtomicDelete(ctx, "old", l.pair))
}

// exclusive fails the test if two do it at the same time.
type exclusive struct {
	t       *testing.T
	mu      sync.Mutex
	working bool
	done    int
}

func (e *exclusive) work() {
	e.set(true)
	time.Sleep(time.Second)
	e.set(false)
}

func (e *exclusive) job(context.Context, *lease.Lease) error {
	e.work()
	return nil
}

func (e *exclusive) set(working bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.working == working {
		e.t.Error("two work at the same time")
	}
	e.working = working
	if !working {
		e.done++
	}
}

func TestBothExcludesTheReleaseBeforeAndTheReleaseAfter(t *testing.T) {
	t.Parallel()
	for name, after := range map[string]bool{"before": false, "after": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				store, e := memkv.New(), &exclusive{t: t}
				var processes sync.WaitGroup
				for i := range 6 {
					old := oldClient{store}
					m := lock.NewMutex(newClient(t, store), "job")
					processes.Go(func() {
						for range 5 {
							switch {
							case i%2 == 0:
								if err := lock.Both(old.acquire, m).Do(t.Context(), e.job); err != nil {
									t.Error(err)
								}
							case after:
								_ = m.Do(t.Context(), e.job)
							default:
								release, _, err := old.acquire(t.Context())
								if err != nil {
									t.Error(err)
									return
								}
								e.work()
								_ = release(t.Context())
							}
						}
					})
				}
				processes.Wait()
				require.Equal(t, 30, e.done)
			})
		})
	}
}

// waitForEnd is work that goes on until its context ends.
func waitForEnd(cause *error) func(context.Context, *lease.Lease) error {
	return func(ctx context.Context, _ *lease.Lease) error {
		<-ctx.Done()
		*cause = context.Cause(ctx)
		return nil
	}
}

// requireBothFree requires that both locks can be had within a second.
func requireBothFree(t *testing.T, store kv.Store, m *lock.Mutex) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	require.NoError(t, lock.Both(oldClient{store}.acquire, m).Do(ctx, nop))
}

func TestBothEndsWhenTheOldLockIsLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		m := lock.NewMutex(newClient(t, store), "job")
		go func() {
			time.Sleep(12 * time.Second)
			_ = store.Delete(context.Background(), "old")
		}()
		begin, cause := time.Now(), error(nil)
		err := lock.Both(oldClient{store}.acquire, m).Do(t.Context(), waitForEnd(&cause))
		require.Equal(t, lock.ErrOldLost, cause)
		require.Equal(t, 15*time.Second, time.Since(begin), "the next heartbeat finds out")
		require.ErrorIs(t, err, lock.ErrOldLost)
		require.ErrorIs(t, err, lease.ErrLost)
		requireBothFree(t, store, m)
	})
}

func TestBothEndsWhenTheMutexIsLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		l := newLink(store)
		var cause error
		go func() {
			time.Sleep(12 * time.Second)
			l.setCut(true)
		}()
		m := lock.NewMutex(newClient(t, l), "job")
		err := lock.Both(oldClient{store}.acquire, m).Do(t.Context(), waitForEnd(&cause))
		require.ErrorIs(t, cause, lease.ErrLost)
		require.NotErrorIs(t, cause, lock.ErrOldLost)
		require.ErrorIs(t, err, lease.ErrLost)
		release, _, err := oldClient{store}.acquire(t.Context())
		require.NoError(t, err, "the old lock was given back")
		require.NoError(t, release(t.Context()))
	})
}

func TestBothStopsWaitingForTheMutexWhenTheOldLockIsLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		m := lock.NewMutex(newClient(t, store), "job")
		held, err := m.Lock(t.Context())
		require.NoError(t, err)
		lost := make(chan struct{})
		time.AfterFunc(time.Second, func() { close(lost) })
		released := 0
		old := func(context.Context) (func(context.Context) error, <-chan struct{}, error) {
			return func(context.Context) error { released++; return nil }, lost, nil
		}
		err = lock.Both(old, m).Do(t.Context(), mustNotRun(t))
		require.ErrorIs(t, err, lock.ErrOldLost)
		require.Equal(t, 1, released)
		require.NoError(t, held.Release(t.Context()))
		requireBothFree(t, store, m)
	})
}

func TestBothGivesTheOldLockBackWhenTheMutexCannotBeHad(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		m := lock.NewMutex(newClient(t, store), "job")
		held, err := m.Lock(t.Context())
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		err = lock.Both(oldClient{store}.acquire, m).Do(ctx, mustNotRun(t))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NotErrorIs(t, err, lease.ErrLost)
		require.NoError(t, held.Release(t.Context()))
		requireBothFree(t, store, m)
	})
}

func TestBothGivesBothBackAfterAPanic(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		m := lock.NewMutex(newClient(t, store), "job")
		require.PanicsWithValue(t, "oh", func() {
			_ = lock.Both(oldClient{store}.acquire, m).Do(t.Context(), func(context.Context, *lease.Lease) error {
				panic("oh")
			})
		})
		requireBothFree(t, store, m)
	})
}

func TestTheReleaseOfTheOldLockOutlivesTheContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := lock.NewMutex(newClient(t, memkv.New()), "job")
		ctx, cancel := context.WithCancel(t.Context())
		errStuck := errors.New("stuck")
		old := func(context.Context) (func(context.Context) error, <-chan struct{}, error) {
			return func(ctx context.Context) error { <-ctx.Done(); return errStuck }, nil, nil
		}
		var begin time.Time
		err := lock.Both(old, m).Do(ctx, func(context.Context, *lease.Lease) error {
			cancel()
			begin = time.Now()
			return nil
		})
		require.ErrorIs(t, err, errStuck)
		require.Equal(t, 10*time.Second, time.Since(begin))
	})
}

func TestBothRefusesWhatIsMissing(t *testing.T) {
	t.Parallel()
	m := lock.NewMutex(newClient(t, memkv.New()), "job")
	errOld, calls := errors.New("no old lock"), 0
	failing := func(context.Context) (func(context.Context) error, <-chan struct{}, error) {
		calls++
		return nil, nil, errOld
	}
	empty := func(context.Context) (func(context.Context) error, <-chan struct{}, error) { return nil, nil, nil }
	require.ErrorIs(t, lock.Both(nil, m).Do(t.Context(), nop), lease.ErrInvalid)
	require.ErrorIs(t, lock.Both(failing, nil).Do(t.Context(), nop), lease.ErrInvalid)
	require.ErrorIs(t, lock.Both(failing, m).Do(t.Context(), nil), lease.ErrInvalid)
	require.ErrorIs(t, new(lock.Dual).Do(t.Context(), nop), lease.ErrInvalid)
	require.Zero(t, calls)
	require.ErrorIs(t, lock.Both(failing, m).Do(t.Context(), mustNotRun(t)), errOld)
	require.ErrorIs(t, lock.Both(empty, m).Do(t.Context(), mustNotRun(t)), lease.ErrInvalid)
}
