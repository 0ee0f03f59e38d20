package metrics_test

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/metrics"
)

// BenchmarkEvents counts an acquire and its release.
func BenchmarkEvents(b *testing.B) {
	m, err := metrics.New()
	require.NoError(b, err)
	observe := m.Observer()
	b.ReportAllocs()
	for b.Loop() {
		observe(lease.Event{Type: lease.EventAcquired, Key: "key", Session: "s", Waited: time.Millisecond})
		observe(lease.Event{Type: lease.EventReleased, Key: "key", Session: "s", Held: time.Second})
	}
}

// BenchmarkRequest counts a request that takes no time.
func BenchmarkRequest(b *testing.B) {
	m, err := metrics.New()
	require.NoError(b, err)
	next := func(context.Context) error { return nil }
	b.ReportAllocs()
	for b.Loop() {
		_ = m.Hook(b.Context(), kv.Call{Op: "Get", Key: "key"}, next)
	}
}

// BenchmarkWritePrometheus is one scrape.
func BenchmarkWritePrometheus(b *testing.B) {
	m, err := metrics.New()
	require.NoError(b, err)
	m.Observer()(lease.Event{Type: lease.EventAcquired, Key: "key"})
	for b.Loop() {
		require.NoError(b, m.WritePrometheus(io.Discard))
	}
}
