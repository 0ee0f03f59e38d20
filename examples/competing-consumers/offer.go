package main

import (
	"context"
	"errors"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/pool"
)

// offer makes the entries, and nothing else, the partitions of the pool of their
// set. Those that are done without a right result are to be done again. It costs
// two listings and a write for each entry that is new.
func offer(ctx context.Context, store kv.Store, set string, entries []string, right map[string]Result) (err error) {
	leases, err := lease.New(store)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, leases.Close(ctx)) }()
	p, err := pool.New(leases, set, nil)
	if err != nil {
		return err
	}
	var again []string
	for partition, err := range p.Partitions(ctx) {
		if err != nil {
			return err
		}
		if _, ok := right[partition.Name]; partition.Done && !ok {
			again = append(again, partition.Name)
		}
	}
	return errors.Join(p.Sync(ctx, entries...), p.Reopen(ctx, again...))
}
