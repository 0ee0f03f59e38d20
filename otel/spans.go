package otel

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/dynalock/dynalock/lease"
)

// Acquire is client.Acquire under a span dynalock.acquire. Its results are those
// of client.Acquire, and a nil client is an error that matches lease.ErrInvalid.
// The span's outcome is acquired, gave_up where ctx ended or the client was
// closed, or error.
func (i *Instruments) Acquire(
	ctx context.Context, client *lease.Client, key string, options ...lease.AcquireOption,
) (*lease.Lease, error) {
	return i.acquire(ctx, client, key, func(ctx context.Context) (*lease.Lease, error) {
		return client.Acquire(ctx, key, options...)
	})
}

// TryAcquire is client.TryAcquire under a span dynalock.acquire. Its results are
// those of client.TryAcquire, and a nil client is an error that matches
// lease.ErrInvalid. The span's outcome is acquired, refused where somebody holds
// the key, gave_up where ctx ended or the client was closed, or error.
func (i *Instruments) TryAcquire(
	ctx context.Context, client *lease.Client, key string, options ...lease.AcquireOption,
) (*lease.Lease, error) {
	return i.acquire(ctx, client, key, func(ctx context.Context) (*lease.Lease, error) {
		return client.TryAcquire(ctx, key, options...)
	})
}

func (i *Instruments) acquire(
	ctx context.Context, client *lease.Client, key string, acquire func(context.Context) (*lease.Lease, error),
) (*lease.Lease, error) {
	if client == nil {
		return nil, fmt.Errorf("otel: acquiring %q: want a client, not nil: %w", key, lease.ErrInvalid)
	}
	ctx, span := i.tracer.Start(ctx, "dynalock.acquire", trace.WithAttributes(attribute.String("dynalock.key", key)))
	defer span.End()
	l, err := acquire(ctx)
	switch {
	case err == nil:
		outcome(span, "acquired", nil)
		span.SetAttributes(token(l), attribute.Bool("dynalock.taken_over", l.TakenOver()))
	case ctx.Err() != nil, errors.Is(err, lease.ErrClosed):
		outcome(span, "gave_up", nil)
	case errors.Is(err, lease.ErrHeld):
		outcome(span, "refused", nil)
	default:
		outcome(span, "error", err)
	}
	return l, err
}

// Release is l.Release under a span dynalock.release. Its result is that of
// l.Release, and a nil lease is an error that matches lease.ErrInvalid. The
// span's outcome is released, lost where the lease had been lost before, or
// error.
func (i *Instruments) Release(ctx context.Context, l *lease.Lease) error {
	if l == nil {
		return fmt.Errorf("otel: releasing: want a lease, not nil: %w", lease.ErrInvalid)
	}
	key := attribute.String("dynalock.key", l.Key())
	ctx, span := i.tracer.Start(ctx, "dynalock.release", trace.WithAttributes(key, token(l)))
	defer span.End()
	err := l.Release(ctx)
	switch {
	case err == nil:
		outcome(span, "released", nil)
	case errors.Is(err, lease.ErrLost):
		outcome(span, "lost", err)
	default:
		outcome(span, "error", err)
	}
	return err
}

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
