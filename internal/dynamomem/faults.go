package dynamomem

import (
	"context"
	"errors"
	"time"

	"github.com/aws/smithy-go"

	"github.com/dynalock/dynalock/internal/clock"
)

// ErrCut is a connection that broke.
var ErrCut = errors.New("dynamomem: connection reset by peer")

// None lets the request through.
func None(_ context.Context, _ Call, apply Apply) (any, error) { return apply() }

// Lost loses the request: nothing is applied, and the caller gets err.
func Lost(err error) Fault {
	return func(_ context.Context, c Call, _ Apply) (any, error) { return nil, c.sendError(err) }
}

// LostAnswer applies the request and loses the answer, whatever it was.
func LostAnswer(err error) Fault {
	return func(_ context.Context, c Call, apply Apply) (any, error) {
		_, _ = apply()
		return nil, c.sendError(err)
	}
}

// Duplicate applies the request twice and loses both answers.
func Duplicate(err error) Fault {
	return func(_ context.Context, c Call, apply Apply) (any, error) {
		_, _ = apply()
		_, _ = apply()
		return nil, c.sendError(err)
	}
}

// Late gives the caller err at once, and applies the request after delay on
// clk, from a goroutine that Client.Wait waits for. The caller must not change
// the input meanwhile.
func Late(clk clock.Clock, delay time.Duration, err error) Fault {
	return func(ctx context.Context, c Call, apply Apply) (any, error) {
		ctx = context.WithoutCancel(ctx)
		c.client.late.Go(func() {
			if clock.Sleep(ctx, clk, delay) == nil {
				_, _ = apply()
			}
		})
		return nil, c.sendError(err)
	}
}

// Hang applies nothing, and returns when ctx ends.
func Hang(ctx context.Context, c Call, _ Apply) (any, error) {
	<-ctx.Done()
	return nil, c.sendError(ctx.Err())
}

// Refused answers with an error of DynamoDB's and applies nothing.
func Refused(status int, code string) Fault {
	return func(_ context.Context, c Call, _ Apply) (any, error) {
		return nil, Answer(c.Operation, status, &smithy.GenericAPIError{Code: code, Message: "injected"})
	}
}

// RefusedAfter applies the request, and answers with an error of DynamoDB's.
func RefusedAfter(status int, code string) Fault {
	return func(ctx context.Context, c Call, apply Apply) (any, error) {
		_, _ = apply()
		return Refused(status, code)(ctx, c, apply)
	}
}

func (c Call) sendError(err error) error {
	return &smithy.OperationError{ServiceID: "DynamoDB", OperationName: c.Operation, Err: err}
}
