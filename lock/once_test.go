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

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

func TestOnceRunsASlotOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		a, b := lock.NewOnce(newClient(t, store), "job"), lock.NewOnce(newClient(t, store), "job")
		requireState(t, a, lock.StateNone)
		var token uint64
		ran, err := a.Do(t.Context(), "slot", func(_ context.Context, l *lease.Lease) error {
			token = l.Token()
			running := requireState(t, b, lock.StateRunning)
			require.Equal(t, token, running.Token)
			require.Zero(t, running.Ended)
			time.Sleep(time.Minute)
			return nil
		})
		require.NoError(t, err)
		require.True(t, ran)
		for _, o := range []*lock.Once{a, b} {
			ran, err = o.Do(t.Context(), "slot", mustNotRun(t))
			require.NoError(t, err)
			require.False(t, ran)
		}
		done := requireState(t, b, lock.StateDone)
		require.Equal(t, token, done.Token)
		require.Equal(t, time.Minute, done.Ended.Sub(done.Started))
		require.Equal(t, 1, done.Attempt)
		require.NotEmpty(t, done.Owner)
		ran, err = b.Do(t.Context(), "other slot", nop)
		require.NoError(t, err)
		require.True(t, ran)
	})
}

func TestOnceRefusesASlotThatRunsElsewhere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		a, b := lock.NewOnce(newClient(t, store), "job"), lock.NewOnce(newClient(t, store), "job")
		_, err := a.Do(t.Context(), "slot", func(ctx context.Context, _ *lease.Lease) error {
			for _, o := range []*lock.Once{a, b} {
				ran, err := o.Do(ctx, "slot", mustNotRun(t))
				require.ErrorIs(t, err, lease.ErrHeld)
				require.False(t, ran)
				require.ErrorIs(t, o.Forget(ctx, "slot"), lease.ErrHeld)
			}
			return nil
		})
		require.NoError(t, err)
	})
}

func TestOnceWaitsOnRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		a, b := lock.NewOnce(newClient(t, store), "job", lock.Wait()), lock.NewOnce(newClient(t, store), "job", lock.Wait())
		type answer struct {
			ran   bool
			err   error
			after time.Duration
		}
		answers := make(chan answer, 2)
		began := time.Now()
		_, err := a.Do(t.Context(), "slot", func(context.Context, *lease.Lease) error {
			for _, o := range []*lock.Once{a, b} { // of the same process and of another
				go func() {
					ran, err := o.Do(t.Context(), "slot", mustNotRun(t))
					answers <- answer{ran, err, time.Since(began)}
				}()
			}
			time.Sleep(time.Minute)
			return nil
		})
		require.NoError(t, err)
		for range 2 {
			got := <-answers
			require.NoError(t, got.err)
			require.False(t, got.ran)
			require.GreaterOrEqual(t, got.after, time.Minute)
			require.Less(t, got.after, time.Minute+2*time.Second)
		}
		requireState(t, b, lock.StateDone)
	})
}

func TestOnceRecordsAFailureAndRetriesItOnRequestOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newClient(t, memkv.New())
		o := lock.NewOnce(client, "job")
		failure := errors.New(strings.Repeat("é", 2000))
		ran, err := o.Do(t.Context(), "slot", func(context.Context, *lease.Lease) error { return failure })
		require.ErrorIs(t, err, failure)
		require.True(t, ran)
		require.Len(t, requireState(t, o, lock.StateFailed).Error, 1024)

		ran, err = o.Do(t.Context(), "slot", mustNotRun(t))
		require.False(t, ran)
		require.ErrorIs(t, err, lock.ErrFailed)
		require.NotErrorIs(t, err, lock.ErrAbandoned)
		var settled *lock.SettledError
		require.ErrorAs(t, err, &settled)
		require.Equal(t, "slot", settled.Slot)
		require.ErrorContains(t, err, "é")

		ran, err = lock.NewOnce(client, "job", lock.RetryFailed()).Do(t.Context(), "slot", nop)
		require.NoError(t, err)
		require.True(t, ran)
		done := requireState(t, o, lock.StateDone)
		require.Equal(t, 2, done.Attempt)
		require.Empty(t, done.Error)
	})
}

func TestOnceRecordsAPanicAndPassesItOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := lock.NewOnce(newClient(t, memkv.New()), "job")
		require.PanicsWithValue(t, errLost, func() {
			_, _ = o.Do(t.Context(), "slot", func(context.Context, *lease.Lease) error { panic(errLost) })
		})
		require.Equal(t, "panic: answer lost", requireState(t, o, lock.StateFailed).Error)
	})
}

