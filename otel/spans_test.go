package otel_test

import (
	"context"
	"errors"
	"strings"
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

	"github.com/dynalock/dynalock/election"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
	"github.com/dynalock/dynalock/otel"
	"github.com/dynalock/dynalock/pool"
)

// tracer are instruments whose spans are recorded.
func tracer(t *testing.T) (*otel.Instruments, *tracetest.SpanRecorder) {
	t.Helper()
	recorder := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))
	i, _ := newInstruments(t, otel.WithTracerProvider(provider))
	return i, recorder
}

// newClient makes a client that is traced, and closed at the end.
func newClient(t *testing.T, store kv.Store, i *otel.Instruments) *lease.Client {
	t.Helper()
	client, err := lease.New(store, lease.WithTracer(i.Trace))
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
		a, b := newClient(t, store, i), newClient(t, failing, i)

		l, err := a.Acquire(t.Context(), "key")
		require.NoError(t, err)
		token := int64(l.Token())
		requireSpan(t, spans, "dynalock.acquire", codes.Unset, map[string]any{
			"dynalock.key": "key", "dynalock.outcome": "acquired", "dynalock.token": token, "dynalock.taken_over": false,
		})
		_, err = b.TryAcquire(t.Context(), "key")
		require.ErrorIs(t, err, lease.ErrHeld)
		requireSpan(t, spans, "dynalock.acquire", codes.Unset, map[string]any{
			"dynalock.key": "key", "dynalock.outcome": "refused",
		})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_, err = b.Acquire(ctx, "key")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		requireSpan(t, spans, "dynalock.acquire", codes.Unset, map[string]any{
			"dynalock.key": "key", "dynalock.outcome": "gave_up",
		})
		ended := spans.Ended()
		require.Equal(t, 3*time.Second, ended[len(ended)-1].EndTime().Sub(ended[len(ended)-1].StartTime()))
		failure.Store(&kv.ErrTooLarge)
		_, err = b.TryAcquire(t.Context(), "other")
		require.ErrorIs(t, err, kv.ErrTooLarge)
		requireSpan(t, spans, "dynalock.acquire", codes.Error, map[string]any{
			"dynalock.key": "other", "dynalock.outcome": "error",
		})
		failure.Store(nil)

		require.NoError(t, l.Release(t.Context()))
		requireSpan(t, spans, "dynalock.release", codes.Unset, map[string]any{
			"dynalock.key": "key", "dynalock.token": token, "dynalock.outcome": "released",
		})
		l, err = b.Acquire(t.Context(), "key")
		require.NoError(t, err)
		away := errors.New("away")
		failure.Store(&away)
		<-l.Context().Done()
		failure.Store(nil)
		require.ErrorIs(t, l.Release(t.Context()), lease.ErrLost)
		requireSpan(t, spans, "dynalock.release", codes.Error, map[string]any{
			"dynalock.key": "key", "dynalock.token": int64(l.Token()), "dynalock.outcome": "lost",
		})
		taken, err := a.Acquire(t.Context(), "key")
		require.NoError(t, err)
		requireSpan(t, spans, "dynalock.acquire", codes.Unset, map[string]any{
			"dynalock.key": "key", "dynalock.outcome": "acquired", "dynalock.token": int64(taken.Token()),
			"dynalock.taken_over": taken.TakenOver(),
		})
		require.NoError(t, taken.Release(t.Context()))
		require.NoError(t, a.Close(t.Context()))
		_, err = a.Acquire(t.Context(), "key")
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
	client := newClient(t, kv.Instrument(memkv.New(), hook), i)
	l, err := client.Acquire(t.Context(), "key")
	require.NoError(t, err)
	require.NoError(t, l.Release(t.Context()))
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

// told is what a span says: its name, its key and its outcome.
func told(span sdktrace.ReadOnlySpan) string {
	attributes := map[string]string{}
	for _, a := range span.Attributes() {
		attributes[string(a.Key)] = a.Value.AsString()
	}
	return span.Name() + " " + attributes["dynalock.key"] + " " + attributes["dynalock.outcome"]
}

// takeSpans returns what the spans say that have ended since it was called last.
func takeSpans(t *testing.T, recorder *tracetest.SpanRecorder) (all []string) {
	t.Helper()
	for _, span := range recorder.Ended() {
		all = append(all, told(span))
	}
	recorder.Reset()
	return all
}

// Whoever uses a recipe sees the acquires and releases that it makes, under the
// span of the caller.
func TestRecipesMakeSpans(t *testing.T) {
	t.Parallel()
	work := func(context.Context, *lease.Lease) error { return nil }
	const acquired, released = "dynalock.acquire %s acquired", "dynalock.release %s released"
	for name, recipe := range map[string]struct {
		key string // "": it has several
		use func(ctx context.Context, c *lease.Client) error
		// want is what the spans say, with the key left out where there is one.
		want []string
	}{
		"mutex": {
			key:  "m",
			use:  func(ctx context.Context, c *lease.Client) error { return lock.NewMutex(c, "m").Do(ctx, work) },
			want: []string{acquired, released},
		},
		"multi": {
			use: func(ctx context.Context, c *lease.Client) error {
				return lock.NewMulti(c, []string{"a", "b"}).
					Do(ctx, func(context.Context, *lock.MultiLease) error { return nil })
			},
			want: []string{
				"dynalock.acquire a acquired", "dynalock.acquire b acquired",
				"dynalock.release a released", "dynalock.release b released",
			},
		},
		"semaphore": {
			key: "semaphore/s/0",
			use: func(ctx context.Context, c *lease.Client) error {
				return lock.NewSemaphore(c, "s", 1).Do(ctx, work)
			},
			want: []string{acquired, released},
		},
		"writer": {
			key:  "rw/rw/w",
			use:  func(ctx context.Context, c *lease.Client) error { return lock.NewRWMutex(c, "rw").Do(ctx, work) },
			want: []string{acquired, released},
		},
		"once": {
			key: "once/job/slot",
			use: func(ctx context.Context, c *lease.Client) error {
				_, err := lock.NewOnce(c, "job").Do(ctx, "slot", work)
				return err
			},
			want: []string{acquired, released},
		},
		"election": {
			key: "election/e",
			use: func(ctx context.Context, c *lease.Client) error {
				e, err := election.New(c, "e")
				if err != nil {
					return err
				}
				ctx, cancel := context.WithCancel(ctx)
				return e.Run(ctx, func(context.Context, *election.Term) error {
					cancel()
					return nil
				})
			},
			want: []string{acquired, released},
		},
		"pool": {
			key: "pool/p/partition",
			use: func(ctx context.Context, c *lease.Client) error {
				p, err := pool.New(c, "p", func(context.Context, *pool.Work) error { return pool.ErrDone })
				if err != nil {
					return err
				}
				if err := p.Add(ctx, "partition"); err != nil {
					return err
				}
				return p.Run(ctx)
			},
			want: []string{acquired, released},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				i, spans := tracer(t)
				c := newClient(t, memkv.New(), i)
				ctx, caller := sdktrace.NewTracerProvider().Tracer("test").Start(t.Context(), "caller")
				err := recipe.use(ctx, c)
				if !errors.Is(err, context.Canceled) {
					require.NoError(t, err)
				}
				for _, span := range spans.Ended() {
					require.Equal(t, caller.SpanContext().SpanID(), span.Parent().SpanID(), told(span))
				}
				want := make([]string, len(recipe.want))
				for n, text := range recipe.want {
					want[n] = strings.ReplaceAll(text, "%s", recipe.key)
				}
				require.ElementsMatch(t, want, takeSpans(t, spans))
			})
		})
	}
}

