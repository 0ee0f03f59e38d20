package meter

import (
	"context"
	"errors"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/retry"
	"github.com/dynalock/dynalock/kv"
)

// Request is a kv.Hook that measures operations on a store.
func (m *Meter) Request(ctx context.Context, call kv.Call, next func(context.Context) error) error {
	began := clock.System.Now()
	err := next(ctx)
	took := clock.System.Now().MonotonicSince(began)
	m.sink.Record(RequestDuration, took, Labels{First: call.Op, Second: OutcomeOf(err)})
	return err
}

// OutcomeOf is what an operation's error says of it, as the value of an attribute.
func OutcomeOf(err error) string {
	if err == nil {
		return "ok"
	}
	is := func(target error) bool { return errors.Is(err, target) }
	switch {
	case is(kv.ErrKeyNotFound):
		return "ok" // it was answered
	case is(kv.ErrKeyExists), is(kv.ErrKeyModified):
		return "conflict"
	case is(kv.ErrUncertain):
		return "uncertain"
	case is(kv.ErrThrottled):
		return "throttled"
	case is(kv.ErrClock):
		return "unavailable" // time mends it
	case is(kv.ErrRefused), retry.IsPermanent(err):
		return "refused"
	case is(context.Canceled):
		return "canceled"
	}
	return "unavailable"
}
