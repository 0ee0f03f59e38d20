package lease

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
)

// MaxWeight is the greatest weight of a partition.
const MaxWeight = 1_000_000

// Partition is what the row of a partition said when it was read.
type Partition struct {
	// Name is the partition's name in its pool.
	Name string
	// Owner, Session and Token are those of the Holder, zero if nobody has the partition. A holder that has died may still be named.
	Owner   string
	Session string
	Token   uint64
	// Checkpoint is what the last Update wrote, CheckpointAt when, by its writer's wall clock; nil and zero if there was none.
	Checkpoint   []byte
	CheckpointAt time.Time
	// Done: finished for good. Paused: nobody is to work on it. Removed: it is about to go.
	Done, Paused, Removed bool
	// Weight is what it counts for in balancing.
	Weight int
}

// Partitions returns the pool's partitions, in the order of their names. It costs a strong listing of them. An error comes with a nil Partition: an
// unreadable row's matches ErrFormat and the listing goes on, any other ends it.
func (p *Pool) Partitions(ctx context.Context) iter.Seq2[*Partition, error] {
	prefix := leasePrefix + p.key("")
	return listed(ctx, p.client.store, prefix, func(pair *kv.KVPair) (*Partition, error) {
		record, err := decodeLease(pair)
		if err != nil || record.Partition == nil {
			return nil, err
		}
		h, marks := record.holder("", pair), record.Partition
		return &Partition{
			Name: strings.TrimPrefix(pair.Key, prefix), Owner: h.Owner, Session: h.Session, Token: h.Token,
			Checkpoint: h.Value, CheckpointAt: marks.Saved,
			Done: marks.Done, Paused: marks.Paused, Removed: marks.Removed, Weight: marks.weight(),
		}, nil
	})
}

// Add adds partitions to the pool, with weight 1 and no checkpoint; those that it has already stay as they are. Members notice at their next plan. It
// costs one write for each, one more for one that is just being removed. On failure some may have been added: call it again.
func (p *Pool) Add(ctx context.Context, partitions ...string) error {
	return p.each(ctx, "Add", partitions, func(ctx context.Context, key string) error {
		fresh := leaseRecord{Format: format, Keep: true, Partition: &partitionMarks{Format: partitionFormat}}
		_, err := p.client.store.AtomicPut(ctx, leasePrefix+key, fresh.options(nil, p.client.attempts)...)
		if !errors.Is(err, kv.ErrKeyExists) && !errors.Is(err, kv.ErrUncertain) {
			return err
		}
		return p.mark(ctx, key, func(m *partitionMarks) { m.Removed = false })
	})
}

// Remove removes partitions with their checkpoints. Those that somebody works on are drained first: his member notices at its next plan. nil: they
// are gone. On failure, as when ctx ends, those that were marked are not worked on any more, and removing them again goes on; adding them again takes it
// back. It costs three requests for each, and a read per poll while it waits.
func (p *Pool) Remove(ctx context.Context, partitions ...string) error {
	return p.each(ctx, "Remove", partitions, func(ctx context.Context, key string) error {
		err := p.mark(ctx, key, func(m *partitionMarks) { m.Removed = true })
		if err != nil {
			return err
		}
		return p.whenIdle(ctx, key, func(record *leaseRecord, pair *kv.KVPair) error {
			if !record.Partition.Removed {
				return fmt.Errorf("it was added again: %w", ErrHeld)
			}
			return p.client.store.AtomicDelete(ctx, pair.Key, pair, p.client.attempts)
		})
	})
}

// Sync adds those of the wanted partitions that the pool does not have, and removes all others. It costs a strong listing, and what Add and
// Remove cost.
func (p *Pool) Sync(ctx context.Context, wanted ...string) error {
	missing := make(map[string]bool, len(wanted))
	for _, name := range wanted {
		missing[name] = true
	}
	var extra []string
	for partition, err := range p.Partitions(ctx) {
		if err != nil {
			return err
		}
		switch {
		case !missing[partition.Name]:
			extra = append(extra, partition.Name)
		case !partition.Removed:
			delete(missing, partition.Name)
		}
	}
	var add []string
	for _, name := range wanted {
		if missing[name] {
			add = append(add, name)
			delete(missing, name)
		}
	}
	return errors.Join(p.Add(ctx, add...), p.Remove(ctx, extra...))
}

// Pause makes partitions lie idle until Resume. nil: nobody works on them, and nobody will. On failure, as when ctx ends while a
// handler still drains, some may be marked: they will be given back, and nobody takes them. A partition that is not there is no error. It costs
// three requests for each, and a read per poll while it waits.
func (p *Pool) Pause(ctx context.Context, partitions ...string) error {
	return p.each(ctx, "Pause", partitions, func(ctx context.Context, key string) error {
		if err := p.mark(ctx, key, func(m *partitionMarks) { m.Paused = true }); err != nil {
			return err
		}
		return p.whenIdle(ctx, key, func(*leaseRecord, *kv.KVPair) error { return nil })
	})
}

