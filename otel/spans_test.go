package otel_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/otel"
)

// tracer are instruments whose spans are recorded.
func tracer(t *testing.T) (*otel.Instruments, *tracetest.SpanRecorder) {
	t.Helper()
	recorder := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))
	i, _ := newInstruments(t, otel.WithTracerProvider(provider))
	return i, recorder
}

// newClient makes a client that is closed at the end.
func newClient(t *testing.T, store kv.Store) *lease.Client {
	t.Helper()
	client, err := lease.New(store)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = client.Close(ctx) // the test may have closed it, or left leases on purpose
	})
	return client
}

// last returns the span that ended last: its name, attributes and status.
func last(t *testing.T, recorder *tracetest.SpanRecorder) (name string, attributes map[string]any, status codes.Code) {
	t.Helper()
	ended := recorder.Ended()
	require.NotEmpty(t, ended)
	span := ended[len(ended)-1]
	attributes = map[string]any{}
	for _, a := range span.Attributes() {
		attributes[string(a.Key)] = a.Value.AsInterface()
	}
	return span.Name(), attributes, span.Status().Code
}

func requireSpan(
	t *testing.T, recorder *tracetest.SpanRecorder, name string, status codes.Code, attributes map[string]any,
) {
	t.Helper()
	gotName, gotAttributes, gotStatus := last(t, recorder)
	require.Equal(t, name, gotName)
	require.Equal(t, attributes, gotAttributes)
	require.Equal(t, status, gotStatus)
}

func TestSpansTellTheOutcome(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i, spans := tracer(t)
		store := memkv.New()
		var failure atomic.Pointer[error]
		failing := kv.Instrument(store, func(ctx context.Context, _ kv.Call, next func(context.Context) error) error {
			if err := failure.Load(); err != nil {
				return *err
			}
			return next(ctx)
		})
		a, b := newClient(t, store), newClient(t, failing)

		l, err := i.Acquire(t.Context(), a, "key")
		require.NoError(t, err)
		token := int64(l.Token())
		requireSpan(t, spans, "dynalock.acquire", codes.Unset, map[string]any{
			"dynalock.key": "key", "dynalock.outcome": "acquired", "dynalock.token": token, "dynalock.taken_over": false,
		})
		_, err = i.TryAcquire(t.Context(), b, "key")
		require.ErrorIs(t, err, lease.ErrHeld)
		requireSpan(t, spans, "dynalock.acquire", codes.Unset, map[string]any{
			"dynalock.key": "key", "dynalock.outcome": "refused",
		})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_, err = i.Acquire(ctx, b, "key")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		requireSpan(t, spans, "dynalock.acquire", codes.Unset, map[string]any{
			"dynalock.key": "key", "dynalock.outcome": "gave_up",
		})
		ended := spans.Ended()
		require.Equal(t, 3*time.Second, ended[len(ended)-1].EndTime().Sub(ended[len(ended)-1].StartTime()))
		failure.Store(&kv.ErrTooLarge)
		_, err = i.TryAcquire(t.Context(), b, "other")
		require.ErrorIs(t, err, kv.ErrTooLarge)
		requireSpan(t, spans, "dynalock.acquire", codes.Error, map[string]any{
			"dynalock.key": "other", "dynalock.outcome": "error",
		})
		failure.Store(nil)

		require.NoError(t, i.Release(t.Context(), l))
		requireSpan(t, spans, "dynalock.release", codes.Unset, map[string]any{
			"dynalock.key": "key", "dynalock.token": token, "dynalock.outcome": "released",
		})
		l, err = i.Acquire(t.Context(), b, "key")
		require.NoError(t, err)
		away := errors.New("away")
		failure.Store(&away)
		<-l.Context().Done()
		failure.Store(nil)
		require.ErrorIs(t, i.Release(t.Context(), l), lease.ErrLost)
		requireSpan(t, spans, "dynalock.release", codes.Error, map[string]any{
			"dynalock.key": "key", "dynalock.token": int64(l.Token()), "dynalock.outcome": "lost",
		})
		taken, err := i.Acquire(t.Context(), a, "key")
		require.NoError(t, err)
		requireSpan(t, spans, "dynalock.acquire", codes.Unset, map[string]any{
			"dynalock.key": "key", "dynalock.outcome": "acquired", "dynalock.token": int64(taken.Token()),
			"dynalock.taken_over": taken.TakenOver(),
		})
		require.NoError(t, taken.Release(t.Context()))
		require.NoError(t, a.Close(t.Context()))
		_, err = i.Acquire(t.Context(), a, "key")
		require.ErrorIs(t, err, lease.ErrClosed)
		requireSpan(t, spans, "dynalock.acquire", codes.Unset, map[string]any{
			"dynalock.key": "key", "dynalock.outcome": "gave_up",
		})
	})
}

// A hook of the store sees the span, so that requests can be its children.
func TestTheStoreIsCalledUnderTheSpan(t *testing.T) {
	t.Parallel()
	i, spans := tracer(t)
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	var mu sync.Mutex
	parents := map[string]bool{}
	hook := func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
		if call.Key == "lease/key" {
			ctx, span := provider.Tracer("test").Start(ctx, call.Op)
			defer span.End()
			mu.Lock()
			parents[span.(sdktrace.ReadOnlySpan).Parent().SpanID().String()] = true
			mu.Unlock()
			return next(ctx)
		}
		return next(ctx)
	}
	client := newClient(t, kv.Instrument(memkv.New(), hook))
	l, err := i.Acquire(t.Context(), client, "key")
	require.NoError(t, err)
	require.NoError(t, i.Release(t.Context(), l))
	var own []string
	for _, span := range spans.Ended() {
		if span.Name() == "dynalock.acquire" || span.Name() == "dynalock.release" {
			own = append(own, span.SpanContext().SpanID().String())
			require.Contains(t, span.Attributes(), attribute.String("dynalock.key", "key"))
		}
	}
	require.Len(t, own, 2)
	for _, id := range own {
		require.Contains(t, parents, id)
	}
}

func TestNilIsRefusedBeforeAnythingIsSent(t *testing.T) {
	t.Parallel()
	i, spans := tracer(t)
	_, err := i.Acquire(t.Context(), nil, "key")
	require.ErrorIs(t, err, lease.ErrInvalid)
	_, err = i.TryAcquire(t.Context(), nil, "key")
	require.ErrorIs(t, err, lease.ErrInvalid)
	require.ErrorIs(t, i.Release(t.Context(), nil), lease.ErrInvalid)
	require.Empty(t, spans.Ended())
}
