package lease

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dynalock/dynalock/kv"
)

// errNotToBeHad says that nobody is to work on a partition, or that it is gone.
var errNotToBeHad = errors.New("lease: the partition is not to be had")

// get acquires a partition, of which r was listed. It never makes a row, so that one that was removed does not come back. Unless wait, it is one
// attempt, *busy if somebody alive has it; else it waits for that, as Acquire does, until ctx ends.
func (p *Pool) get(ctx context.Context, r *partitionRow, wait bool) (*Lease, error) {
	c := p.client
	ctx, use, err := c.life.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer use.end()
	key := p.key(r.name)
	g := c.gateOf(key)
	defer c.leaveGate(key, g)
	l, err := p.contend(ctx, &request{key: key, row: leasePrefix + key, gate: g, began: c.clock.Now()}, r.pair, wait)
	if err != nil {
		return nil, c.life.explain(err)
	}
	use.stays = true
	return l, nil
}

// contend tries the row, and waits and tries again if wait. Each round waits, a millisecond at least (pollPause): for what is held, awaitPair
// does not return before its first pause.
func (p *Pool) contend(ctx context.Context, r *request, pair *kv.KVPair, wait bool) (*Lease, error) {
	watch := p.client.newWatch(r.key)
	defer watch.stop()
	for {
		l, err := p.tryPair(ctx, r, pair)
		var b *busy
		switch {
		case err == nil:
			return l, nil
		case !errors.As(err, &b):
			return nil, err
		case !wait:
			return nil, b.held(r.key)
		}
		r.pace.note(p.client, b)
		watch.start(ctx)
		if pair, err = p.awaitPair(ctx, r, b, watch); err != nil {
			return nil, err
		}
	}
}

// tryPair tries to get the row that was read as pair, or is found in its place (R9.2, R9.4). A round ends in a lease, an error, or a conflict with a
// row that is there; after a dozen conflicts patience makes that an error, having slowed them down.
func (p *Pool) tryPair(ctx context.Context, r *request, pair *kv.KVPair) (*Lease, error) {
	c := p.client
	done, err := p.slots.take(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	select {
	case r.gate.writing <- struct{}{}:
		defer func() { <-r.gate.writing }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	for round := 0; ctx.Err() == nil; round++ {
		if err := c.patience(ctx, r.key, round, pair); err != nil {
			return nil, err
		}
		record, err := decodeLease(pair)
		switch {
		case err != nil:
			return nil, err
		case record.Partition == nil || record.Partition.idle():
			return nil, errNotToBeHad
		}
		s, err := c.healthy(ctx, r.minRemaining)
		if err != nil {
			return nil, err
		}
		takeover, err := c.mayTake(ctx, s, pair)
		if err != nil {
			return nil, err
		}
		r.taken = r.taken || takeover
		l, current, err := c.write(ctx, s, r, pair)
		switch {
		case l != nil || err != nil:
			return l, err
		case current == nil:
			return nil, errNotToBeHad // removed, or granted too late and given back
		}
		pair = current
	}
	return nil, context.Cause(ctx)
}

// awaitPair polls the row (R9.3) until it has changed or its holder's session is worth another look.
func (p *Pool) awaitPair(ctx context.Context, r *request, b *busy, watch *watch) (*kv.KVPair, error) {
	c, looked := p.client, p.client.clock.Now()
	for {
		if err := p.pause(ctx, r, r.pace.pause(c, b, looked, watch), watch); err != nil {
			return nil, err
		}
		lookDue := c.clock.Now().MonotonicSince(looked) >= b.look
		pair, err := c.store.Get(ctx, leasePrefix+r.key, c.attempts)
		switch {
		case errors.Is(err, kv.ErrKeyNotFound):
			return nil, errNotToBeHad
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case permanent(err):
			return nil, fmt.Errorf("lease: waiting for %q: %w", r.key, err)
		case err != nil:
			r.pace.failed(c)
		case lookDue || pair.Version != b.pair.Version:
			return pair, nil
		default:
			r.pace.failures = nil
		}
	}
}

// pause waits for d, or until the row may have changed.
func (p *Pool) pause(ctx context.Context, r *request, d time.Duration, watch *watch) error {
	t := p.client.clock.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C():
	case _, ok := <-watch.changed:
		if !ok {
			watch.changed = nil // it failed: polls go on
		}
	case <-r.gate.freed:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}
