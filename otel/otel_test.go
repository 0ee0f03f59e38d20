package otel_test

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/otlptranslator"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/dynalock/dynalock/internal/promtext"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/metrics"
	"github.com/dynalock/dynalock/otel"
	"github.com/dynalock/dynalock/pool"
)

// newInstruments makes instruments with a reader that keeps all in memory.
func newInstruments(t *testing.T, options ...otel.Option) (*otel.Instruments, *sdk.ManualReader) {
	t.Helper()
	reader := sdk.NewManualReader()
	provider := sdk.NewMeterProvider(sdk.WithReader(reader))
	i, err := otel.New(append([]otel.Option{otel.WithMeterProvider(provider)}, options...)...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, i.Close()) })
	return i, reader
}

// family is a metric as Prometheus shows it.
type family struct {
	kind, help string
	values     map[string]float64
}

// collected is what the reader has, as OpenTelemetry's translation shows it to
// Prometheus.
func collected(t *testing.T, reader *sdk.ManualReader) map[string]family {
	t.Helper()
	var all metricdata.ResourceMetrics
	require.NoError(t, reader.Collect(context.Background(), &all))
	namer := otlptranslator.MetricNamer{WithMetricSuffixes: true}
	families := map[string]family{}
	for _, scope := range all.ScopeMetrics {
		require.Equal(t, otel.Scope, scope.Scope.Name)
		for _, m := range scope.Metrics {
			metric := otlptranslator.Metric{Name: m.Name, Unit: m.Unit}
			f := family{kind: "gauge", help: m.Description, values: map[string]float64{}}
			add := func(suffix string, attributes attribute.Set, le string, value float64) {
				s := promtext.Sample{Name: suffix, Labels: map[string]string{}}
				for _, a := range attributes.ToSlice() {
					s.Labels[string(a.Key)] = a.Value.AsString()
				}
				if le != "" {
					s.Labels["le"] = le
				}
				f.values[s.String()] = value
			}
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				metric.Type = otlptranslator.MetricTypeNonMonotonicCounter
				if data.IsMonotonic {
					f.kind, metric.Type = "counter", otlptranslator.MetricTypeMonotonicCounter
				}
				for _, p := range data.DataPoints {
					add("", p.Attributes, "", float64(p.Value))
				}
			case metricdata.Gauge[float64]:
				metric.Type = otlptranslator.MetricTypeGauge
				for _, p := range data.DataPoints {
					add("", p.Attributes, "", p.Value)
				}
			case metricdata.Histogram[float64]:
				f.kind, metric.Type = "histogram", otlptranslator.MetricTypeHistogram
				for _, p := range data.DataPoints {
					count := uint64(0)
					for n, bucket := range p.BucketCounts {
						count += bucket
						le := "+Inf"
						if n < len(p.Bounds) {
							le = fmt.Sprint(p.Bounds[n])
						}
						add("_bucket", p.Attributes, le, float64(count))
					}
					add("_count", p.Attributes, "", float64(p.Count))
					add("_sum", p.Attributes, "", p.Sum)
				}
			default:
				require.Fail(t, "another kind", "%s: %T", m.Name, m.Data)
			}
			name, err := namer.Build(metric)
			require.NoError(t, err)
			families[name] = f
		}
	}
	return families
}

// exported is what package metrics shows.
func exported(t *testing.T, m *metrics.Metrics) map[string]family {
	t.Helper()
	var text strings.Builder
	require.NoError(t, m.WritePrometheus(&text))
	parsed, err := promtext.Parse(text.String())
	require.NoError(t, err)
	families := map[string]family{}
	for _, p := range parsed {
		f := family{kind: p.Type, help: p.Help, values: map[string]float64{}}
		for _, s := range p.Samples {
			s.Name = strings.TrimPrefix(s.Name, p.Name)
			f.values[s.String()] = s.Value
		}
		families[p.Name] = f
	}
	return families
}

// life is all that can happen to a process.
func life(observe lease.Observer, hook kv.Hook) {
	broken := errors.New("broken")
	for _, e := range []lease.Event{
		{Type: lease.EventSessionOpened, Session: "s", TTL: 10 * time.Second, Remaining: 9 * time.Second},
		{Type: lease.EventHeartbeat, Session: "s", Remaining: 9 * time.Second, Took: 20 * time.Millisecond},
		{Type: lease.EventJeopardy, Session: "s", Remaining: 8 * time.Second, Err: broken},
		{Type: lease.EventWaiting, Key: "a/1", Call: 1},
		{Type: lease.EventWaiting, Key: "a/1", Call: 2},
		{Type: lease.EventAcquired, Key: "a/1", Session: "s", Call: 1, Waited: 3 * time.Second, TakenOver: true},
		{Type: lease.EventRefused, Key: "a/1", Call: 3, Waited: time.Millisecond},
		{Type: lease.EventGaveUp, Key: "b/1", Call: 4, Err: broken},
		{Type: lease.EventAcquired, Key: "b/1", Session: "s", Call: 5},
		{Type: lease.EventReleased, Key: "b/1", Session: "s", Held: time.Hour},
		{Type: lease.EventAcquired, Key: "b/2", Session: "s", Call: 6},
		{Type: lease.EventLost, Key: "b/2", Session: "s", Held: time.Minute, Reason: lease.ReasonMaxHold},
		{Type: lease.EventAcquired, Key: "election/e", Session: "s", Call: 7},
		{Type: lease.EventWaiting, Key: "election/f", Call: 8},
		{Type: lease.EventGaveUp, Key: "election/f", Call: 8, Waited: time.Second},
		{Type: lease.EventAcquired, Key: "pool/p/1", Session: "s", Call: 9},
		{Type: pool.EventFailed, Key: "pool/p/1", Session: "s", Err: broken},
		{Type: lease.EventSessionOverdue, Session: "x"},
		{Type: lease.EventSessionKilled, Session: "x", Dropped: 3},
		{Type: lease.EventSessionOpened, Session: "t", TTL: 10 * time.Second, Remaining: time.Second},
		{Type: lease.EventSessionLost, Session: "t", Reason: lease.ReasonKilled},
	} {
		e.Time = time.Now()
		observe(e)
	}
	for _, err := range []error{nil, kv.ErrThrottled, kv.ErrKeyExists} {
		_ = hook(context.Background(), kv.Call{Op: "AtomicPut", Key: "lease/a/1"}, func(context.Context) error {
			time.Sleep(30 * time.Millisecond)
			return err
		})
	}
}

