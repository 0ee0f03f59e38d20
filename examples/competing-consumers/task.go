package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/pool"
)

// Job is what a worker needs to know. A worker process reads it, as JSON, from
// the first line of its standard input.
type Job struct {
	Store string
	Dir   string
	// Set is the name of the entries, and of the pool whose partitions they are.
	Set     string
	Entries []string
	// Stale are entries whose results are wrong, with the tokens of those results:
	// they count as absent.
	Stale map[string]uint64
	TTL   time.Duration
	// Work is extra time for each entry.
	Work time.Duration
	// PauseAt makes the worker stop for ever in the middle of its PauseAt-th
	// entry, to be killed there. 0: never.
	PauseAt int
}

// task is what the workers of the demonstration do with an entry: hash its
// file, publish the result, and report each step.
type task struct {
	name     string
	job      Job
	results  kv.Store
	requests *requestCounts
	emit     func(Event)
	// begun counts the entries that the worker has worked on.
	begun int
}

// runWorker runs a worker that reports each step to emit. It returns what the
// worker's run does.
func runWorker(ctx context.Context, name string, job Job, store kv.Store, log *slog.Logger, emit func(Event)) error {
	t := &task{name: name, job: job, requests: newRequestCounts()}
	t.emit = func(e Event) {
		e.At, e.Worker = instant(), name
		emit(e)
	}
	store = kv.Instrument(store, t.requests.hook)
	t.results = resultsOf(store, job.Set)
	t.emit(Event{Event: workerStarted})
	w := &worker{
		name: name, store: store, log: log, set: job.Set, ttl: job.TTL,
		longest: pool.DefaultDrainTimeout + job.Work, do: t.do,
	}
	err := w.run(ctx)
	finished := Event{Event: workerFinished, Requests: t.requests.snapshot()}
	if err != nil {
		finished.Error = err.Error()
	}
	t.emit(finished)
	return err
}

// do does entry, as worker says, and reports how that began and ended. The
// report of the end comes before the lock is given back, so that the time
// between the two lies within the time of the lock.
func (t *task) do(ctx context.Context, held *pool.Work, entry string) error {
	t.emit(Event{
		Event: entryAcquired, Entry: entry, Token: held.Token(), Takeover: held.TakenOver(),
		Requests: t.requests.snapshot(),
	})
	trust := followTrust(held)
	err := t.work(ctx, held, entry)
	end := Event{Event: entryReleased, Entry: entry, Token: held.Token()}
	trusted := trust.end()
	if lost := held.Err(); lost != nil {
		end.Event, end.Until, end.Error = entryLost, trusted, lost.Error()
	}
	t.emit(end)
	if err != nil && ctx.Err() == nil && held.Held() {
		t.emit(Event{Event: entryFailed, Entry: entry, Error: err.Error()})
	}
	return err
}

// work does entry until ctx ends. nil means that nothing is left to do: there
// is a result, or there cannot be one.
func (t *task) work(ctx context.Context, held *pool.Work, entry string) error {
	if done, err := t.done(ctx, entry); done || err != nil {
		return err // somebody did it, and ended before the pool knew
	}
	if t.begun++; t.begun == t.job.PauseAt {
		t.emit(Event{Event: workerPaused, Entry: entry, Token: held.Token()})
		<-ctx.Done()
	}
	sum, err := digest(ctx, t.job.Dir, entry)
	if _, unreadable := errors.AsType[*fs.PathError](err); unreadable {
		t.emit(Event{Event: entryFailed, Entry: entry, Token: held.Token(), Error: err.Error()})
		return nil
	}
	if err == nil {
		err = clock.Sleep(ctx, clock.System, t.job.Work)
	}
	if err == nil && !held.Held() {
		err = lease.ErrLost
	}
	if err != nil {
		return err
	}
	accepted, err := publish(ctx, t.results, entry, Result{Worker: t.name, Token: held.Token(), Digest: sum})
	switch {
	case err != nil:
		return err
	case accepted:
		t.emit(Event{Event: entryDone, Entry: entry, Token: held.Token(), Digest: sum})
	default:
		t.emit(Event{Event: entryFenced, Entry: entry, Token: held.Token()})
	}
	return nil
}

// done reports whether entry has a result that is not stale.
func (t *task) done(ctx context.Context, entry string) (bool, error) {
	result, err := findResult(ctx, t.results, entry)
	if err != nil || result == nil || result.Token <= t.job.Stale[entry] {
		return false, err
	}
	t.emit(Event{Event: entrySeen, Entry: entry})
	return true, nil
}
