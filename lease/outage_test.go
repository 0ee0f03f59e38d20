package lease_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/dynamomem"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// While the store does not answer, calls that do not wait for a key do not wait
// for each other's attempts in turn either.

// all runs call n times at once, and returns the errors and how long the last
// call took.
func all(n int, call func(i int) error) (errs []error, took time.Duration) {
	errs = make([]error, n)
	began := time.Now()
	var wait sync.WaitGroup
	for i := range n {
		wait.Go(func() { errs[i] = call(i) })
	}
	wait.Wait()
	return errs, time.Since(began)
}

// tries are TryAcquires of n keys.
func tries(ctx context.Context, c *lease.Client, n int, options ...lease.AcquireOption) ([]error, time.Duration) {
	return all(n, func(i int) error {
		_, err := c.TryAcquire(ctx, fmt.Sprint("key", i), options...)
		return err
	})
}

func TestR1OutageOverTheDynamoDBDriverLastsOneBudgetForAllCalls(t *testing.T) {
	t.Parallel()
	for name, keys := range map[string]int{"twenty keys": 20, "one key": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := newCloud(t)
				first, _, _ := c.node("first")
				require.NoError(t, try(t, first, "other").Release(t.Context()))
				a, wire, _ := c.node("a")
				_, err := a.Inspect(t.Context(), "other") // its store has read the layout of the partition
				require.NoError(t, err)
				wire.Inject(dynamomem.Hang)
				errs, took := all(20, func(i int) error {
					_, err := a.TryAcquire(patient(t), fmt.Sprint("key", i%keys))
					return err
				})
				for _, err := range errs {
					require.ErrorIs(t, err, kv.ErrUncertain)
				}
				require.Equal(t, budget, took.Truncate(time.Microsecond))
				errs, took = all(20, func(i int) error {
					_, err := a.TryAcquire(t.Context(), fmt.Sprint("key", i%keys))
					return err
				})
				for _, err := range errs {
					require.ErrorIs(t, err, kv.ErrUnavailable)
				}
				require.Equal(t, 3*time.Second, took.Truncate(time.Microsecond), "without a deadline")
			})
		})
	}
}

func TestR1OutageThatIsAnsweredFailsAllTriesOfAKeyAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		link.SetIntercept(func(context.Context, kv.Call, func(context.Context) error) error {
			time.Sleep(2 * time.Second)
			return kv.ErrRefused
		})
		errs, took := all(20, func(int) error {
			_, err := a.TryAcquire(patient(t), "key")
			return err
		})
		for _, err := range errs {
			require.ErrorIs(t, err, kv.ErrRefused)
		}
		require.Equal(t, 2*time.Second, took, "they share the opening of a session")
	})
}

// There is a session, but nothing of one key is answered: who waits for
// another's write does not wait for all of them.
func TestR9TriesOfOneKeyDoNotWaitInTurnForAStoreThatIsSilent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		a, wire, _ := c.node("a")
		require.NoError(t, try(t, a, "warm").Release(t.Context()))
		wire.Inject(func(ctx context.Context, call dynamomem.Call, apply dynamomem.Apply) (any, error) {
			if keyOf(call) == "lease/key" {
				return dynamomem.Hang(ctx, call, apply)
			}
			return apply()
		})
		for _, c := range []struct {
			ctx  context.Context
			most time.Duration
		}{{t.Context(), 3 * time.Second}, {patient(t), 2 * time.Minute}} { // a write's own budget is one
			errs, took := all(20, func(int) error {
				_, err := a.TryAcquire(c.ctx, "key")
				return err
			})
			for _, err := range errs {
				require.Error(t, err)
				require.NotErrorIs(t, err, lease.ErrHeld)
			}
			require.LessOrEqual(t, took.Truncate(time.Microsecond), c.most)
		}
	})
}

func TestR11LooksAtASessionThatFailAreSharedByThoseWhoWaitedForThem(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		b, _ := w.client("b")
		w.turn(a, "warm")
		for i := range 20 {
			w.acquire(b, fmt.Sprint("key", i))
		}
		looks := 0
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Op != "Get" {
				return next(ctx)
			}
			looks++
			time.Sleep(10 * time.Second)
			return errLost
		})
		errs, took := tries(patient(t), a, 20)
		for _, err := range errs {
			require.ErrorIs(t, err, errLost)
		}
		require.Equal(t, 10*time.Second, took)
		require.Equal(t, 1, looks)
		link.SetIntercept(nil)
		_, err := a.TryAcquire(t.Context(), "key0")
		require.ErrorIs(t, err, lease.ErrHeld, "who comes later looks again")
	})
}

