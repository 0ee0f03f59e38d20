package pool

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// MaxWeight is the greatest weight of a partition.
const MaxWeight = 1_000_000

// Partition is what the row of a partition said when it was read.
type Partition struct {
	// Name is the partition's name in its pool.
	Name string
	// Owner, Session and Token are those of the lease.Holder, zero if nobody has
	// the partition. A holder that has died may still be named.
	Owner   string
	Session string
	Token   uint64
	// Checkpoint is what the last Save wrote, CheckpointAt when, by its writer's
	// wall clock. They are nil and zero if there was none.
	Checkpoint   []byte
	CheckpointAt time.Time
	// Done: finished for good. Failed: given up after as many attempts as
	// WithMaxAttempts allows. Paused: nobody is to work on it. Removed: it is about
	// to go.
	Done, Failed, Paused, Removed bool
	// Failures are the attempts in a row that have failed, and LastError is why the
	// last one did: the first line of it. See WithMaxAttempts.
	Failures  int
	LastError string
	// Weight is what it counts for in balancing.
	Weight int
}

// Partitions returns the pool's partitions, in the order of their names. It costs
// a listing of them: a strong one, unless the options say kv.EventuallyConsistent.
// The error of a row that cannot be read comes with a Partition that has its Name
// and nothing else, and the listing goes on. An error without a Partition ends it.
func (p *Pool) Partitions(ctx context.Context, options ...kv.ReadOption) iter.Seq2[*Partition, error] {
	return func(yield func(*Partition, error) bool) {
		for h, err := range p.client.Keys(ctx, p.key(""), options...) {
			if h == nil {
				yield(nil, err)
				return
			}
			item := &Partition{Name: strings.TrimPrefix(h.Key, p.key(""))}
			if err == nil {
				if !h.Kept {
					continue // it is no partition
				}
				err = p.show(item, h)
			}
			if !yield(item, err) {
				return
			}
		}
	}
}

// Progress counts a pool's partitions. Each of them counts once in Total, and once
// in one of the others.
type Progress struct {
	// Total is how many there are.
	Total int
	// Done are finished for good, and Failed were given up. Removed are about to go,
	// and Paused are those that nobody is to work on. Held are the others that
	// somebody has, who may have died, and Idle those that nobody has.
	Done, Failed, Removed, Paused, Held, Idle int
	// Unread could not be read.
	Unread int
}

// Progress counts the pool's partitions, by what becomes of them. It costs a strong
// listing of them.
func (p *Pool) Progress(ctx context.Context) (Progress, error) {
	var n Progress
	for item, err := range p.Partitions(ctx) {
		if item == nil {
			return Progress{}, err
		}
		n.Total++
		switch {
		case err != nil:
			n.Unread++
		case item.Done:
			n.Done++
		case item.Failed:
			n.Failed++
		case item.Removed:
			n.Removed++
		case item.Paused:
			n.Paused++
		case item.Session != "":
			n.Held++
		default:
			n.Idle++
		}
	}
	return n, nil
}

// show fills in what a row says.
func (p *Pool) show(item *Partition, h *lease.Holder) error {
	r, err := decode(item.Name, h)
	if err != nil {
		return err
	}
	item.Owner, item.Session, item.Token = h.Owner, h.Session, h.Token
	item.Checkpoint, item.CheckpointAt = r.checkpoint, r.state.Saved
	item.Done, item.Failed, item.Failures, item.LastError = r.state.Done, r.state.Failed, r.state.Failures, r.state.Error
	item.Paused, item.Removed, item.Weight = r.marks.Paused, r.marks.Removed, r.marks.weight()
	return nil
}

// Add adds partitions to the pool, with weight 1 and no checkpoint. Those that
// it has already stay as they are; of those that are being removed it takes
// the removal back, and Remove tells. Members notice at their next plan.
//
// nil: each was there, not marked to be removed, at a moment during the call,
// and only a Remove after that can have removed it. While the outcome of a
// write is not known Add goes on, until ctx ends. On failure some may have been
// added, or may be yet: call it again. It costs one write for each, 32 at a time,
// one more for one that is being removed, and more where others change it
// meanwhile.
func (p *Pool) Add(ctx context.Context, partitions ...string) error {
	return p.each(ctx, "Add", partitions, p.add)
}

