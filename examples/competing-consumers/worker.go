package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/pool"
)

const (
	// batch is how many entries a worker has locked at most. When it dies, these
	// wait for its TTL to pass. The others do not.
	batch = 16
	// planInterval is how often a worker looks what is left to do, and who is
	// there to do it.
	planInterval = 250 * time.Millisecond
	// longestOutage is for how long a worker bears with a store that does not
	// answer.
	longestOutage = 10 * time.Second
	// closeTimeout bounds the close of the session after a stop, when the work's
	// own context has ended.
	closeTimeout = 3 * time.Second
)

// worker is one of the competing consumers. It knows of the others only what
// the store tells. A program of your own can have this file as it is.
type worker struct {
	// name tells people which worker has a lock.
	name  string
	store kv.Store
	log   *slog.Logger
	// set is the name of the entries, and of the pool whose partitions they are.
	set string
	ttl time.Duration
	// longest is how long one entry may take. When the entry at hand moves to
	// another worker, this one has so long to finish it.
	longest time.Duration
	// do does one entry under its lock. nil means that the entry is done for good.
	// After an error it is called again, here or in another worker. Its context
	// ends with the lock, and when run has to stop.
	do func(ctx context.Context, held *pool.Work, entry string) error
}

// run works until every entry is done, ctx ends, or the store fails for good.
// When it returns it holds no lock.
func (w *worker) run(ctx context.Context) (err error) {
	client, err := lease.New(w.store, lease.WithTTL(w.ttl), lease.WithOwner(w.name), lease.WithLogger(w.log))
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		err = errors.Join(err, client.Close(closing))
	}()
	p, err := pool.New(client, w.set, w.handler(ctx), pool.WithMaxPartitions(batch),
		pool.WithPlanInterval(planInterval), pool.WithDrainTimeout(w.longest), pool.WithOutageLimit(longestOutage))
	if err != nil {
		return err
	}
	return p.Run(ctx)
}

// handler returns what the pool calls with each entry that this worker has
// locked. It lets one entry at a time be done. A stop ends the work. A move of
// the entry to another worker waits for it.
func (w *worker) handler(stop context.Context) pool.Handler {
	turn := make(chan struct{}, 1)
	return func(ctx context.Context, held *pool.Work) error {
		select {
		case turn <- struct{}{}:
			defer func() { <-turn }()
		case <-held.Draining(): // another worker gets it, or this one stops
			return nil
		case <-ctx.Done(): // the lock is lost
			return nil
		}
		if stop.Err() != nil || !held.Held() {
			return nil
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(stop, cancel)()
		err := w.do(ctx, held, held.Name())
		switch {
		case err == nil:
			return pool.ErrDone
		case ctx.Err() != nil || !held.Held():
			return nil // it was cut short: somebody else does it
		}
		return err
	}
}
