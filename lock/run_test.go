package lock_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
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

func TestClaimIsDoInTwoHalves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		a, b := lock.NewOnce(newClient(t, store), "job"), lock.NewOnce(newClient(t, store), "job")
		run, err := a.Claim(t.Context(), "slot")
		require.NoError(t, err)
		require.True(t, run.Lease().Held())
		require.Equal(t, 1, run.Attempt())
		requireState(t, b, lock.StateRunning)
		_, err = b.Claim(t.Context(), "slot")
		require.ErrorIs(t, err, lease.ErrHeld)
		time.Sleep(time.Hour) // heartbeats keep it
		require.NoError(t, run.Finish(t.Context(), []byte("42"), nil))
		require.NoError(t, run.Finish(t.Context(), nil, errors.New("too late")), "the first call counts")
		require.False(t, run.Lease().Held())
		done := requireState(t, b, lock.StateDone)
		require.Equal(t, "42", string(done.Value))
		require.Equal(t, time.Hour, done.Ended.Sub(done.Started))

		_, err = b.Claim(t.Context(), "slot")
		require.ErrorIs(t, err, lock.ErrDone)
		var finished *lock.FinishedError
		require.ErrorAs(t, err, &finished)
		require.Equal(t, done, finished.Outcome)
		ran, err := b.Do(t.Context(), "slot", mustNotRun(t))
		require.NoError(t, err)
		require.False(t, ran)
	})
}

func TestClaimOfAFailedSlotCountsTheRuns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newClient(t, memkv.New())
		o := lock.NewOnce(client, "job", lock.RetryFailed())
		for attempt := 1; attempt <= 2; attempt++ {
			run, err := o.Claim(t.Context(), "slot")
			require.NoError(t, err)
			require.Equal(t, attempt, run.Attempt())
			require.NoError(t, run.Finish(t.Context(), []byte("half"), errors.New("no price")))
			failed := requireState(t, o, lock.StateFailed)
			require.Equal(t, "no price", failed.Error)
			require.Equal(t, "half", string(failed.Value))
		}
		_, err := lock.NewOnce(client, "job").Claim(t.Context(), "slot")
		require.ErrorIs(t, err, lock.ErrFailed)
	})
}

func TestFinishRefusesAValueThatIsTooLargeAndTheRunGoesOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		mine := newLink(memkv.New())
		o := lock.NewOnce(newClient(t, mine), "job")
		run, err := o.Claim(t.Context(), "slot")
		require.NoError(t, err)
		mine.take()
		err = run.Finish(t.Context(), make([]byte, lock.MaxResultSize+1), nil)
		require.ErrorIs(t, err, lease.ErrInvalid)
		require.ErrorContains(t, err, "65537 bytes, want at most 65536")
		require.Empty(t, mine.take())
		require.True(t, run.Lease().Held())
		require.NoError(t, run.Finish(t.Context(), make([]byte, lock.MaxResultSize), nil))
		require.Len(t, requireState(t, o, lock.StateDone).Value, lock.MaxResultSize)
	})
}

func TestFinishTellsOfALossAndRecordsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		mine := newLink(store)
		run, err := lock.NewOnce(newClient(t, mine), "job").Claim(t.Context(), "slot")
		require.NoError(t, err)
		mine.setCut(true)
		<-run.Lease().Context().Done()
		b := lock.NewOnce(newClient(t, store), "job", lock.TakeOver(), lock.Wait())
		second, err := b.Claim(t.Context(), "slot")
		require.NoError(t, err)
		require.Equal(t, 2, second.Attempt())
		mine.setCut(false)
		require.ErrorIs(t, run.Finish(t.Context(), []byte("mine"), nil), lease.ErrLost)
		require.Equal(t, 2, requireState(t, b, lock.StateRunning).Attempt)
		require.NoError(t, second.Finish(t.Context(), []byte("theirs"), nil))
		require.Equal(t, "theirs", string(requireState(t, b, lock.StateDone).Value))
	})
}

func TestClaimRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	mine := newLink(memkv.New())
	_, err := new(lock.Once).Claim(t.Context(), "slot")
	require.ErrorIs(t, err, lease.ErrInvalid)
	_, err = lock.NewOnce(newClient(t, mine), "job").Claim(t.Context(), "")
	require.ErrorIs(t, err, lease.ErrInvalid)
	require.Empty(t, mine.take())
}

func TestClaimCosts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		mine := newLink(memkv.New())
		o := lock.NewOnce(newClient(t, mine), "job")
		run, err := o.Claim(t.Context(), "slot")
		require.NoError(t, err)
		require.Equal(t, map[string]int{"Get": 1, "AtomicPut": 2, "session AtomicPut": 1}, mine.take())
		require.NoError(t, run.Finish(t.Context(), []byte("42"), nil))
		require.Equal(t, map[string]int{"AtomicPut": 1}, mine.take())
		_, err = o.Claim(t.Context(), "slot")
		require.ErrorIs(t, err, lock.ErrDone)
		require.Equal(t, map[string]int{"Get": 1}, mine.take())
	})
}

type answer struct{ ID string }

// answers returns a function that computes an answer.
func answers(id string) func(context.Context, *lease.Lease) (answer, error) {
	return func(context.Context, *lease.Lease) (answer, error) { return answer{id}, nil }
}

func TestOnceValueIsTheSameToAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		mine := newLink(store)
		o := lock.NewOnce(newClient(t, mine), "job")
		got, err := lock.OnceValue(t.Context(), o, "slot", answers("first"))
		require.NoError(t, err)
		require.Equal(t, answer{"first"}, got)
		require.Equal(t, map[string]int{"Get": 1, "AtomicPut": 3, "session AtomicPut": 1}, mine.take())
		got, err = lock.OnceValue(t.Context(), o, "slot", answers("second"))
		require.NoError(t, err)
		require.Equal(t, answer{"first"}, got)
		require.Equal(t, map[string]int{"Get": 1}, mine.take())
		require.JSONEq(t, `{"ID":"first"}`, string(requireState(t, o, lock.StateDone).Value))

		_, err = lock.OnceValue(t.Context(), o, "slot", func(context.Context, *lease.Lease) (int, error) { return 0, nil })
		require.ErrorIs(t, err, kv.ErrFormat)
		require.ErrorContains(t, err, "is no int")
		nothing, err := lock.OnceValue(t.Context(), o, "none",
			func(context.Context, *lease.Lease) (*int, error) { return nil, nil })
		require.NoError(t, err)
		require.Nil(t, nothing)
		_, err = lock.OnceValue(t.Context(), o, "none",
			func(context.Context, *lease.Lease) (*int, error) { return nil, errLost })
		require.NoError(t, err, "a nil is a value")
		_, err = o.Do(t.Context(), "plain", nop)
		require.NoError(t, err)
		_, err = lock.OnceValue(t.Context(), o, "plain", answers("late"))
		require.ErrorIs(t, err, kv.ErrFormat, "done without a value")
	})
}

func TestOnceValueOfAFunctionThatFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := lock.NewOnce(newClient(t, memkv.New()), "job")
		failed := errors.New("no price")
		got, err := lock.OnceValue(t.Context(), o, "slot", func(context.Context, *lease.Lease) (answer, error) {
			return answer{"half"}, failed
		})
		require.ErrorIs(t, err, failed)
		require.Zero(t, got)
		require.Nil(t, requireState(t, o, lock.StateFailed).Value)
		_, err = lock.OnceValue(t.Context(), o, "slot", answers("second"))
		require.ErrorIs(t, err, lock.ErrFailed)
	})
}

func TestOnceValueThatCannotBeKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := lock.NewOnce(newClient(t, memkv.New()), "job")
		got, err := lock.OnceValue(t.Context(), o, "slot", func(context.Context, *lease.Lease) (string, error) {
			return strings.Repeat("x", lock.MaxResultSize), nil
		})
		require.ErrorIs(t, err, lease.ErrInvalid)
		require.Len(t, got, lock.MaxResultSize, "what it did is done")
		require.Contains(t, requireState(t, o, lock.StateFailed).Error, "65538 bytes of JSON")
		_, err = lock.OnceValue(t.Context(), o, "other",
			func(context.Context, *lease.Lease) (func(), error) { return func() {}, nil })
		require.ErrorContains(t, err, "cannot be kept")
		requireState(t, o, lock.StateFailed)
	})
}

func TestOnceValueReturnsWhatItComputedWhenTheOutcomeIsUnknown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		mine := newLink(memkv.New())
		o := lock.NewOnce(newClient(t, mine), "job")
		mine.setFault(func(call kv.Call, n int) fault {
			if call.Op == "AtomicPut" && n >= 3 && n <= 4 {
				return lostRequest
			}
			return nothing
		})
		got, err := lock.OnceValue(t.Context(), o, "slot", answers("first"))
		require.ErrorIs(t, err, kv.ErrUncertain)
		require.Equal(t, answer{"first"}, got)
		time.Sleep(time.Minute) // it goes on
		got, err = lock.OnceValue(t.Context(), o, "slot", answers("second"))
		require.NoError(t, err)
		require.Equal(t, answer{"first"}, got)
	})
}

func TestOnceValueRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	o := lock.NewOnce(newClient(t, memkv.New()), "job")
	_, err := lock.OnceValue(t.Context(), nil, "slot", answers("x"))
	require.ErrorIs(t, err, lease.ErrInvalid)
	_, err = lock.OnceValue[int](t.Context(), o, "slot", nil)
	require.ErrorIs(t, err, lease.ErrInvalid)
	_, err = lock.OnceValue(t.Context(), o, "", answers("x"))
	require.ErrorIs(t, err, lease.ErrInvalid)
}

// 50 clients, 25 ids, answers and requests lost at random: one computation of each
// id, and every caller that got a value has the same one.
func TestOnceValueStorm(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		var mu sync.Mutex
		computed, seen := map[string]int{}, map[string]string{}
		var wait sync.WaitGroup
		for c := range 50 {
			mine := newLink(newSlow(store, 5*time.Millisecond))
			mine.setFault(func(kv.Call, int) fault {
				switch rand.N(20) {
				case 0:
					return lostAnswer
				case 1:
					return lostRequest
				}
				return nothing
			})
			o := lock.NewOnce(newClient(t, mine), "job", lock.Wait())
			wait.Go(func() {
				for _, i := range rand.Perm(25) {
					id := fmt.Sprint(i)
					ask := func() (string, error) {
						return lock.OnceValue(t.Context(), o, id, func(context.Context, *lease.Lease) (string, error) {
							mu.Lock()
							defer mu.Unlock()
							computed[id]++
							return fmt.Sprint(id, " by ", c, " as ", computed[id]), nil
						})
					}
					got, err := ask()
					for ; errors.Is(err, kv.ErrUncertain) || errors.Is(err, lease.ErrHeld); got, err = ask() {
						time.Sleep(time.Second)
					}
					if err != nil {
						t.Error(id, err)
						continue
					}
					mu.Lock()
					if seen[id] == "" {
						seen[id] = got
					}
					if seen[id] != got {
						t.Errorf("%s is %q and %q", id, seen[id], got)
					}
					mu.Unlock()
				}
			})
		}
		wait.Wait()
		require.Len(t, computed, 25)
		for id, n := range computed {
			require.Equal(t, 1, n, id)
		}
	})
}
