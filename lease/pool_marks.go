package lease

import (
	"time"

	"github.com/dynalock/dynalock/kv"
)

// partitionFormat is the only format of a partition's marks there is so far.
const partitionFormat = 1

// partitionMarks is what the row of a pool's partition says beside the checkpoint, which is the row's value. Marks are never changed: a
// change is a copy. Others than the holder may change a held row's marks, leaving its acquisition as it is, so that the holder adopts them.
type partitionMarks struct {
	Format int `json:"f"`
	// Done: finished for good. Paused: nobody is to work on it. Removed: nor ever again, and the row is about to go.
	Done    bool `json:"done,omitempty"`
	Paused  bool `json:"paused,omitempty"`
	Removed bool `json:"removed,omitempty"`
	// Weight is what it counts for in balancing, 0: 1.
	Weight int `json:"weight,omitempty"`
	// Saved is when the checkpoint was written, by its writer's wall clock, for people only.
	Saved time.Time `json:"saved_at,omitzero"`
}

// idle reports whether nobody is to work on the partition.
func (m *partitionMarks) idle() bool { return m.Done || m.Paused || m.Removed }

// finished reports whether the row is that of a partition that is done.
func (r *leaseRecord) finished() bool { return r.Partition != nil && r.Partition.Done }

func (m *partitionMarks) weight() int { return max(1, m.Weight) }

// with returns a changed copy.
func (m *partitionMarks) with(change func(*partitionMarks)) *partitionMarks {
	changed := *m
	change(&changed)
	return &changed
}

// saved returns the marks of a checkpoint written now; nil for what is no partition.
func (m *partitionMarks) saved(now time.Time) *partitionMarks {
	if m == nil {
		return nil
	}
	return m.with(func(m *partitionMarks) { m.Saved = now })
}

// merge returns the marks to write over a row of the same acquisition that somebody has changed meanwhile: those, and what only the
// holder says, which m has.
func (m *partitionMarks) merge(current *kv.KVPair) *partitionMarks {
	record, err := decodeLease(current)
	if m == nil || err != nil || record.Partition == nil {
		return m
	}
	return record.Partition.with(func(theirs *partitionMarks) {
		theirs.Done = m.Done
		if m.Saved.After(theirs.Saved) {
			theirs.Saved = m.Saved
		}
	})
}
