package gocronlock_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-co-op/gocron/v2"
	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/adapters/gocron"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

const (
	apart = 50 * time.Millisecond
	work  = 10 * time.Millisecond
	ticks = 10
)

// ticker passes a number of ticks on to its locker, and refuses the others.
type ticker struct {
	gocron.Locker
	left int
	done chan struct{} // closed at the last one
}

var errOver = errors.New("the test has seen enough")

func (k *ticker) Lock(ctx context.Context, key string) (gocron.Lock, error) {
	k.left--
	if k.left < 0 {
		return nil, errOver
	}
	if k.left == 0 {
		defer close(k.done)
	}
	return k.Locker.Lock(ctx, key)
}

// counter counts the runs of a job, and those that begin while another goes on.
type counter struct {
	mu                  sync.Mutex
	running, runs, twos int
}

func (c *counter) run() {
	c.add(1)
	time.Sleep(work)
	c.add(-1)
}

func (c *counter) add(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running += n
	if n > 0 {
		c.runs++
	}
	if c.running > 1 {
		c.twos++
	}
}

// runTicks lets three schedulers, whose ticks are 50 ms apart, have ten ticks of
// a job each. lockerOf makes a process's locker.
func runTicks(t *testing.T, period time.Duration, lockerOf func() gocron.Locker) *counter {
	t.Helper()
	c := &counter{}
	begin := time.Now().Truncate(period).Add(2 * period) // schedulers need a moment to start
	var schedulers []gocron.Scheduler
	var tickers []*ticker
	for i := range 3 {
		s, err := gocron.NewScheduler()
		require.NoError(t, err)
		k := &ticker{Locker: lockerOf(), left: ticks, done: make(chan struct{})}
		_, err = s.NewJob(gocron.DurationJob(period), gocron.NewTask(c.run), gocron.WithName("report"),
			gocron.WithStartAt(gocron.WithStartDateTime(begin.Add(time.Duration(i)*apart))),
			gocron.WithDistributedJobLocker(k))
		require.NoError(t, err)
		s.Start()
		schedulers, tickers = append(schedulers, s), append(tickers, k)
	}
	for _, k := range tickers {
		<-k.done
	}
	time.Sleep(10 * work) // a scheduler that waits for a job spins, and a bubble's time stands still
	for _, s := range schedulers {
		require.NoError(t, s.Shutdown()) // waits for jobs
	}
	return c
}

// slots returns what makes lockers of processes that share store.
func slots(t *testing.T, store kv.Store, period time.Duration) func() gocron.Locker {
	return func() gocron.Locker {
		l, err := gocronlock.New(lock.NewOnce(newClient(t, store), "jobs"), period)
		require.NoError(t, err)
		return l
	}
}

func requireOncePerTick(t *testing.T, c *counter) {
	t.Helper()
	require.Equal(t, ticks, c.runs, "runs of %d ticks", ticks)
	require.Zero(t, c.twos)
}

func TestAShortJobRunsOncePerTickInMemory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		requireOncePerTick(t, runTicks(t, time.Minute, slots(t, memkv.New(), time.Minute)))
	})
}

func TestAShortJobRunsOncePerTickOnAFile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		requireOncePerTick(t, runTicks(t, time.Minute, slots(t, newFile(t), time.Minute)))
	})
}

func TestAShortJobRunsOncePerTickOnDynamoDB(t *testing.T) {
	t.Parallel()
	const period = 2 * time.Second // half of it is how late a busy machine may be
	requireOncePerTick(t, runTicks(t, period, slots(t, newTable(t), period)))
}

func TestAShortJobUnderABareMutexRunsMoreOftenThanOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		c := runTicks(t, time.Minute, func() gocron.Locker {
			return bare{lock.NewMutex(newClient(t, store), "report")}
		})
		require.Equal(t, 3*ticks, c.runs, "what the adapter is for")
	})
}

// bare is the locker that suggests itself, and is wrong for short jobs.
type bare struct{ *lock.Mutex }

func (b bare) Lock(ctx context.Context, _ string) (gocron.Lock, error) {
	l, err := b.TryLock(ctx)
	return unlock{l}, err
}

type unlock struct{ *lease.Lease }