func TestOnceRecordsTheEndOfItsGoroutine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := lock.NewOnce(newClient(t, memkv.New()), "job")
		go func() {
			_, _ = o.Do(t.Context(), "slot", func(context.Context, *lease.Lease) error {
				runtime.Goexit()
				return nil
			})
			t.Error("Do returned")
		}()
		synctest.Wait()
		require.Contains(t, requireState(t, o, lock.StateFailed).Error, "goroutine")
	})
}

func TestOnceSaysThatItsLeaseWasLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		o := lock.NewOnce(newClient(t, store), "job")
		ran, err := o.Do(t.Context(), "slot", func(ctx context.Context, _ *lease.Lease) error {
			sessions, err := store.List(ctx, "session/")
			require.NoError(t, err)
			require.NoError(t, store.Delete(ctx, sessions[0].Key))
			<-ctx.Done()
			var lost *lease.LostError
			require.ErrorAs(t, context.Cause(ctx), &lost)
			return nil
		})
		require.True(t, ran)
		require.ErrorIs(t, err, lease.ErrLost)
		requireState(t, o, lock.StateAbandoned)
	})
}

func TestOnceSaysThatItsClientWasClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		client := newClient(t, store)
		ran, err := lock.NewOnce(client, "job").Do(t.Context(), "slot", func(ctx context.Context, _ *lease.Lease) error {
			go closeSoon(client)
			<-ctx.Done()
			return nil
		})
		require.True(t, ran)
		require.ErrorIs(t, err, lease.ErrLost)
		synctest.Wait()
		requireState(t, lock.NewOnce(newClient(t, store), "job"), lock.StateAbandoned)
	})
}

func TestOnceRefusesToRecordForAFunctionThatReleased(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := lock.NewOnce(newClient(t, memkv.New()), "job")
		ran, err := o.Do(t.Context(), "slot", func(ctx context.Context, l *lease.Lease) error { return l.Release(ctx) })
		require.True(t, ran)
		require.ErrorIs(t, err, lease.ErrNotHeld)
		requireState(t, o, lock.StateAbandoned)
	})
}

func TestOnceForgets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := lock.NewOnce(newClient(t, memkv.New()), "job")
		for range 2 {
			ran, err := o.Do(t.Context(), "slot", nop)
			require.NoError(t, err)
			require.True(t, ran)
			require.NoError(t, o.Forget(t.Context(), "slot"))
			require.Equal(t, lock.Outcome{}, requireState(t, o, lock.StateNone))
		}
	})
}

func TestOnceKeysOfDifferentSlotsDiffer(t *testing.T) {
	t.Parallel()
	client := newClient(t, memkv.New())
	require.Equal(t, "once/team/report/2026-03-01T04:00:00Z", lock.NewOnce(client, "team/report").Key("2026-03-01T04:00:00Z"))
	require.NotEqual(t, lock.NewOnce(client, "a").Key("b/c"), lock.NewOnce(client, "a/b").Key("c"))
	require.NotEqual(t, lock.NewOnce(client, "a").Key("b/c"), lock.NewOnce(client, "a").Key("b%2Fc"))
}

func TestOnceRefusesMisuse(t *testing.T) {
	t.Parallel()
	client := newClient(t, memkv.New())
	for name, o := range map[string]*lock.Once{
		"no client": lock.NewOnce(nil, "job"),
		"zero":      {},
		"no job":    lock.NewOnce(client, ""),
		"long job":  lock.NewOnce(client, strings.Repeat("x", lease.MaxKeySize)),
		"retention": lock.NewOnce(client, "job", lock.WithRetention(time.Second)),
	} {
		_, err := o.Do(t.Context(), "slot", mustNotRun(t))
		require.ErrorIs(t, err, lease.ErrInvalid, name)
		_, err = o.Outcome(t.Context(), "slot")
		require.ErrorIs(t, err, lease.ErrInvalid, name)
		require.ErrorIs(t, o.Forget(t.Context(), "slot"), lease.ErrInvalid, name)
	}
	_, err := lock.NewOnce(client, "job").Do(t.Context(), "", mustNotRun(t))
	require.ErrorIs(t, err, lease.ErrInvalid)
	_, err = lock.NewOnce(client, "job").Do(t.Context(), "slot", nil)
	require.ErrorIs(t, err, lease.ErrInvalid)
}

