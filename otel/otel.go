package otel

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/dynalock/dynalock/internal/meter"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/pool"
)

// Scope is the name of the instrumentation scope.
const Scope = "github.com/dynalock/dynalock/otel"

// Instruments measures, for one process. Make it with New, close it with Close.
// It is safe for concurrent use and starts no goroutine.
type Instruments struct {
	meter      *meter.Meter
	tracer     trace.Tracer
	registered metric.Registration
}

// Option is an option of New.
type Option func(*settings) error

type settings struct {
	meters   metric.MeterProvider
	tracers  trace.TracerProvider
	keyLabel func(key string) string
}

// WithMeterProvider sets who makes the instruments. Default: the global
// MeterProvider.
func WithMeterProvider(provider metric.MeterProvider) Option {
	return func(s *settings) error {
		if provider == nil {
			return fmt.Errorf("otel: WithMeterProvider(nil): want a MeterProvider: %w", lease.ErrInvalid)
		}
		s.meters = provider
		return nil
	}
}

// WithTracerProvider sets who makes the spans. Default: the global
// TracerProvider.
func WithTracerProvider(provider trace.TracerProvider) Option {
	return func(s *settings) error {
		if provider == nil {
			return fmt.Errorf("otel: WithTracerProvider(nil): want a TracerProvider: %w", lease.ErrInvalid)
		}
		s.tracers = provider
		return nil
	}
}

// WithKeyLabel gives acquires, holds and leases an attribute "key", with what
// label makes of the lease's key. It should make few of many: each value costs a
// series of each of these metrics. Where it returns "", the attribute is left
// out. It is called for each event, so it should not wait. Default: no such
// attribute.
func WithKeyLabel(label func(key string) string) Option {
	return func(s *settings) error {
		if label == nil {
			return fmt.Errorf("otel: WithKeyLabel(nil): want a function: %w", lease.ErrInvalid)
		}
		s.keyLabel = label
		return nil
	}
}

// New makes the instruments. It does no I/O. Its errors match lease.ErrInvalid,
// or are the MeterProvider's.
func New(options ...Option) (*Instruments, error) {
	s := settings{meters: otel.GetMeterProvider(), tracers: otel.GetTracerProvider()}
	for n, option := range options {
		if option == nil {
			return nil, fmt.Errorf("otel: option %d of New is nil: want an Option: %w", n, lease.ErrInvalid)
		}
		if err := option(&s); err != nil {
			return nil, err
		}
	}
	sink, err := newSink(s.meters.Meter(Scope))
	if err != nil {
		return nil, fmt.Errorf("otel: making the instruments: %w", err)
	}
	i := &Instruments{meter: meter.New(sink, s.keyLabel), tracer: s.tracers.Tracer(Scope)}
	if i.registered, err = sink.register(i.meter); err != nil {
		return nil, fmt.Errorf("otel: making the instruments: %w", err)
	}
	return i, nil
}

// Close ends the gauges: nobody asks for them any more. The counters stay as
// they are. Its error is the MeterProvider's. Closing again returns nil.
func (i *Instruments) Close() error { return i.registered.Unregister() }

// Observer returns an observer for one client, for lease.WithObserver. Call it
// once for each client of the process. An observer of your own can call it.
func (i *Instruments) Observer() lease.Observer { return i.meter.Observer() }

// Hook is a kv.Hook, for kv.Instrument. It measures each operation with all
// attempts of its driver. Watches are not measured. Where heartbeats have a store
// of their own (lease.WithHeartbeatStore), that wants the hook too.
func (i *Instruments) Hook(ctx context.Context, call kv.Call, next func(context.Context) error) error {
	return i.meter.Request(ctx, call, next)
}

// CountPartitions reads a listing of the pool called name, such as
// pool.Pool.Partitions returns, and keeps what it shows until the next. See
// metrics.Metrics.CountPartitions, which says what it costs and how often to
// call it.
//
// On an error, of the listing or one that matches lease.ErrInvalid, the gauges
// stay as they were.
func (i *Instruments) CountPartitions(name string, partitions iter.Seq2[*pool.Partition, error]) error {
	if err := i.meter.CountPartitions(name, partitions); err != nil {
		return fmt.Errorf("otel: %w", err)
	}
	return nil
}

// sink hands measurements on to OpenTelemetry's instruments.
type sink struct {
	meter      metric.Meter
	counters   map[*meter.Instrument]metric.Int64Counter
	upDown     map[*meter.Instrument]metric.Int64UpDownCounter
	histograms map[*meter.Instrument]metric.Float64Histogram
	gauges     map[*meter.Instrument]metric.Float64ObservableGauge
}

func newSink(m metric.Meter) (*sink, error) {
	s := &sink{
		meter:      m,
		counters:   map[*meter.Instrument]metric.Int64Counter{},
		upDown:     map[*meter.Instrument]metric.Int64UpDownCounter{},
		histograms: map[*meter.Instrument]metric.Float64Histogram{},
		gauges:     map[*meter.Instrument]metric.Float64ObservableGauge{},
	}
	var errs []error
	for _, i := range meter.All {
		var err error
		help, unit := metric.WithDescription(i.Help), metric.WithUnit(i.Unit)
		switch i.Kind {
		case meter.Counter:
			s.counters[i], err = m.Int64Counter(i.Name, help, unit)
		case meter.UpDownCounter:
			s.upDown[i], err = m.Int64UpDownCounter(i.Name, help, unit)
		case meter.Histogram:
			s.histograms[i], err = m.Float64Histogram(i.Name, help, unit, metric.WithExplicitBucketBoundaries(i.Bounds...))
		case meter.Gauge:
			s.gauges[i], err = m.Float64ObservableGauge(i.Name, help, unit)
		}
		errs = append(errs, err)
	}
	return s, errors.Join(errs...)
}

// register has the gauges of m asked for when somebody looks.
func (s *sink) register(m *meter.Meter) (metric.Registration, error) {
	var all []metric.Observable
	for _, gauge := range s.gauges {
		all = append(all, gauge)
	}
	return s.meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		m.Gauges(func(i *meter.Instrument, value float64, labels meter.Labels) {
			o.ObserveFloat64(s.gauges[i], value, attributes(i, labels))
		})
		return nil
	}, all...)
}

func (s *sink) Add(i *meter.Instrument, n int64, labels meter.Labels) {
	if i.Kind == meter.Counter {
		s.counters[i].Add(context.Background(), n, attributes(i, labels))
		return
	}
	s.upDown[i].Add(context.Background(), n, attributes(i, labels))
}

func (s *sink) Record(i *meter.Instrument, d time.Duration, labels meter.Labels) {
	s.histograms[i].Record(context.Background(), d.Seconds(), attributes(i, labels))
}

func attributes(i *meter.Instrument, labels meter.Labels) metric.MeasurementOption {
	var all []attribute.KeyValue
	for n, name := range i.Attributes {
		all = append(all, attribute.String(name, []string{labels.First, labels.Second}[n]))
	}
	if labels.Key != "" {
		all = append(all, attribute.String(meter.KeyAttribute, labels.Key))
	}
	return metric.WithAttributeSet(attribute.NewSet(all...))
}