func (u unlock) Unlock(ctx context.Context) error { return u.Release(context.WithoutCancel(ctx)) }

func TestALockSaysWhyAJobIsSkipped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		next := slots(t, memkv.New(), time.Hour)
		a, b := next(), next()
		running, err := a.Lock(t.Context(), "report")
		require.NoError(t, err)
		_, err = b.Lock(t.Context(), "report")
		require.ErrorIs(t, err, lease.ErrHeld)
		other, err := b.Lock(t.Context(), "invoices")
		require.NoError(t, err, "another job has a slot of its own")
		require.NoError(t, other.Unlock(t.Context()))
		require.NoError(t, running.Unlock(t.Context()))
		_, err = b.Lock(t.Context(), "report")
		require.ErrorIs(t, err, gocronlock.ErrDone)
		time.Sleep(time.Hour)
		running, err = b.Lock(t.Context(), "report")
		require.NoError(t, err, "the next hour")
		require.NoError(t, running.Unlock(t.Context()))
	})
}

func TestClocksMayDifferByHalfAPeriod(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		next := slots(t, memkv.New(), time.Hour)
		a, b := next(), next()
		early := time.Now().Truncate(time.Hour).Add(2*time.Hour - 29*time.Minute)
		time.Sleep(time.Until(early))
		running, err := a.Lock(t.Context(), "report")
		require.NoError(t, err)
		require.NoError(t, running.Unlock(t.Context()))
		time.Sleep(58 * time.Minute)
		_, err = b.Lock(t.Context(), "report")
		require.ErrorIs(t, err, gocronlock.ErrDone)
	})
}

func TestARunIsRecordedAfterTheSchedulerHasShutDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		next := slots(t, memkv.New(), time.Hour)
		a, b := next(), next()
		ctx, cancel := context.WithCancel(t.Context())
		running, err := a.Lock(ctx, "report")
		require.NoError(t, err)
		cancel()
		synctest.Wait()
		_, err = b.Lock(t.Context(), "report")
		require.ErrorIs(t, err, lease.ErrHeld, "the job has not ended")
		require.NoError(t, running.Unlock(ctx))
		_, err = b.Lock(t.Context(), "report")
		require.ErrorIs(t, err, gocronlock.ErrDone)
	})
}

func TestALostRunIsAnErrorOfUnlock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := newClient(t, memkv.New())
		once := lock.NewOnce(client, "jobs")
		l, err := gocronlock.New(once, time.Hour)
		require.NoError(t, err)
		running, err := l.Lock(t.Context(), "report")
		require.NoError(t, err)
		for h, err := range client.Holders(t.Context(), "") {
			require.NoError(t, err)
			require.NoError(t, client.Break(t.Context(), h, lease.BreakForce()))
		}
		time.Sleep(time.Minute)
		require.ErrorIs(t, running.Unlock(t.Context()), lease.ErrLost)
	})
}

func TestLockersRefuseWhatCannotWork(t *testing.T) {
	t.Parallel()
	client := newClient(t, memkv.New())
	once := lock.NewOnce(client, "jobs")
	for want, err := range map[string]error{
		"not nil":             second(gocronlock.New(nil, time.Hour)),
		"period 0s":           second(gocronlock.New(once, 0)),
		"period 999ms":        second(gocronlock.New(once, time.Second-time.Millisecond)),
		"period 87600h0m0.0":  second(gocronlock.New(once, gocronlock.MaxPeriod+1)),
		"a client, not nil":   second(gocronlock.NewHolding(nil, time.Second)),
		"NewHolding: 0s":      second(gocronlock.NewHolding(client, 0)),
		"NewHolding: 24h0m0.": second(gocronlock.NewHolding(client, gocronlock.MaxHold+1)),
		"an election":         second(gocronlock.NewElector(nil)),
	} {
		require.ErrorIs(t, err, lease.ErrInvalid)
		require.ErrorContains(t, err, want)
	}
	l, err := gocronlock.New(once, time.Second)
	require.NoError(t, err)
	_, err = l.Lock(t.Context(), "")
	require.ErrorIs(t, err, lease.ErrInvalid)
}

func second[T any](_ T, err error) error { return err }
