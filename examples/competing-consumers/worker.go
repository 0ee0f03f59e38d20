package main

import (
	"context"
	"errors"
	"hash/fnv"
	"io/fs"
	"log/slog"
	"slices"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

const (
	// shortestWait and longestWait bound the pause of a worker while others hold all that is left.
	shortestWait, longestWait = 50 * time.Millisecond, 500 * time.Millisecond
	// patience is how many attempts in a row may fail with an error of the store before a worker gives up.
	patience = 10
	// farewell bounds release and close after a stop, when the work's own context has ended.
	farewell = 3 * time.Second
)

// Job is what a worker needs to know. A worker process reads it, as JSON, from the first line of its standard input.
type Job struct {
	Store   string
	Dir     string
	Entries []string
	// Stale are entries whose results are wrong, with the tokens of those results: they count as absent.
	Stale map[string]uint64
	TTL   time.Duration
	// Work is extra time for each entry.
	Work time.Duration
	// PauseAt makes the worker stop for ever in the middle of its PauseAt-th entry, to be killed there. 0: never.
	PauseAt int
}

// worker is one of the competing consumers. It knows of the others only what the store tells.
type worker struct {
	name     string
	job      Job
	store    kv.Store
	leases   *lease.Client
	requests *requestCounts
	emit     func(Event)

	acquired int
}

// runWorker works until every entry has a result, ctx ends, or the store fails for good. It reports each step to emit, and
// when it returns it holds no lock.
func runWorker(ctx context.Context, name string, job Job, store kv.Store, log *slog.Logger, emit func(Event)) (err error) {
	w := &worker{name: name, job: job, requests: newRequestCounts()}
	w.emit = func(e Event) {
		e.At, e.Worker = instant(), name
		emit(e)
	}
	defer func() {
		e := Event{Event: workerFinished, Requests: w.requests.snapshot()}
		if err != nil {
			e.Error = err.Error()
		}
		w.emit(e)
	}()
	w.store = kv.Instrument(store, w.requests.hook)
	w.leases, err = lease.New(w.store, lease.WithTTL(job.TTL), lease.WithOwner(name), lease.WithLogger(log))
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := clock.System.WithTimeout(context.WithoutCancel(ctx), farewell)
		defer cancel()
		err = errors.Join(err, w.leases.Close(closing))
	}()
	w.emit(Event{Event: workerStarted})
	return w.run(ctx)
}

// run goes round the entries that are left until none is, pausing when others hold all of them.
func (w *worker) run(ctx context.Context) error {
	left := w.order()
	wait, failures := shortestWait, 0
	for len(left) > 0 {
		var again []string
		for _, entry := range left {
			settled, err := w.attempt(ctx, entry)
			switch {
			case ctx.Err() != nil:
				return nil
			case err != nil:
				if failures++; failures >= patience {
					return err
				}
				w.emit(Event{Event: entryFailed, Entry: entry, Error: err.Error()})
				_ = clock.Sleep(ctx, clock.System, longestWait) // the next attempt sees the end of ctx
			default:
				failures = 0
			}
			if !settled {
				again = append(again, entry)
			}
		}
		if len(again) < len(left) {
			wait = shortestWait
		} else if clock.Sleep(ctx, clock.System, wait) != nil {
			return nil
		} else {
			wait = min(wait*2, longestWait)
		}
		left = again
	}
	return nil
}

// order returns the entries from a place on that is this worker's own, so that workers seldom want the same one.
func (w *worker) order() []string {
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(w.name)) // never fails
	start := int(hash.Sum32()) % len(w.job.Entries)
	return slices.Concat(w.job.Entries[start:], w.job.Entries[:start])
}

// attempt locks entry, does it and unlocks it. It reports whether nothing is left to do for entry: there is a result, or
// there cannot be one. An error is one of the store: another attempt may do better.
func (w *worker) attempt(ctx context.Context, entry string) (settled bool, err error) {
	if done, err := w.done(ctx, entry); done || err != nil {
		return done, err
	}
	held, err := w.leases.TryAcquire(ctx, "entry/"+entry)
	if errors.Is(err, lease.ErrHeld) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	w.emit(Event{
		Event: entryAcquired, Entry: entry, Token: held.Token(), Takeover: held.TakenOver(),
		Requests: w.requests.snapshot(),
	})
	trust := followTrust(held)
	settled, err = w.work(ctx, held, entry)
	return settled, errors.Join(err, w.release(ctx, held, entry, trust.end()))
}

// done reports whether entry has a result that is not stale.
func (w *worker) done(ctx context.Context, entry string) (bool, error) {
	result, err := findResult(ctx, w.store, entry)
	if err != nil || result == nil || result.Token <= w.job.Stale[entry] {
		return false, err
	}
	w.emit(Event{Event: entrySeen, Entry: entry})
	return true, nil
}

// work does entry under its lock. It stops when the lock is lost or ctx ends, whichever is first.
func (w *worker) work(ctx context.Context, held *lease.Lease, entry string) (settled bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(held.Context(), func() { cancel(context.Cause(held.Context())) })()

	// Somebody may have done the entry between our look and our lock.
	if done, err := w.done(ctx, entry); done || err != nil {
		return done, err
	}
	if w.acquired++; w.acquired == w.job.PauseAt {
		w.emit(Event{Event: workerPaused, Entry: entry, Token: held.Token()})
		<-ctx.Done()
	}
	sum, err := digest(ctx, w.job.Dir, entry)
	if _, unreadable := errors.AsType[*fs.PathError](err); unreadable {
		w.emit(Event{Event: entryFailed, Entry: entry, Token: held.Token(), Error: err.Error()})
		return true, nil
	}
	if err == nil {
		err = clock.Sleep(ctx, clock.System, w.job.Work)
	}
	if err != nil || !held.Held() {
		return false, nil // stopped, or the lock was lost: release says so
	}
	accepted, err := publish(ctx, w.store, entry, Result{Worker: w.name, Token: held.Token(), Digest: sum})
	switch {
	case err != nil:
		return false, err
	case accepted:
		w.emit(Event{Event: entryDone, Entry: entry, Token: held.Token(), Digest: sum})
	default:
		w.emit(Event{Event: entryFenced, Entry: entry, Token: held.Token()})
	}
	return true, nil
}

// release gives the lock back, if it is still ours. What it reports comes before the request, so that the time between
// "acquired" and "released" lies within the time of the lock.
func (w *worker) release(ctx context.Context, held *lease.Lease, entry string, trusted int64) error {
	if err := held.Err(); err != nil {
		w.emit(Event{Event: entryLost, Entry: entry, Token: held.Token(), Until: trusted, Error: err.Error()})
		return nil
	}
	w.emit(Event{Event: entryReleased, Entry: entry, Token: held.Token()})
	ctx, cancel := clock.System.WithTimeout(context.WithoutCancel(ctx), farewell)
	defer cancel()
	if err := held.Release(ctx); err != nil && !errors.Is(err, lease.ErrLost) {
		return err
	}
	return nil
}
