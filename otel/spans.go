package otel

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/dynalock/dynalock/lease"
)

// Trace is a lease.Tracer, for lease.WithTracer. It makes a span dynalock.acquire
// of each acquire and dynalock.release of each release of the client, those of
// mutexes, semaphores, elections and pools too. A span's parent is the one in the
// context that the caller passed. The outcome of an acquire is acquired; refused
// where a try found the key held; gave_up where the context ended or the client
// was closed; or error. That of a release is released, lost where the lease had
// been lost before, or error.
func (i *Instruments) Trace(ctx context.Context, call lease.Call) (context.Context, func(*lease.Lease, error)) {
	name, end := "dynalock.acquire", acquired
	if call.Op == "Release" {
		name, end = "dynalock.release", released
	}
	ctx, span := i.tracer.Start(ctx, name)
	if call.Key != "" {
		span.SetAttributes(attribute.String("dynalock.key", call.Key))
	}
	return ctx, func(l *lease.Lease, err error) {
		defer span.End()
		end(ctx, span, l, err)
	}
}

// acquired says how an acquire ended.
func acquired(ctx context.Context, span trace.Span, l *lease.Lease, err error) {
	switch {
	case err == nil:
		outcome(span, "acquired", nil)
		span.SetAttributes(key(l), token(l), attribute.Bool("dynalock.taken_over", l.TakenOver()))
	case ctx.Err() != nil, errors.Is(err, lease.ErrClosed):
		outcome(span, "gave_up", nil)
	case errors.Is(err, lease.ErrHeld):
		outcome(span, "refused", nil)
	default:
		outcome(span, "error", err)
	}
}

// released says how a release ended.
func released(_ context.Context, span trace.Span, l *lease.Lease, err error) {
	span.SetAttributes(token(l))
	switch {
	case err == nil:
		outcome(span, "released", nil)
	case errors.Is(err, lease.ErrLost):
		outcome(span, "lost", err)
	default:
		outcome(span, "error", err)
	}
}

// key is what was acquired, also by who wanted any of several keys.
func key(l *lease.Lease) attribute.KeyValue { return attribute.String("dynalock.key", l.Key()) }

// token is the fencing token: microseconds since 1970 or fewer, so it fits.
func token(l *lease.Lease) attribute.KeyValue {
	return attribute.Int64("dynalock.token", int64(l.Token()))
}

func outcome(span trace.Span, outcome string, err error) {
	span.SetAttributes(attribute.String("dynalock.outcome", outcome))
	if err != nil {
		span.RecordError(err)
		span.SetStatus(codes.Error, err.Error())
	}
}
