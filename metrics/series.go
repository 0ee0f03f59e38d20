package metrics

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/dynalock/dynalock/internal/meter"
)

// series is one metric with one set of labels.
type series struct {
	// n is a counter's value.
	n atomic.Int64
	// buckets count, for a histogram, the durations up to each bound and, last,
	// those beyond. sum is of all of them.
	buckets []atomic.Uint64
	sum     atomic.Int64
}

func newSeries(i *meter.Instrument) *series {
	s := &series{}
	if i.Kind == meter.Histogram {
		s.buckets = make([]atomic.Uint64, len(i.Bounds)+1)
	}
	return s
}

// record adds a duration to a histogram. Its sum may be seen a moment before its
// bucket.
func (s *series) record(i *meter.Instrument, d time.Duration) {
	bucket, _ := slices.BinarySearch(i.Bounds, d.Seconds()) // that of a bound contains it
	s.sum.Add(int64(d))
	s.buckets[bucket].Add(1)
}
