package lock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dynalock/dynalock/internal/retry"
	"github.com/dynalock/dynalock/internal/seam"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// tryTimeout bounds a call that does not wait and whose context has no
// deadline.
const tryTimeout = 3 * time.Second

// try calls attempt with a context that ends with tryTimeout, if ctx has no
// deadline, and when Close begins, which waits for the call. name is for the error.
func try(
	ctx context.Context, c *lease.Client, name string, attempt func(ctx context.Context) error,
) error {
	client := seam.Of(c)
	ctx, end, err := client.Begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	limited, cancel := ctx, context.CancelFunc(func() {})
	if _, ok := ctx.Deadline(); !ok {
		limited, cancel = client.Clock.WithTimeout(ctx, tryTimeout)
	}
	defer cancel()
	err = attempt(limited)
	switch {
	case err == nil || limited.Err() == nil:
		return err
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case retry.IsClassified(err) || errors.Is(err, lease.ErrHeld):
		return err
	}
	return fmt.Errorf("lock: trying %q: no answer within %v: %w", name, tryTimeout, kv.ErrUnavailable)
}

// releaseUnused calls release, which gives back what a call has that came to nothing. It
// waits for that until ctx has ended, and for longest then. A store that is silent
// does not hold the call up: release goes on in the background.
func releaseUnused(ctx context.Context, client *lease.Client, longest time.Duration,
	release func(ctx context.Context)) {
	parts := seam.Of(client)
	ended := parts.Go(release)
	select {
	case <-ended:
		return
	case <-ctx.Done():
	}
	t := parts.Clock.NewTimer(longest)
	defer t.Stop()
	select {
	case <-ended:
	case <-t.C():
	}
}
