package lease

import (
	"context"
	"time"

	"github.com/dynalock/dynalock/internal/rows"
)

// WithLockDelay makes who takes the key over from this acquisition, if its session
// is proven dead, wait d first: for work that goes on for a while when its lease is
// lost, such as a request that is under way to a third party. A millisecond to 24
// hours. Default: it is taken at once. It costs no request, but one write where
// the lease is released while Close goes on.
//
// Each contender counts d on its own clock, from its own proof (R10). Who comes
// later waits d from then. Meanwhile the key counts as held, for Break too, which
// is how an operator cuts d short. After Release, or a Close that waited for it,
// the key is free at once.
func WithLockDelay(d time.Duration) AcquireOption {
	return func(a *acquireSettings) error {
		a.lockDelay = d
		return within("WithLockDelay", d, time.Millisecond, MaxTTL)
	}
}

// isDead decides whether who has the row is dead and may be followed. If not, next
// is when it is worth asking again.
func (c *Client) isDead(ctx context.Context, row *rows.Lease) (dead bool, next time.Duration, err error) {
	dead, next, err = c.others.IsDead(ctx, row.Session)
	if !dead || row.Delay == 0 {
		return dead, next, err
	}
	left := time.Duration(row.Delay)*time.Millisecond - c.others.DeadFor(row.Session)
	return left <= 0, left, nil
}
