package lease

import (
	"context"
	"errors"
	"fmt"

	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/kv"
)

// BreakRow removes the row of a key that cannot be read: for operators. A newer
// version, another program or a hand has written it, and everybody else leaves it
// alone for ever (R18). It returns what the row's value was, for a log.
//
// Nobody is told. Whoever wrote the row may believe in its lease, a client of a
// version that is not known here for as much as 24 h. Only the fencing token keeps
// the two apart then: the next holder's is greater.
//
// nil: the row as it was read is removed, and the key is free. On failure nothing
// is removed, unless the error matches kv.ErrUncertain:
//
//   - An error that matches ErrInvalid: the row can be read. Break is for it.
//   - An error that matches ErrNotHeld: there is no row.
//   - An error that matches kv.ErrKeyModified: it was changed meanwhile.
//   - An error that matches kv.ErrFormat: not even the driver can read the row. It
//     needs a call of the driver's or of the database's.
//   - An error that matches kv.ErrUncertain: it may be removed. Call again.
//
// It costs a read and a write.
func (c *Client) BreakRow(ctx context.Context, key string) ([]byte, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	ctx, use, err := c.life.Begin(ctx)
	if err != nil {
		return nil, err
	}
	defer use.End()
	removed, err := c.breakRow(ctx, key)
	if err != nil {
		return nil, c.life.Explain(fmt.Errorf("lease: breaking the row of %q: %w", key, err))
	}
	c.log.Warn("lease: a row that cannot be read was removed", "key", key, "bytes", len(removed))
	return removed, nil
}

func (c *Client) breakRow(ctx context.Context, key string) ([]byte, error) {
	pair, err := c.store.Get(ctx, rows.LeasePrefix+key, c.attempts)
	switch {
	case errors.Is(err, kv.ErrKeyNotFound):
		return nil, ErrNotHeld
	case err != nil:
		return nil, err
	}
	if _, err := rows.DecodeLease(pair); err == nil {
		return nil, fmt.Errorf("it can be read, use Break: %w", ErrInvalid)
	}
	if err := c.store.AtomicDelete(ctx, pair.Key, pair, c.attempts); err != nil {
		return nil, err
	}
	c.wake(key)
	return pair.Bytes(), nil
}
