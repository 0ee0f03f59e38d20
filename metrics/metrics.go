package metrics

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/dynalock/dynalock/internal/meter"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/pool"
)

// Bounds of what is told apart.
const (
	// MaxSeries is how many combinations of attributes one metric has at most. What
	// comes later is counted under the key "other".
	MaxSeries = 1_000
	// MaxNames is how many elections are shown at most, and how many pools. Those
	// that come later are left out, but their leases are counted.
	MaxNames = meter.MaxNames
)

// Metrics counts, for one process. Make it with New. It is safe for concurrent
// use, starts no goroutine and sends nothing.
type Metrics struct {
	meter *meter.Meter

	mu     sync.RWMutex
	series map[*meter.Instrument]map[meter.Labels]*series
}

// Option is an option of New.
type Option func(*settings) error

type settings struct {
	keyLabel func(key string) string
}

// WithKeyLabel gives acquires, holds and leases an attribute "key", with what
// label makes of the lease's key. It should make few of many: each value costs a
// series of each of these metrics, and beyond MaxSeries all are "other". Where it
// returns "", the attribute is left out. It is called for each event, so it should
// neither wait nor allocate. Default: no such attribute.
func WithKeyLabel(label func(key string) string) Option {
	return func(s *settings) error {
		if label == nil {
			return fmt.Errorf("metrics: WithKeyLabel(nil): want a function: %w", lease.ErrInvalid)
		}
		s.keyLabel = label
		return nil
	}
}

// New makes a Metrics. It does no I/O. Its errors match lease.ErrInvalid.
func New(options ...Option) (*Metrics, error) {
	var s settings
	for i, option := range options {
		if option == nil {
			return nil, fmt.Errorf("metrics: option %d of New is nil: want an Option: %w", i, lease.ErrInvalid)
		}
		if err := option(&s); err != nil {
			return nil, err
		}
	}
	m := &Metrics{series: map[*meter.Instrument]map[meter.Labels]*series{}}
	for _, i := range meter.All {
		m.series[i] = map[meter.Labels]*series{}
	}
	m.meter = meter.New(sink{m}, s.keyLabel)
	return m, nil
}

// Observer returns an observer for one client, for lease.WithObserver. Call it
// once for each client of the process. An observer of your own can call it:
//
//	count := m.Observer()
//	lease.WithObserver(func(e lease.Event) { count(e); mine(e) })
//
// Should yours be so slow that events are dropped, then leases held and acquires
// waiting are wrong by as many.
func (m *Metrics) Observer() lease.Observer { return m.meter.Observer() }

// Hook is a kv.Hook, for kv.Instrument. It measures each operation with all
// attempts of its driver: an operation is throttled, say, if every attempt was.
// Watches are not measured. Where heartbeats have a store of their own
// (lease.WithHeartbeatStore), that wants the hook too.
func (m *Metrics) Hook(ctx context.Context, call kv.Call, next func(context.Context) error) error {
	return m.meter.Request(ctx, call, next)
}

// CountPartitions reads a listing of the pool called name, such as
// pool.Pool.Partitions returns, and keeps what it shows until the next. The
// listing costs what its documentation says, so call it every ten seconds, say,
// in one process of the pool.
//
// The age of checkpoints is how long the listings have shown the same one: no
// clock is compared with another machine's. A partition that is held and has no
// checkpoint counts from the first listing that showed it so.
//
// On an error, of the listing or one that matches lease.ErrInvalid, the gauges
// stay as they were.
func (m *Metrics) CountPartitions(name string, partitions iter.Seq2[*pool.Partition, error]) error {
	if err := m.meter.CountPartitions(name, partitions); err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	return nil
}

// sink keeps the measurements of a Metrics.
type sink struct{ m *Metrics }

func (s sink) Add(i *meter.Instrument, n int64, labels meter.Labels) { s.m.of(i, labels).n.Add(n) }

func (s sink) Record(i *meter.Instrument, d time.Duration, labels meter.Labels) {
	s.m.of(i, labels).record(i, d)
}

// of returns the series of an instrument, and makes it the first time.
func (m *Metrics) of(i *meter.Instrument, labels meter.Labels) *series {
	m.mu.RLock()
	s := m.series[i][labels]
	m.mu.RUnlock()
	if s != nil {
		return s
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	all := m.series[i]
	if len(all) >= MaxSeries {
		labels.Key = "other" // without keys there are never so many
	}
	if s = all[labels]; s == nil {
		s = newSeries(i)
		all[labels] = s
	}
	return s
}
