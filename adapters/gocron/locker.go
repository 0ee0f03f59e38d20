package gocronlock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-co-op/gocron/v2"

	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

// ErrDone says that the job was done before in this period. gocron skips it then.
var ErrDone = errors.New("gocronlock: done before in this period")

// MinPeriod and MaxPeriod bound the period of New: a second and ten years.
const (
	MinPeriod = time.Second
	MaxPeriod = 10 * 365 * 24 * time.Hour
)

// Locker is a gocron.Locker that lets a job run once per period. It is safe for
// concurrent use. Use New.
type Locker struct {
	once   *lock.Once
	period time.Duration
}

var _ gocron.Locker = (*Locker)(nil)

// New returns the locker of jobs that run once per period, MinPeriod to MaxPeriod.
// period is that of the job's schedule, and the same in all processes. Jobs of
// other names have slots of their own, so jobs of one period can share a Locker.
// Name them with gocron.WithName.
//
// The period to which a run belongs is the one whose beginning is nearest to now.
// So clocks may differ by up to half a period, as long as the schedule keeps to
// the beginnings of periods in UTC: see lock.Slot. A gocron.CronJob does, and so
// does a gocron.DurationJob that starts at such a time (gocron.WithStartAt).
//
// Errors match lease.ErrInvalid. New does no I/O.
func New(once *lock.Once, period time.Duration) (*Locker, error) {
	switch {
	case once == nil:
		return nil, fmt.Errorf("gocronlock: New: want a lock.Once, not nil: %w", lease.ErrInvalid)
	case period < MinPeriod || period > MaxPeriod:
		return nil, fmt.Errorf("gocronlock: New: period %v, want %v to %v: %w",
			period, MinPeriod, MaxPeriod, lease.ErrInvalid)
	}
	return &Locker{once: once, period: period}, nil
}

// Lock claims this period's slot of the job called key. On success the job runs,
// and Unlock records that it was done. On failure nothing is claimed:
//
//   - ErrDone: the job was done in this period.
//   - An error that matches lease.ErrHeld: it runs elsewhere. With lock.Wait the
//     call waits instead, and gocron plans the job's next run only afterwards.
//   - lock.ErrFailed or lock.ErrAbandoned: see lock.Once.
//   - Any other error: that of lock.Once.Do.
//
// It costs what lock.Once.Do costs.
func (l *Locker) Lock(ctx context.Context, key string) (gocron.Lock, error) {
	if key == "" {
		return nil, fmt.Errorf("gocronlock: Lock: the job has no name, want gocron.WithName: %w", lease.ErrInvalid)
	}
	slot := key + "@" + lock.Slot(time.Now().Add(l.period/2), l.period)
	r := &run{started: make(chan struct{}), finish: make(chan struct{}), ended: make(chan struct{})}
	go r.do(ctx, l.once, slot)
	select {
	case <-r.started:
		return r, nil
	case <-r.ended:
		if r.err == nil {
			return nil, fmt.Errorf("%s: %w", slot, ErrDone)
		}
		return nil, r.err
	}
}

// run is one run of a job: a lock.Once.Do whose function is what happens between
// Lock and Unlock.
type run struct {
	started chan struct{} // closed when the job may run
	finish  chan struct{} // closed when it has ended
	ended   chan struct{} // closed when Do has returned err
	err     error
}

func (r *run) do(ctx context.Context, once *lock.Once, slot string) {
	defer close(r.ended)
	_, r.err = once.Do(ctx, slot, func(context.Context, *lease.Lease) error {
		close(r.started)
		<-r.finish
		return nil
	})
}

// Unlock records that the job was done, and waits for that. ctx does not matter:
// gocron's has ended when a scheduler shuts down. An error is that of
// lock.Once.Do. Call it once.
func (r *run) Unlock(context.Context) error {
	close(r.finish)
	<-r.ended
	return r.err
}
