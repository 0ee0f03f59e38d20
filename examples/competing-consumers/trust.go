package main

import (
	"context"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/pool"
)

// trust notes until when a lease may be believed in, by the clock of instant. A
// worker that was suspended, and lost its lock meanwhile, can then say when the
// lock had ended, which is before it woke up.
type trust struct {
	cancel context.CancelFunc
	done   chan struct{}
	until  int64
}

// followTrust begins to follow held, until end is called.
func followTrust(held *pool.Work) *trust {
	ctx, cancel := context.WithCancel(context.Background())
	t := &trust{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(t.done)
		for {
			now := instant() // first: a suspension between the two lines must not prolong the trust
			if remaining := held.Remaining(); remaining > 0 {
				t.until = now + remaining.Nanoseconds()
			}
			if clock.Sleep(ctx, clock.System, 50*time.Millisecond) != nil {
				return
			}
		}
	}()
	return t
}

// end stops following and returns the instant until which the lease was, or is,
// to be trusted; 0 if it was lost at once.
func (t *trust) end() int64 {
	t.cancel()
	<-t.done
	return t.until
}
