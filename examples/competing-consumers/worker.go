package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"strings"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

const (
	// batch is how many entries a worker has locked at most. When it dies, these wait for its TTL to pass; the others do not.
	batch = 16
	// planInterval is how often a worker looks what is left to do, and who is there to do it.
	planInterval = 250 * time.Millisecond
	// longestOutage is for how long a worker bears with a store that does not answer.
	longestOutage = 10 * time.Second
	// farewell bounds the close of the session after a stop, when the work's own context has ended.
	farewell = 3 * time.Second
)

// Job is what a worker needs to know. A worker process reads it, as JSON, from the first line of its standard input.
type Job struct {
	Store string
	Dir   string
	// Set is the name of the entries, and of the pool whose partitions they are.
	Set     string
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
	results  kv.Store
	leases   *lease.Client
	requests *requestCounts
	emit     func(Event)

	// turn is taken by who works on an entry: one at a time. stop ends when the worker has to stop.
	turn chan struct{}
	stop context.Context
	// begun counts the entries that it has worked on.
	begun int
}

// runWorker works until every entry is done, ctx ends, or the store fails for good. It reports each step to emit, and
// when it returns it holds no lock.
func runWorker(ctx context.Context, name string, job Job, store kv.Store, log *slog.Logger, emit func(Event)) (err error) {
	w := &worker{name: name, job: job, requests: newRequestCounts(), turn: make(chan struct{}, 1), stop: ctx}
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
	store = kv.Instrument(store, w.requests.hook)
	w.results = resultsOf(store, job.Set)
	w.leases, err = lease.New(store, lease.WithTTL(job.TTL), lease.WithOwner(name), lease.WithLogger(log))
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := clock.System.WithTimeout(context.WithoutCancel(ctx), farewell)
		defer cancel()
		err = errors.Join(err, w.leases.Close(closing))
	}()
	w.emit(Event{Event: workerStarted})
	pool, err := lease.NewPool(w.leases, job.Set, w.handle, lease.WithMaxPartitions(batch), lease.WithPlanInterval(planInterval),
		lease.WithDrainTimeout(lease.DefaultDrainTimeout+job.Work), lease.WithOutageLimit(longestOutage))
	if err != nil {
		return err
	}
	return pool.Run(ctx)
}

// handle is what the pool calls with each entry that this worker has locked: it waits for its turn, and does the entry.
func (w *worker) handle(ctx context.Context, held *lease.Lease) error {
	select {
	case w.turn <- struct{}{}:
		defer func() { <-w.turn }()
	case <-lease.Draining(ctx): // another worker gets it, or this one stops
		return nil
	case <-ctx.Done(): // the lock is lost
		return nil
	}
	if w.stop.Err() != nil || !held.Held() {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(w.stop, cancel)() // a stop ends the work, a move to another worker waits for it

	entry := strings.TrimPrefix(held.Key(), w.job.Set+"/")
	w.emit(Event{
		Event: entryAcquired, Entry: entry, Token: held.Token(), Takeover: held.TakenOver(),
		Requests: w.requests.snapshot(),
	})
	trust := followTrust(held)
	settled, err := w.work(ctx, held, entry)
	w.leave(held, entry, trust.end())
	switch {
	case settled:
		return lease.ErrDone
	case ctx.Err() != nil:
		return nil
	case err != nil:
		w.emit(Event{Event: entryFailed, Entry: entry, Error: err.Error()})
	}
	return err
}

// done reports whether entry has a result that is not stale.
func (w *worker) done(ctx context.Context, entry string) (bool, error) {
	result, err := findResult(ctx, w.results, entry)
	if err != nil || result == nil || result.Token <= w.job.Stale[entry] {
		return false, err
	}
	w.emit(Event{Event: entrySeen, Entry: entry})
	return true, nil
}

// work does entry under its lock, until ctx ends. It reports whether nothing is left to do for entry: there is a result, or there cannot be one. An
// error is one of the store: another attempt may do better.
func (w *worker) work(ctx context.Context, held *lease.Lease, entry string) (settled bool, err error) {
	if done, err := w.done(ctx, entry); done || err != nil {
		return done, err // somebody did it, and ended before the pool knew
	}
	if w.begun++; w.begun == w.job.PauseAt {
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
		return false, nil // stopped, or the lock was lost: leave says so
	}
	accepted, err := publish(ctx, w.results, entry, Result{Worker: w.name, Token: held.Token(), Digest: sum})
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

// leave says how the work ended. What it reports comes before the pool gives the lock back, so that the time between "acquired" and
// "released" lies within the time of the lock.
func (w *worker) leave(held *lease.Lease, entry string, trusted int64) {
	if err := held.Err(); err != nil {
		w.emit(Event{Event: entryLost, Entry: entry, Token: held.Token(), Until: trusted, Error: err.Error()})
		return
	}
	w.emit(Event{Event: entryReleased, Entry: entry, Token: held.Token()})
}
