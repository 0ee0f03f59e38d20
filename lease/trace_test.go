package lease_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// calls is a tracer that remembers how calls ended.
type calls []string

// tracedBy is what the contexts of its calls carry.
type tracedBy struct{}

func (c *calls) trace(ctx context.Context, call lease.Call) (context.Context, func(*lease.Lease, error)) {
	return context.WithValue(ctx, tracedBy{}, call.Op), func(l *lease.Lease, err error) {
		*c = append(*c, fmt.Sprintf("%s %q: %q, %t", call.Op, call.Key, l.Key(), err != nil))
	}
}

func TestATracerIsToldOfEachCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var traced calls
		a, link := w.client("a", lease.WithTracer(traced.trace))
		b, _ := w.client("b")
		under := map[any]bool{}
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Key == "lease/key" {
				under[ctx.Value(tracedBy{})] = true
			}
			return next(ctx)
		})
		l, err := a.Acquire(t.Context(), "key")
		require.NoError(t, err)
		require.NoError(t, l.Release(t.Context()))
		require.NoError(t, l.Release(t.Context()), "told of once")
		require.Equal(t, map[any]bool{"Acquire": true, "Release": true}, under)
		link.SetIntercept(nil)

		l, err = a.AcquireAny(t.Context(), []string{"one"})
		require.NoError(t, err)
		_, err = a.TryAcquireAny(t.Context(), []string{"one"})
		require.ErrorIs(t, err, lease.ErrHeld)
		require.NoError(t, l.Release(t.Context()))
		w.acquire(b, "key")
		_, err = a.TryAcquire(t.Context(), "key")
		require.ErrorIs(t, err, lease.ErrHeld)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = a.Acquire(ctx, "key")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		l, err = a.Acquire(t.Context(), "kept", lease.KeepValue())
		require.NoError(t, err)
		require.NoError(t, l.ReleaseWith(t.Context(), []byte("value")))
		require.Equal(t, calls{
			`Acquire "key": "key", false`, `Release "key": "key", false`,
			`AcquireAny "": "one", false`, `TryAcquireAny "": "", true`, `Release "one": "one", false`,
			`TryAcquire "key": "", true`, `Acquire "key": "", true`,
			`Acquire "kept": "kept", false`, `Release "kept": "kept", false`,
		}, traced)
	})
}

func TestWithTracerRefusesNil(t *testing.T) {
	t.Parallel()
	_, err := lease.New(newWorld(t).store, lease.WithTracer(nil))
	require.ErrorIs(t, err, lease.ErrInvalid)
	require.ErrorContains(t, err, "WithTracer(nil): want a function")
}
