package lease

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/retry"
	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/internal/session"
	"github.com/dynalock/dynalock/kv"
)

// latestAttempt is S6's bound on how long after its start an operation may send its
// last attempt.
const latestAttempt = time.Minute

// pending is an acquiring write of unknown outcome.
type pending struct {
	session *session.Session
	acq     string
	// version is what the write would give the row, 0 if that is not known.
	version uint64
	began   clock.Reading
	// delays: others would wait for its lock-delay, though nobody has had the lease.
	delays bool
}

// resolver looks after the acquiring writes of one key whose outcome is unknown: one
// reader for all of them.
type resolver struct {
	writes []pending // guarded by keyTable.mu
	more   chan struct{}
}

// resolve looks after an acquiring write of s that failed with err and whose outcome
// is unknown (R14). Until it cannot land any more, a row that carries its
// acquisition id is given back. Else the row would be held for as long as the
// session lives.
func (c *Client) resolve(s *session.Session, key string, record rows.Lease, err error) {
	uncertain := &kv.UncertainError{}
	errors.As(err, &uncertain) // a wrapper may have hidden it: then the version is not known
	version, known := uncertain.Version, uncertain.Current
	if version != 0 && known != nil && known.Version >= version && !rows.Carries(known, record.Acq) {
		return // it cannot land any more
	}
	c.keys.mu.Lock()
	r, running := c.keys.unresolved[key]
	if !running {
		r = &resolver{more: make(chan struct{}, 1)}
		c.keys.unresolved[key] = r
	}
	r.writes = append(r.writes, pending{
		session: s, acq: record.Acq, version: version, began: c.clock.Now(), delays: record.Delay > 0,
	})
	c.keys.mu.Unlock()
	if running {
		select {
		case r.more <- struct{}{}:
		default:
		}
		return
	}
	c.life.Start(func(ctx context.Context) { c.runResolver(ctx, key, r) })
}

// runResolver reads the row until no write is pending. It pauses for 100 ms to
// 30 s.
func (c *Client) runResolver(ctx context.Context, key string, r *resolver) {
	pauses := retry.Pauses(c.clock)
	for {
		c.keys.mu.Lock()
		writes := r.writes
		c.keys.mu.Unlock()
		tried := c.clock.Now() // before the read: a landing between the two is not seen
		see := c.checkWrites(ctx, key)
		if c.dropResolved(key, r, writes, func(p pending) bool {
			return !p.delays && p.session.IsDeleted() || see(p, tried)
		}) {
			return
		}
		t := c.clock.NewTimer(pauses.NextBackOff())
		select {
		case <-t.C():
		case <-r.more:
			pauses.Reset()
		case <-ctx.Done():
		}
		t.Stop()
		if ctx.Err() != nil {
			c.checkLast(ctx, key, r)
			return
		}
	}
}

// checkLast looks once more when Close has ended the session, where others would
// wait for a lock-delay.
func (c *Client) checkLast(ctx context.Context, key string, r *resolver) {
	c.keys.mu.Lock()
	writes := slices.DeleteFunc(slices.Clone(r.writes), func(p pending) bool { return !p.delays })
	c.keys.mu.Unlock()
	if len(writes) == 0 {
		return
	}
	ctx, cancel := c.clock.WithTimeout(context.WithoutCancel(ctx), c.attemptTimeout())
	defer cancel()
	see := c.checkWrites(ctx, key)
	for _, p := range writes {
		see(p, c.clock.Now())
	}
}

// dropResolved drops the resolved ones of writes, which are the first that are
// pending, and the resolver when none is left.
func (c *Client) dropResolved(key string, r *resolver, writes []pending, resolved func(pending) bool) (finished bool) {
	var left []pending
	for _, p := range writes {
		if !resolved(p) {
			left = append(left, p)
		}
	}
	c.keys.mu.Lock()
	defer c.keys.mu.Unlock()
	r.writes = append(left, r.writes[len(writes):]...) // others may have come meanwhile
	if len(r.writes) == 0 {
		delete(c.keys.unresolved, key)
	}
	return len(r.writes) == 0
}

// checkWrites reads the row once. It returns a test that tells whether nothing is left to
// do about a pending write. Where the row carries the write's acquisition id, the
// test gives the row back.
func (c *Client) checkWrites(ctx context.Context, key string) func(p pending, tried clock.Reading) bool {
	pair, err := c.store.Get(ctx, rows.LeasePrefix+key, c.attempts)
	var notFound *kv.NotFoundError
	if err != nil && !errors.As(err, &notFound) {
		return func(pending, clock.Reading) bool { return false }
	}
	var record *rows.Lease
	var version uint64
	if notFound != nil {
		version = notFound.Version
	} else {
		version = pair.Version
		record, _ = rows.DecodeLease(pair) // what cannot be read is not ours
	}
	return func(p pending, tried clock.Reading) bool {
		if record == nil || record.Acq != p.acq {
			return tried.MonotonicSince(p.began) >= c.landing() || (p.version != 0 && version >= p.version)
		}
		_, err := c.free(ctx, &row{key: key, row: pair.Key, acq: p.acq, version: pair.Version, record: *record})
		if err == nil {
			c.wake(key)
		}
		return err == nil // applied once, and a write is applied at most once (S3)
	}
}

// landing is how long after its beginning a write of unknown outcome may still land
// (S6).
func (c *Client) landing() time.Duration {
	if c.writeDelay == 0 {
		return 0
	}
	return c.writeDelay + latestAttempt
}
