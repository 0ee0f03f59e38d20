package cronlock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

// Job is a cron.Job that can be told to stop. Where the job that is wrapped is a
// Job, RunContext is called in the place of Run. ctx ends when the lease is lost,
// and with the context of New. The error is recorded with the run.
type Job interface {
	cron.Job
	RunContext(ctx context.Context, l *lease.Lease) error
}

// Func makes a Job of a function. Its Run, which is for use without a wrapper,
// calls the function without a lease and drops the error.
type Func func(ctx context.Context, l *lease.Lease) error

var _ Job = Func(nil)

// Run implements cron.Job.
func (f Func) Run() { _ = f(context.Background(), nil) }

// RunContext implements Job.
func (f Func) RunContext(ctx context.Context, l *lease.Lease) error { return f(ctx, l) }

// New returns a wrapper of the job that once is for. The job is run unless
// another process has run it, or does, for the time at which it was scheduled.
// schedule is the job's: it says which time that is.
//
// The process whose clock is ahead comes first. The others find the run under
// way or done, and skip it. log is told of each run that is skipped, at Info, and
// of each that fails, at Error. A run that begins after ctx has ended is an error
// too.
//
// A run that starts late counts as the last one that was due. With cron.Every or
// "@every 1h" the times depend on when a process started. So runs are named by the
// hour that begins nearest to now (see lock.Slot), and there is one per hour. A
// run that is delayed by cron.DelayIfStillRunning may be named after its
// successor: put that wrapper after this one.
//
// Errors match lease.ErrInvalid. New does no I/O. A run costs what lock.Once.Do
// costs.
func New(ctx context.Context, once *lock.Once, schedule cron.Schedule, log cron.Logger) (cron.JobWrapper, error) {
	switch {
	case once == nil:
		return nil, fmt.Errorf("cronlock: New: want a lock.Once, not nil: %w", lease.ErrInvalid)
	case schedule == nil:
		return nil, fmt.Errorf("cronlock: New: want the job's schedule, not nil: %w", lease.ErrInvalid)
	case log == nil:
		return nil, fmt.Errorf("cronlock: New: want a logger such as cron.DefaultLogger, not nil: %w", lease.ErrInvalid)
	}
	w := &wrapper{ctx: ctx, once: once, schedule: schedule, log: log}
	return func(job cron.Job) cron.Job { return cron.FuncJob(func() { w.run(job) }) }, nil
}

type wrapper struct {
	ctx      context.Context
	once     *lock.Once
	schedule cron.Schedule
	log      cron.Logger
}

func (w *wrapper) run(job cron.Job) {
	slot := Slot(w.schedule, time.Now())
	ran, err := w.once.Do(w.ctx, slot, func(ctx context.Context, l *lease.Lease) error {
		if j, ok := job.(Job); ok {
			return j.RunContext(ctx, l)
		}
		job.Run()
		return nil
	})
	switch {
	case errors.Is(err, lease.ErrHeld):
		w.log.Info("skip: runs elsewhere", "slot", slot)
	case err != nil:
		w.log.Error(err, "shared job", "slot", slot, "ran", ran)
	case !ran:
		w.log.Info("skip: done elsewhere", "slot", slot)
	}
}

// Slot names the run of schedule that is due at now: the last time of schedule
// that is not after now, in UTC. For a cron.ConstantDelaySchedule it is
// lock.Slot of the delay. It is "" where the schedule has had no time in the past
// ten years, which lock.Once refuses. It is for lock.Once.Outcome and Forget.
func Slot(schedule cron.Schedule, now time.Time) string {
	if every, ok := schedule.(cron.ConstantDelaySchedule); ok {
		return lock.Slot(now.Add(every.Delay/2), every.Delay)
	}
	at, ok := last(schedule, now)
	if !ok {
		return ""
	}
	return at.UTC().Format(time.RFC3339Nano)
}

// last returns the last time of schedule that is not after now.
func last(schedule cron.Schedule, now time.Time) (time.Time, bool) {
	due := func(t time.Time) bool {
		next := schedule.Next(t)
		return !next.IsZero() && !next.After(now)
	}
	back := time.Minute
	for ; !due(now.Add(-back)); back *= 2 {
		if back > 10*365*24*time.Hour {
			return time.Time{}, false
		}
	}
	// Next only grows. So the last time is that after the latest instant from which
	// one is still due.
	from, width := now.Add(-back), back
	for width > time.Millisecond {
		width /= 2
		if due(from.Add(width)) {
			from = from.Add(width)
		}
	}
	return schedule.Next(from), true
}