// Remove removes partitions with their checkpoints. Those that somebody works
// on are drained first: his member notices at its next plan.
//
// nil: they are gone, or never were there. An error that matches lease.ErrHeld: one
// was added again meanwhile, and stays, or ctx ended while somebody had it,
// whom the error names. On any failure, those that were marked are not worked
// on any more, and removing them again goes on; adding them again takes it
// back. It costs four requests for each, and a read per poll while it waits.
func (p *Pool) Remove(ctx context.Context, partitions ...string) error {
	return p.each(ctx, "Remove", partitions, func(ctx context.Context, name string) error {
		err := p.mark(ctx, name, func(m *marks) { m.Removed = true })
		if err != nil {
			return err
		}
		return p.whenIdle(ctx, name, func(m marks) error {
			if m.Removed {
				return nil
			}
			return fmt.Errorf("it was added again: %w", lease.ErrHeld)
		}, func(r *row) error {
			return p.client.Discard(ctx, r.Holder)
		})
	})
}

// Sync adds those of the wanted partitions that the pool does not have, and
// removes all others. nil means what it means of Add and Remove; where one of
// the two fails, the other has been tried. It costs a strong listing, and what
// Add and Remove cost.
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

// Pause makes partitions lie idle until Resume. A partition that is not there
// is no error, and is not paused when it is added.
//
// nil: nobody works on them, and nobody will. An error that matches lease.ErrHeld: one
// was resumed meanwhile, or removed and added again, or ctx ended while somebody
// had it, whom the error names. On failure some may be marked: they will be
// given back, and nobody takes them. It costs three requests for each, and a
// read per poll while it waits.
func (p *Pool) Pause(ctx context.Context, partitions ...string) error {
	return p.each(ctx, "Pause", partitions, func(ctx context.Context, name string) error {
		if err := p.mark(ctx, name, func(m *marks) { m.Paused = true }); err != nil {
			return err
		}
		return p.whenIdle(ctx, name, func(m marks) error {
			if m.Paused {
				return nil
			}
			return fmt.Errorf("it was resumed, or removed and added again: %w", lease.ErrHeld)
		}, func(*row) error { return nil })
	})
}

// Resume ends a pause. A partition that is not there is no error. Members notice
// at their next plan. It costs a read for each, and a write for each that was
// paused.
func (p *Pool) Resume(ctx context.Context, partitions ...string) error {
	return p.each(ctx, "Resume", partitions, func(ctx context.Context, name string) error {
		return p.mark(ctx, name, func(m *marks) { m.Paused = false })
	})
}

// Reopen makes partitions that are done or failed such that are to be worked on
// again, from the checkpoints that they have, with as many attempts as at first;
// the others stay as they are, and one that is not there is no error. Members
// notice at their next plan. It costs a read for each, and a write for each that
// was done or failed.
func (p *Pool) Reopen(ctx context.Context, partitions ...string) error {
	return p.each(ctx, "Reopen", partitions, p.reopen)
}

// SetWeight sets what partitions count for in balancing, 1 to MaxWeight. A partition
// that is not there is no error, and weighs 1 when it is added. It costs a read
// and a write for each.
func (p *Pool) SetWeight(ctx context.Context, weight int, partitions ...string) error {
	if weight < 1 || weight > MaxWeight {
		return fmt.Errorf("pool: SetWeight(%d): want 1 to %d: %w", weight, MaxWeight, lease.ErrInvalid)
	}
	return p.each(ctx, "SetWeight", partitions, func(ctx context.Context, name string) error {
		return p.mark(ctx, name, func(m *marks) { m.Weight = weight })
	})
}

// each calls do with the names of partitions, several at a time. It waits for
// all, and returns the first error.
func (p *Pool) each(
	ctx context.Context, what string, partitions []string, do func(ctx context.Context, name string) error,
) error {
	for _, name := range partitions {
		if name == "" || !utf8.ValidString(name) || len(p.key(name)) > lease.MaxKeySize {
			return fmt.Errorf("pool: %s: partition %.40q of pool %q: want a name in UTF-8, 1 to %d bytes: %w",
				what, name, p.name, lease.MaxKeySize-len(p.key("")), lease.ErrInvalid)
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(maxRequests)
	for _, name := range partitions {
		group.Go(func() error {
			if err := do(ctx, name); err != nil {
				return fmt.Errorf("pool: %s: partition %q of pool %q: %w", what, name, p.name, err)
			}
			return nil
		})
	}
	return group.Wait()
}