func TestR11LookThatEndedWithItsCallersContextIsNotShared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		b, _ := w.client("b")
		w.turn(a, "warm")
		w.acquire(b, "key0")
		w.acquire(b, "key1")
		first := true
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Op == "Get" && first {
				first = false
				<-ctx.Done()
				return ctx.Err()
			}
			return next(ctx)
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		got := make(chan error)
		go func() {
			_, err := a.TryAcquire(ctx, "key0")
			got <- err
		}()
		synctest.Wait()
		_, err := a.TryAcquire(t.Context(), "key1")
		require.ErrorIs(t, err, lease.ErrHeld)
		require.ErrorIs(t, <-got, context.DeadlineExceeded)
	})
}

func TestR1WaitsForAHeartbeatLastNoLongerThanAnOpening(t *testing.T) {
	t.Parallel()
	const long = lease.MaxTTL
	for name, wait := range map[string]func(ctx context.Context, c *lease.Client) ([]error, time.Duration){
		"WithMinRemaining": func(ctx context.Context, c *lease.Client) ([]error, time.Duration) {
			return tries(ctx, c, 20, lease.WithMinRemaining(12*time.Hour))
		},
		"Join": func(ctx context.Context, c *lease.Client) ([]error, time.Duration) {
			return all(20, func(i int) error {
				_, err := c.Join(ctx, fmt.Sprint("group", i))
				return err
			})
		},
	} {
		for kind, outcome := range map[string]func(context.Context, func(context.Context) error) error{
			"silent":        silent,
			"fails at once": func(context.Context, func(context.Context) error) error { return kv.ErrThrottled },
		} {
			t.Run(name+", "+kind, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					a, link := w.client("a", lease.WithTTL(long))
					w.turn(a, "key")
					link.opens(outcome)
					time.Sleep(10 * time.Hour) // less is left than is asked for
					errs, took := wait(patient(t), a)
					for _, err := range errs {
						if kind == "silent" {
							require.ErrorIs(t, err, kv.ErrUncertain)
						} else {
							require.ErrorIs(t, err, kv.ErrThrottled)
						}
					}
					require.Equal(t, 10*time.Second, took)
					for m, err := range a.Members(t.Context()) {
						require.NoError(t, err)
						require.Empty(t, m.Joined)
					}
				})
			})
		}
	}
}

func TestR1WhoWaitsForAHeartbeatIsToldOfTheLastOneAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a", lease.WithTTL(lease.MaxTTL))
		w.turn(a, "key")
		link.opens(func(context.Context, func(context.Context) error) error { return kv.ErrThrottled })
		_, err := a.Join(t.Context(), "group")
		require.ErrorIs(t, err, kv.ErrThrottled)
		link.SetIntercept(nil)
		time.Sleep(lease.MaxTTL) // others were acknowledged
		link.opens(silent)
		_, err = a.Join(t.Context(), "group")
		require.NotErrorIs(t, err, kv.ErrThrottled)
		require.ErrorIs(t, err, kv.ErrUncertain)
	})
}

func TestI13RefusalsOnTheWireAreFew(t *testing.T) {
	t.Parallel()
	for _, code := range []string{
		"ExpiredTokenException", "ValidationException", "UnrecognizedClientException", "ResourceNotFoundException",
		"AccessDeniedException",
	} {
		synctest.Test(t, func(t *testing.T) {
			c := newCloud(t)
			holder, _, _ := c.node("holder")
			try(t, holder, "key")
			a, wire, _ := c.node("a", lease.WithRefusedLimit(time.Hour))
			inspect(t, a, "key")
			wire.Inject(dynamomem.Refused(400, code))
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			began := time.Now()
			_, err := a.Acquire(ctx, "key")
			if code == "ValidationException" {
				require.ErrorIs(t, err, kv.ErrUnsupported)
				require.Equal(t, began, time.Now(), "time mends nothing")
				return
			}
			require.ErrorIs(t, err, kv.ErrRefused)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.LessOrEqual(t, wire.Requests(), 40)
		})
	}
}

func TestAcquireWaitsOutAnOutageOnceItFoundTheKeyHeld(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, link := w.client("b")
		held := w.acquire(a, "key")
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Op == "Get" {
				return errLost
			}
			return next(ctx)
		})
		_, err := b.TryAcquire(t.Context(), "key")
		require.ErrorIs(t, err, errLost, "who only tries is told")
		got := waitFor(t.Context(), b, "key")
		time.Sleep(2 * ttl)
		require.Empty(t, got)
		link.SetIntercept(nil)
		require.NoError(t, held.Release(t.Context()))
		require.NoError(t, (<-got).err)
	})
}

func TestLocalWaiterWaitsOutAnOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		l := w.acquire(a, "key")
		got := waitFor(t.Context(), a, "key")
		time.Sleep(time.Minute)
		var down atomic.Bool
		down.Store(true)
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if down.Load() && call.Op == "AtomicPut" && call.Key == "lease/key" {
				return errors.New("connection refused")
			}
			return next(ctx)
		})
		require.NoError(t, l.Release(t.Context()))
		time.Sleep(time.Second)
		down.Store(false)
		require.NoError(t, (<-got).err)
	})
}
