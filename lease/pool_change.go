package lease

import (
	"context"
	"errors"
	"fmt"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/retry"
	"github.com/dynalock/dynalock/kv"
)

// add makes the row of a partition. If there is one, what the refused write
// shows of it decides: it may be there to stay, or about to be removed, which
// add takes back on the version that it was shown. Whatever else stands in the
// way, an unknown outcome or a row that has gone meanwhile, asks for another
// round: nothing but a row that was written or seen is an answer.
func (p *Pool) add(ctx context.Context, key string) error {
	c, row := p.client, leasePrefix+key
	fresh := leaseRecord{Format: format, Keep: true, Partition: &partitionMarks{Format: partitionFormat}}
	return c.untilKnown(ctx, func() error {
		_, err := c.store.AtomicPut(ctx, row, fresh.options(nil, c.attempts)...)
		switch current, conflict := currentPair(err); {
		case current != nil:
			return p.change(ctx, current, func(m *partitionMarks) { m.Removed = false })
		case err == nil, conflict, errors.Is(err, kv.ErrUncertain):
			return err
		}
		return retry.Stop(err)
	})
}

// mark changes a partition's marks, if there is such a partition. When somebody
// else was faster it pauses, like after a failure, and tries again.
func (p *Pool) mark(ctx context.Context, key string, change func(*partitionMarks)) error {
	return p.client.untilKnown(ctx, func() error {
		pair, err := p.read(ctx, key)
		if err != nil || pair == nil {
			return err
		}
		return p.change(ctx, pair, change)
	})
}

// change writes the marks of a partition over its row, which was read as pair,
// unless they are so already. It does so whoever has the partition: the
// acquisition stays as it is, and its holder adopts the marks with its next
// write. What no repetition would mend is an error to stop at.
func (p *Pool) change(ctx context.Context, pair *kv.KVPair, change func(*partitionMarks)) error {
	record, err := decodePartition(pair)
	if err != nil {
		return retry.Stop(err)
	}
	marks := record.Partition.with(change)
	if *marks == *record.Partition {
		return nil
	}
	record.Partition = marks
	if record.Session != "" {
		record.Token = record.token(pair)
	}
	_, err = p.client.store.AtomicPut(ctx, pair.Key, record.options(pair, p.client.attempts)...)
	if permanent(err) {
		return retry.Stop(err)
	}
	return err
}

// read reads a partition's row, nil if there is none.
func (p *Pool) read(ctx context.Context, key string) (*kv.KVPair, error) {
	pair, err := p.client.store.Get(ctx, leasePrefix+key, p.client.attempts)
	switch {
	case errors.Is(err, kv.ErrKeyNotFound):
		return nil, nil
	case permanent(err):
		return nil, retry.Stop(err)
	}
	return pair, err
}

// decodePartition reads the row of a partition.
func decodePartition(pair *kv.KVPair) (*leaseRecord, error) {
	record, err := decodeLease(pair)
	if err == nil && record.Partition == nil {
		err = &FormatError{Row: pair.Key, Problem: "not a partition of a pool"}
	}
	if err != nil {
		return nil, err
	}
	return record, nil
}

// whenIdle waits until nobody has a partition that was marked, or who has it is
// dead, and calls do with its row; not if there is none. It ends with the error
// of marked as soon as the marks are others. A conflict of what do writes is
// looked into after a pause.
func (p *Pool) whenIdle(
	ctx context.Context, key string, marked func(*partitionMarks) error, do func(*kv.KVPair) error,
) error {
	c := p.client
	began := c.clock.Now()
	for {
		var busy error
		err := c.untilKnown(ctx, func() error {
			pair, err := p.read(ctx, key)
			if err != nil || pair == nil {
				busy = nil
				return err
			}
			record, err := decodePartition(pair)
			if err == nil {
				err = marked(record.Partition)
			}
			if err != nil {
				return retry.Stop(err)
			}
			if busy, err = p.hasOwner(ctx, key, pair, record); err != nil || busy != nil {
				return err
			}
			if err = do(pair); permanent(err) {
				return retry.Stop(err)
			}
			return err
		})
		if err != nil || busy == nil {
			return err
		}
		pause := min(max(c.clock.Now().MonotonicSince(began)/10, c.pollMin), c.pollMax)
		if err := clock.Sleep(ctx, c.clock, pause); err != nil {
			return fmt.Errorf("%w: %w", busy, err)
		}
	}
}

// hasOwner returns who has a partition, as an error, nil if nobody has or who
// has it is dead. That he cannot be asked after is waited out, unless it can
// never be known: that is an error to stop at.
func (p *Pool) hasOwner(ctx context.Context, key string, pair *kv.KVPair, record *leaseRecord) (busy, err error) {
	if record.Session == "" {
		return nil, nil
	}
	dead, _, err := p.client.isDead(ctx, record.Session)
	switch {
	case permanent(err):
		return nil, retry.Stop(err)
	case dead:
		return nil, nil
	}
	held := &HeldError{Holder: record.holder(key, pair)}
	if err != nil {
		return fmt.Errorf("%w, who cannot be asked after: %w", held, err), nil
	}
	return held, nil
}
