package main

import (
	"context"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/pool"
)

const (
	// viewEvery is how often the store is looked at for what other runs do.
	viewEvery = 500 * time.Millisecond
	// viewTimeout bounds a look.
	viewTimeout = 5 * time.Second
)

// death tells all runs on a set of entries that a worker has died. It is the
// value of the pair death/<set>/<worker>.
type death struct {
	Worker string `json:"worker"`
	// Killed: for -crash. It died by itself otherwise, or by somebody's hand.
	Killed bool `json:"killed"`
	// Locked are the entries that it had locked.
	Locked []string `json:"locked"`
}

// takenOver counts the entries that it had locked and that others have done.
func (d death) takenOver(results map[string]Result) (n int) {
	for _, entry := range d.Locked {
		if result, done := results[entry]; done && result.Worker != d.Worker {
			n++
		}
	}
	return n
}

// view is what the store says of a set, whichever runs work on it.
type view struct {
	results map[string]Result
	deaths  []death
}

// viewer looks at the store for what people want to see. No worker needs it.
type viewer struct {
	store kv.Store
	set   string
	pool  *pool.Pool
}

func newViewer(store kv.Store, set string) (*viewer, error) {
	leases, err := lease.New(store) // it only reads: no session, nothing to close
	if err != nil {
		return nil, err
	}
	p, err := pool.New(leases, set, nil)
	return &viewer{store, set, p}, err
}

// look costs two listings.
func (v *viewer) look(ctx context.Context) (view, error) {
	results, err := decodeAll[Result](ctx, resultsOf(v.store, v.set))
	if err != nil {
		return view{}, err
	}
	found, err := decodeAll[death](ctx, v.deaths())
	seen := view{results: results}
	for _, d := range found {
		seen.deaths = append(seen.deaths, d)
	}
	return seen, err
}

// watch sends what it sees until stop is called. A look that fails is left out:
// the workers will tell.
func (v *viewer) watch(ctx context.Context) (views <-chan view, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	seen, ended := make(chan view), make(chan struct{})
	go func() {
		defer close(ended)
		for clock.Sleep(ctx, clock.System, viewEvery) == nil {
			looking, cancel := clock.System.WithTimeout(ctx, viewTimeout)
			now, err := v.look(looking)
			cancel()
			if err != nil {
				continue
			}
			select {
			case seen <- now:
			case <-ctx.Done():
			}
		}
	}()
	return seen, func() { cancel(); <-ended }
}

// died finds out what a worker that has just died had locked, and tells the
// other runs. It costs a listing and a write.
func (v *viewer) died(ctx context.Context, worker string, killed bool) (death, error) {
	ctx, cancel := clock.System.WithTimeout(ctx, viewTimeout)
	defer cancel()
	d := death{Worker: worker, Killed: killed, Locked: []string{}}
	for partition, err := range v.pool.Partitions(ctx) {
		if err != nil {
			return d, err
		}
		if partition.Owner == worker && !partition.Done {
			d.Locked = append(d.Locked, partition.Name)
		}
	}
	return d, v.deaths().Put(ctx, worker, kv.WithJSON(d))
}

// deaths is the part of the store that has them.
func (v *viewer) deaths() kv.Store { return kv.Prefixed(v.store, "death/"+v.set+"/") }

// decodeAll returns the values of all pairs of stored, by their keys.
func decodeAll[T any](ctx context.Context, stored kv.Store) (map[string]T, error) {
	pairs, err := stored.List(ctx, "")
	if err != nil {
		return nil, err
	}
	values := make(map[string]T, len(pairs))
	for _, pair := range pairs {
		var value T
		if err := pair.Decode(&value); err != nil {
			return nil, err
		}
		values[pair.Key] = value
	}
	return values, nil
}