func partitions(yield func(*pool.Partition, error) bool) {
	_ = yield(&pool.Partition{Name: "1", Session: "s"}, nil) && yield(&pool.Partition{Name: "2", Done: true}, nil)
}

// One dashboard serves both: names, types, attributes, buckets and values are the
// same.
func TestItShowsWhatPackageMetricsShows(t *testing.T) {
	t.Parallel()
	group := func(key string) string {
		group, _, _ := strings.Cut(key, "/")
		return group
	}
	for name, labels := range map[string]struct {
		otel    []otel.Option
		metrics []metrics.Option
	}{
		"plain":   {},
		"labeled": {[]otel.Option{otel.WithKeyLabel(group)}, []metrics.Option{metrics.WithKeyLabel(group)}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i, reader := newInstruments(t, labels.otel...)
				m, err := metrics.New(labels.metrics...)
				require.NoError(t, err)
				require.Equal(t, exported(t, m), collected(t, reader), "from the start")
				life(i.Observer(), i.Hook)
				require.NoError(t, i.CountPartitions("p", partitions))
				ours := m.Observer()
				life(ours, m.Hook)
				require.NoError(t, m.CountPartitions("p", partitions))
				want := exported(t, m)
				require.Len(t, want, 21, "each metric")
				got := collected(t, reader)
				for name, f := range want {
					require.Contains(t, got, name)
					g := got[name]
					require.Equal(t, []string{f.kind, f.help}, []string{g.kind, g.help}, name)
					require.Len(t, g.values, len(f.values), name)
					for series, value := range f.values {
						require.Contains(t, g.values, series, name)
						require.InDelta(t, value, g.values[series], 0.2, "%s %s", name, series) // the one life began later
					}
				}
				require.Len(t, got, len(want))
			})
		})
	}
}

func TestKeysAreNoAttributesUnlessTheyAreLabelled(t *testing.T) {
	t.Parallel()
	i, reader := newInstruments(t)
	life(i.Observer(), i.Hook)
	for name, f := range collected(t, reader) {
		for series := range f.values {
			require.NotContains(t, series, "key=", name)
			require.NotContains(t, series, "a/1", name)
		}
	}
}

func TestClosedInstrumentsShowNoGauges(t *testing.T) {
	t.Parallel()
	reader := sdk.NewManualReader()
	i, err := otel.New(otel.WithMeterProvider(sdk.NewMeterProvider(sdk.WithReader(reader))))
	require.NoError(t, err)
	life(i.Observer(), i.Hook)
	require.Contains(t, collected(t, reader), "dynalock_session_trust_seconds")
	require.NoError(t, i.Close())
	require.NoError(t, i.Close())
	require.NotContains(t, collected(t, reader), "dynalock_session_trust_seconds")
	require.Contains(t, collected(t, reader), "dynalock_leases_held")
}

func TestNewRefusesWhatIsNoOption(t *testing.T) {
	t.Parallel()
	for want, option := range map[string]otel.Option{
		"option 0 of New is nil: want an Option":         nil,
		"WithKeyLabel(nil): want a function":             otel.WithKeyLabel(nil),
		"WithMeterProvider(nil): want a MeterProvider":   otel.WithMeterProvider(nil),
		"WithTracerProvider(nil): want a TracerProvider": otel.WithTracerProvider(nil),
	} {
		_, err := otel.New(option)
		require.ErrorIs(t, err, lease.ErrInvalid)
		require.ErrorContains(t, err, want)
	}
	i, err := otel.New() // on the global providers, which do nothing
	require.NoError(t, err)
	life(i.Observer(), i.Hook)
	require.NoError(t, i.Close())
	require.ErrorIs(t, i.CountPartitions("a/b", partitions), lease.ErrInvalid)
}

func TestItUsesTheAPIOnly(t *testing.T) {
	t.Parallel()
	deps, err := exec.Command("go", "list", "-deps", ".").Output()
	require.NoError(t, err)
	require.Contains(t, string(deps), "go.opentelemetry.io/otel/metric\n")
	for dep := range strings.Lines(string(deps)) {
		require.NotContains(t, dep, "go.opentelemetry.io/otel/sdk")
		require.NotContains(t, dep, "prometheus")
	}
}