// What a recipe could not have is refused, and what was lost says so
// when it is released.
func TestSpansOfRecipesTellWhatWasRefusedAndLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i, spans := tracer(t)
		store := memkv.New()
		a, b := newClient(t, store, i), newClient(t, store, i)
		m := lock.NewMutex(a, "m")
		err := m.Do(t.Context(), func(ctx context.Context, l *lease.Lease) error {
			takeSpans(t, spans)
			_, err := lock.NewMutex(b, "m").TryLock(ctx)
			require.ErrorIs(t, err, lease.ErrHeld)
			_, err = lock.NewSemaphore(b, "s", 1).Acquire(ctx)
			require.NoError(t, err)
			_, err = lock.NewSemaphore(a, "s", 1).TryAcquire(ctx)
			require.ErrorIs(t, err, lease.ErrHeld)
			require.Equal(t, []string{
				"dynalock.acquire m refused", "dynalock.acquire semaphore/s/0 acquired", "dynalock.acquire  refused",
			}, takeSpans(t, spans))
			holder, err := b.Inspect(ctx, "m")
			require.NoError(t, err)
			require.NoError(t, b.Break(t.Context(), holder))
			<-l.Context().Done()
			return nil
		})
		require.ErrorIs(t, err, lease.ErrLost)
		require.Contains(t, takeSpans(t, spans), "dynalock.release m lost")
	})
}