// Resume ends a pause. Members notice at their next plan. It costs a read and a write for each.
func (p *Pool) Resume(ctx context.Context, partitions ...string) error {
	return p.each(ctx, "Resume", partitions, func(ctx context.Context, key string) error {
		return p.mark(ctx, key, func(m *partitionMarks) { m.Paused = false })
	})
}

// Reopen makes partitions that are done such that are to be worked on again, from the checkpoints that they have; the others stay as they are. Members
// notice at their next plan. It costs a read for each, and a write for each that was done.
func (p *Pool) Reopen(ctx context.Context, partitions ...string) error {
	return p.each(ctx, "Reopen", partitions, func(ctx context.Context, key string) error {
		return p.mark(ctx, key, func(m *partitionMarks) { m.Done = false })
	})
}

// Weigh sets what partitions count for in balancing, 1 to MaxWeight. It costs a read and a write for each.
func (p *Pool) Weigh(ctx context.Context, weight int, partitions ...string) error {
	if weight < 1 || weight > MaxWeight {
		return fmt.Errorf("lease: Weigh(%d): want 1 to %d: %w", weight, MaxWeight, ErrInvalid)
	}
	return p.each(ctx, "Weigh", partitions, func(ctx context.Context, key string) error {
		return p.mark(ctx, key, func(m *partitionMarks) { m.Weight = weight })
	})
}

// each calls do with the keys of partitions, several at a time, and returns the first error, having waited for all.
func (p *Pool) each(ctx context.Context, what string, partitions []string, do func(ctx context.Context, key string) error) error {
	for _, name := range partitions {
		if err := checkKey(p.key(name)); err != nil || name == "" {
			return fmt.Errorf("lease: %s: partition %.40q of pool %q: want a key's length and UTF-8: %w", what, name, p.name, ErrInvalid)
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(maxRequests)
	for _, name := range partitions {
		group.Go(func() error {
			if err := do(ctx, p.key(name)); err != nil {
				return fmt.Errorf("lease: %s: partition %q of pool %q: %w", what, name, p.name, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// mark changes a partition's marks, if there is such a partition, whoever has it: the acquisition stays as it is, and its holder adopts the
// marks with its next write. When somebody else was faster it pauses, like after a failure, and tries again.
func (p *Pool) mark(ctx context.Context, key string, change func(*partitionMarks)) error {
	c := p.client
	return c.untilKnown(ctx, func() error {
		pair, record, err := p.read(ctx, key)
		if err != nil || pair == nil {
			return err
		}
		marks := record.Partition.with(change)
		if *marks == *record.Partition {
			return nil
		}
		marked := *record
		marked.Partition = marks
		if record.Session != "" {
			marked.Token = record.token(pair)
		}
		if _, err = c.store.AtomicPut(ctx, pair.Key, marked.options(pair, c.attempts)...); permanent(err) {
			return stop(err)
		}
		return err
	})
}

// read reads a partition's row. It returns nil if there is none, and an error to stop at for what is no partition.
func (p *Pool) read(ctx context.Context, key string) (*kv.KVPair, *leaseRecord, error) {
	pair, err := p.client.store.Get(ctx, leasePrefix+key, p.client.attempts)
	switch {
	case errors.Is(err, kv.ErrKeyNotFound):
		return nil, nil, nil
	case permanent(err):
		return nil, nil, stop(err)
	case err != nil:
		return nil, nil, err
	}
	record, err := decodeLease(pair)
	switch {
	case err != nil:
		return nil, nil, stop(err)
	case record.Partition == nil:
		return nil, nil, stop(&FormatError{Row: pair.Key, Problem: "not a partition of a pool"})
	}
	return pair, record, nil
}

// whenIdle waits until nobody has a partition that was marked, or who has it is dead, and calls do with its row; not if there is none. A
// conflict of what do writes is looked into after a pause.
func (p *Pool) whenIdle(ctx context.Context, key string, do func(*leaseRecord, *kv.KVPair) error) error {
	c := p.client
	began := c.clock.Now()
	for {
		idle := false
		err := c.untilKnown(ctx, func() error {
			pair, record, err := p.read(ctx, key)
			if err != nil || pair == nil {
				idle = pair == nil && err == nil
				return err
			}
			if record.Session != "" {
				if dead, _, err := c.isDead(ctx, record.Session); err != nil || !dead {
					return nil // a failure is waited out
				}
			}
			idle = true
			if err = do(record, pair); permanent(err) || errors.Is(err, ErrHeld) {
				return stop(err)
			}
			return err
		})
		if err != nil || idle {
			return err
		}
		pause := min(max(c.clock.Now().MonotonicSince(began)/10, c.pollMin), c.pollMax)
		if err := clock.Sleep(ctx, c.clock, pause); err != nil {
			return err
		}
	}
}
