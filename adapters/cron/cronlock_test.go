package cronlock_test

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

	"github.com/robfig/cron/v3"
	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/adapters/cron"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

func newOnce(t *testing.T, store kv.Store) *lock.Once {
	t.Helper()
	c, err := lease.New(store)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close(context.Background())) })
	return lock.NewOnce(c, "report")
}

// journal is a cron.Logger that keeps what it is told.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) Info(text string, values ...any) { j.add(text, values) }
func (j *journal) Error(err error, text string, values ...any) {
	j.add(text+": "+err.Error(), values)
}

func (j *journal) add(text string, values []any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprint(text, " ", values))
}

func (j *journal) count(text string) (n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, line := range j.lines {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

func parse(t *testing.T, spec string) cron.Schedule {
	t.Helper()
	parser := cron.NewParser(
		cron.SecondOptional | cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor)
	s, err := parser.Parse(spec)
	require.NoError(t, err)
	return s
}

// late is a schedule as a clock sees it that is behind by so much.
type late struct {
	cron.Schedule
	by time.Duration
}

func (l late) Next(t time.Time) time.Time { return l.Schedule.Next(t.Add(-l.by)).Add(l.by) }

func TestAShortJobRunsOncePerScheduledTime(t *testing.T) {
	t.Parallel()
	for name, spec := range map[string]string{"fields": "0 * * * * *", "a delay": "@every 1m"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(time.Second) // no run is due now
				store, schedule, log, runs := memkv.New(), parse(t, spec), &journal{}, new(atomic.Int64)
				for i := range 3 {
					shared, err := cronlock.New(t.Context(), newOnce(t, store), schedule, log)
					require.NoError(t, err)
					c := cron.New(cron.WithLogger(cron.DiscardLogger))
					c.Schedule(late{schedule, time.Duration(i) * 50 * time.Millisecond},
						cron.NewChain(shared).Then(cron.FuncJob(func() {
							runs.Add(1)
							time.Sleep(10 * time.Millisecond)
						})))
					c.Start()
					defer func() { <-c.Stop().Done() }()
				}
				time.Sleep(10*time.Minute + 30*time.Second)
				require.EqualValues(t, 10, runs.Load())
				require.Equal(t, 20, log.count("skip: done elsewhere"))
			})
		})
	}
}

func TestAJobIsToldOfTheLossOfItsLease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log, schedule := &journal{}, parse(t, "0 * * * * *")
		client, err := lease.New(memkv.New())
		require.NoError(t, err)
		once := lock.NewOnce(client, "report")
		shared, err := cronlock.New(t.Context(), once, schedule, log)
		require.NoError(t, err)
		var cause error
		job := shared(cronlock.Func(func(ctx context.Context, l *lease.Lease) error {
			go func() { _ = client.Close(context.WithoutCancel(ctx)) }()
			<-ctx.Done()
			cause = context.Cause(ctx)
			return nil
		}))
		job.Run()
		require.ErrorIs(t, cause, lease.ErrLost)
	})
}

func TestTheErrorOfAJobIsRecorded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log, schedule, once := &journal{}, parse(t, "0 * * * * *"), newOnce(t, memkv.New())
		shared, err := cronlock.New(t.Context(), once, schedule, log)
		require.NoError(t, err)
		job := shared(cronlock.Func(func(context.Context, *lease.Lease) error { return errors.New("no paper") }))
		job.Run()
		outcome, err := once.Outcome(t.Context(), cronlock.Slot(schedule, time.Now()))
		require.NoError(t, err)
		require.Equal(t, lock.StateFailed, outcome.State)
		require.Equal(t, "no paper", outcome.Error)
		require.Equal(t, 1, log.count("no paper"))
		job.Run()
		require.Equal(t, 2, log.count("shared job"), "a settled failure is told again")
	})
}

func TestASlotIsTheLastTimeOfTheSchedule(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 4, 5, 6, 7, 8, time.UTC) // a Wednesday
	for spec, want := range map[string]string{
		"* * * * * *":                "2026-03-04T05:06:07Z",
		"0 * * * * *":                "2026-03-04T05:06:00Z",
		"7 6 5 4 3 *":                "2026-03-04T05:06:07Z",
		"8 6 5 4 3 *":                "2025-03-04T05:06:08Z",
		"* * 9 * * MON":              "2026-03-02T09:59:59Z",
		"0 0 0 29 2 *":               "2024-02-29T00:00:00Z",
		"TZ=Asia/Tokyo 0 30 6 * * *": "2026-03-03T21:30:00Z",
		"@every 1h":                  "2026-03-04T05:00:00Z",
		"0 0 0 30 2 *":               "",
	} {
		require.Equal(t, want, cronlock.Slot(parse(t, spec), now), spec)
	}
	tokyo := now.In(time.FixedZone("JST", 9*3600))
	require.Equal(t, "2026-03-04T05:06:00Z", cronlock.Slot(parse(t, "0 * * * * *"), tokyo), "wherever a process is")
}

// TestSlotsAgreeWithCron walks through a year of a crowded schedule.
func TestSlotsAgreeWithCron(t *testing.T) {
	t.Parallel()
	schedule := parse(t, "TZ=Europe/Berlin */7 0,2,3 1 * * *")
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for range 365 * 9 {
		at = schedule.Next(at)
		for _, after := range []time.Duration{0, 1, schedule.Next(at).Sub(at) - 1} {
			require.Equal(t, at.UTC().Format(time.RFC3339Nano), cronlock.Slot(schedule, at.Add(after)))
		}
	}
}

func TestNewRefusesWhatIsMissing(t *testing.T) {
	t.Parallel()
	once, schedule := lock.NewOnce(nil, "report"), parse(t, "@daily")
	for want, args := range map[string]struct {
		once     *lock.Once
		schedule cron.Schedule
		log      cron.Logger
	}{
		"a lock.Once": {nil, schedule, cron.DefaultLogger},
		"schedule":    {once, nil, cron.DefaultLogger},
		"a logger":    {once, schedule, nil},
	} {
		_, err := cronlock.New(t.Context(), args.once, args.schedule, args.log)
		require.ErrorIs(t, err, lease.ErrInvalid)
		require.ErrorContains(t, err, want)
	}
}
