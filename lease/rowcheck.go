package lease

import (
	"context"
	"errors"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/kv"
)

// rowCheckPause keeps the reads of WithRowCheck of one client apart: at most a
// hundred a second.
const rowCheckPause = 10 * time.Millisecond

// WithRowCheck makes the lease read its row now and then, and end with
// ReasonBroken when the row is not there or another's: for rows that people or
// other programs may delete. Without it a holder of a deleted row is not told,
// and a second one can have the key for as long as both live. Between the delete
// and the next check two may believe in the key even so. Prefer Break, which
// waits for the holder.
//
// every is a second to 24 hours. Default: no checks. A read that fails, and a row
// that cannot be read, end nothing. It costs one strong read per interval, up to a
// fifth of it early, and none before the first interval. One client makes at most
// a hundred of these reads a second, however many leases it has. A lease that is
// checked has a goroutine.
func WithRowCheck(every time.Duration) AcquireOption {
	return func(a *acquireSettings) error {
		a.rowCheck = every
		return within("WithRowCheck", every, time.Second, MaxTTL)
	}
}

// checkRow reads the row every now and then until the lease ends, and ends it if
// the row is not its own.
func (l *Lease) checkRow(every time.Duration) {
	c := l.client
	for clock.Sleep(l.ctx, c.clock, clock.Spread(c.clock, every*9/10, 1.0/9)) == nil {
		select {
		case c.keys.checking <- struct{}{}:
		case <-l.ctx.Done():
			return
		}
		_ = clock.Sleep(l.ctx, c.clock, rowCheckPause)
		<-c.keys.checking
		if l.rowLost(l.ctx) {
			l.lose(ReasonBroken)
			c.wake(l.key)
			return
		}
	}
}

// rowLost reports whether the row is known not to be that of this lease.
func (l *Lease) rowLost(ctx context.Context) bool {
	pair, err := l.client.store.Get(ctx, l.row, l.client.attempts)
	if err != nil {
		return errors.Is(err, kv.ErrKeyNotFound)
	}
	record, err := rows.DecodeLease(pair)
	return err == nil && record.Acq != l.acq()
}