func TestOnceLeavesAStrangersValueAlone(t *testing.T) {
	t.Parallel()
	for _, value := range []string{"text", `{"f":2,"state":"done"}`, `{"f":1,"state":"someday"}`} {
		client := newClient(t, memkv.New())
		o := lock.NewOnce(client, "job")
		l, err := client.TryAcquire(t.Context(), o.Key("slot"), lease.KeepValue(), lease.WithValue([]byte(value)))
		require.NoError(t, err)
		require.NoError(t, l.Release(t.Context()))
		_, err = o.Do(t.Context(), "slot", mustNotRun(t))
		require.ErrorIs(t, err, lease.ErrFormat)
		_, err = o.Outcome(t.Context(), "slot")
		require.ErrorIs(t, err, lease.ErrFormat)
		h, err := client.Inspect(t.Context(), o.Key("slot"))
		require.NoError(t, err)
		require.Equal(t, value, string(h.Value))
	}
}

func TestOnceCosts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		mine, theirs := newLink(store), newLink(store)
		o, other := lock.NewOnce(newClient(t, mine), "job"), lock.NewOnce(newClient(t, theirs), "job")
		_, err := o.Do(t.Context(), "first", nop)
		require.NoError(t, err)
		_, err = other.Do(t.Context(), "another", nop)
		require.NoError(t, err)
		mine.take()

		_, err = o.Do(t.Context(), "slot", func(ctx context.Context, _ *lease.Lease) error {
			theirs.take()
			_, err := other.Do(ctx, "slot", mustNotRun(t))
			require.ErrorIs(t, err, lease.ErrHeld)
			require.Equal(t, map[string]int{"Get": 1, "session Get": 2, "AtomicPut": 1}, theirs.take(), "runs elsewhere")
			_, err = other.Outcome(ctx, "slot")
			require.NoError(t, err)
			require.Equal(t, map[string]int{"Get": 1, "session Get": 1}, theirs.take(), "outcome of a running one")
			return nil
		})
		require.NoError(t, err)
		require.Equal(t, map[string]int{"Get": 1, "AtomicPut": 3}, mine.take(), "first claim")

		_, err = other.Do(t.Context(), "slot", mustNotRun(t))
		require.NoError(t, err)
		require.Equal(t, map[string]int{"Get": 1}, theirs.take(), "done")
		_, err = other.Outcome(t.Context(), "slot")
		require.NoError(t, err)
		require.Equal(t, map[string]int{"Get": 1}, theirs.take(), "outcome")
		require.NoError(t, other.Forget(t.Context(), "slot"))
		require.Equal(t, map[string]int{"AtomicPut": 3}, theirs.take(), "forget")
	})
}

func TestOnceKeepsOutcomesForTheRetention(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		options []lock.OnceOption
		want    string
	}{{nil, `"sweep_ms":604800000`}, {[]lock.OnceOption{lock.WithRetention(time.Hour)}, `"sweep_ms":3600000`}} {
		store := memkv.New()
		o := lock.NewOnce(newClient(t, store), "job", c.options...)
		_, err := o.Do(t.Context(), "slot", nop)
		require.NoError(t, err)
		row, err := store.Get(t.Context(), "lease/"+o.Key("slot"), kv.WithAttemptTimeout(time.Second))
		require.NoError(t, err)
		require.Contains(t, row.String(), c.want)
	}
}

func TestSlotNamesThePeriod(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 4, 5, 6, 7, 8, time.FixedZone("somewhere", 2*60*60))
	require.Equal(t, "2026-03-04T03:00:00Z", lock.Slot(at, time.Hour))
	require.Equal(t, "2026-03-04T00:00:00Z", lock.Slot(at, 24*time.Hour))
	require.Equal(t, "2026-03-02T00:00:00Z", lock.Slot(at, 7*24*time.Hour), "a Monday")
	require.Equal(t, "2026-03-04T03:06:07.000000008Z", lock.Slot(at, time.Nanosecond))
	require.Empty(t, lock.Slot(at, 0))
	early, late := at.Truncate(time.Hour).Add(-time.Minute), at.Truncate(time.Hour).Add(time.Minute)
	require.NotEqual(t, lock.Slot(early, time.Hour), lock.Slot(late, time.Hour))
	require.Equal(t, lock.Slot(early.Add(30*time.Minute), time.Hour), lock.Slot(late.Add(30*time.Minute), time.Hour))
}
