package lease

import (
	"context"
	"fmt"
)

// Call is a call that a Tracer is told of.
type Call struct {
	// Op is the method's name: "Acquire", "TryAcquire", "AcquireAny",
	// "TryAcquireAny" or "Release", which is that of ReleaseWith too.
	Op string
	// Key is the key. AcquireAny and TryAcquireAny have none before they end.
	Key string
}

// Tracer is told when a call begins: each Acquire, TryAcquire, AcquireAny and
// TryAcquireAny of the client, and the first release of each lease, whoever makes
// them. Mutexes, elections, pools and all other recipes make them for their users.
//
// It returns the context with which the call goes on, ctx or one made of it, and
// a function that is told what the call returns. That is called once. Of a release
// the lease is the one that is released. Both are called on the caller's
// goroutine, so they should not wait. The store is called with that context.
type Tracer func(ctx context.Context, call Call) (context.Context, func(*Lease, error))

// WithTracer sets who is told of calls, for traces. It costs no request. Default:
// nobody.
func WithTracer(tracer Tracer) Option {
	return func(s *settings) error {
		if tracer == nil {
			return fmt.Errorf("lease: WithTracer(nil): want a function: %w", ErrInvalid)
		}
		s.tracer = tracer
		return nil
	}
}

// traced runs a call, and tells the tracer.
func (c *Client) traced(ctx context.Context, call Call, run func(context.Context) (*Lease, error)) (*Lease, error) {
	if c.tracer == nil {
		return run(ctx)
	}
	ctx, end := c.tracer(ctx, call)
	l, err := run(ctx)
	end(l, err)
	return l, err
}
