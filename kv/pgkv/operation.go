package pgkv

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
)

const (
	// attemptTimeout bounds an attempt, with a second more for each 100 KB.
	attemptTimeout = time.Second
	attemptRate    = 100_000 // bytes a second
	listTimeout    = 5 * time.Second
	firstBackoff   = 25 * time.Millisecond
	maxBackoff     = time.Second
	// defaultBudget bounds an operation whose context has no deadline.
	defaultBudget = 10 * time.Second
)

var (
	// errTooLate: S6 forbids to send this any more.
	errTooLate = errors.New("pgkv: more than a minute has passed since the operation began")
	errMissed  = errors.New("pgkv: the key was freed meanwhile")
	// errOutcomeUnknown is why a conflict after an unknown attempt settles nothing.
	errOutcomeUnknown = errors.New("pgkv: an attempt's answer was lost, " +
		"and the key's row does not tell whether it was applied")
)

// operation is one call of a Store's method: what is the same for all its
// attempts. It is used by one goroutine.
type operation struct {
	store   *Store
	key     string
	write   bool
	version uint64 // what an UncertainError says
	writer  []byte
	start   clock.Reading
	timeout time.Duration // of one attempt
	// deadline is before when, by the server's clock, a write is applied. It is
	// set by the first attempt.
	deadline time.Time
	unknown  bool       // an attempt was made that may have been applied, or may be
	current  *kv.KVPair // the live pair that the last look showed
	lastLook time.Time  // the server's time at the last look
}

// step is what an attempt does on a connection. nil: the operation is over, and
// went well. again: make another attempt at once. A *failure is judged by run;
// any other error is the operation's.
type step func(ctx context.Context, conn *sql.Conn) (again bool, err error)

// begin starts an operation that moves size bytes. given is WithAttemptTimeout's.
func (s *Store) begin(key string, write bool, given time.Duration, size int) *operation {
	own := attemptTimeout + time.Duration(size)*time.Second/attemptRate
	if given == 0 || given > own {
		given = own
	}
	op := &operation{store: s, key: key, write: write, start: s.clock.Now(), timeout: given}
	if write {
		op.writer = newWriter()
	}
	return op
}

// late reports that S6 forbids to send anything more.
func (op *operation) late() bool { return op.store.clock.Now().Since(op.start) > sendBound }

// run makes attempts until one settles the operation.
func (op *operation) run(ctx context.Context, do step) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("pgkv: key %q: %w", op.key, err)
	}
	if err := op.store.enter(); err != nil {
		return err
	}
	defer op.store.leave()
	budget, cancel := op.budget(ctx)
	defer cancel()
	pause := op.newBackoff()
	last := &failure{throttled, errTooLate}
	for !op.late() {
		again, err := op.attempt(budget, do)
		f, failed := errors.AsType[*failure](err)
		switch {
		case err == nil && again && budget.Err() == nil:
			continue
		case err == nil && again:
		case !failed:
			return err
		case f.verdict == refused:
			return op.refused(f.err)
		default:
			last = f
			op.unknown = op.unknown || f.verdict == unknown && op.write
		}
		if clock.Sleep(budget, op.store.clock, pause.NextBackOff()) != nil {
			break
		}
	}
	return op.abandon(ctx, last)
}

func (op *operation) budget(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return op.store.clock.WithTimeout(ctx, defaultBudget)
}

// newBackoff jitters fully: the n-th pause is anything from 0 to
// firstBackoff·2ⁿ, maxBackoff at most.
func (op *operation) newBackoff() *clock.Pauses {
	return clock.Jitter(op.store.clock, backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(firstBackoff/2),
		backoff.WithRandomizationFactor(1),
		backoff.WithMultiplier(2),
		backoff.WithMaxInterval(maxBackoff/2),
		backoff.WithMaxElapsedTime(0),
	))
}

// attempt runs do once on a connection of the pool.
func (op *operation) attempt(ctx context.Context, do step) (again bool, err error) {
	s := op.store
	ctx, cancel := s.clock.WithTimeout(ctx, op.timeout)
	defer cancel()
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return false, judgeConnecting(err)
	}
	defer func() { _ = conn.Close() }() // it goes back to the pool, which drops it if it is broken
	if err := op.inspect(ctx, conn); err != nil {
		return false, err
	}
	if op.write && op.deadline.IsZero() {
		op.deadline = s.server.at(op.start).Add(sendBound)
	}
	if op.late() {
		return false, &failure{throttled, errTooLate}
	}
	return do(ctx, conn)
}

// query runs one statement to its end and scans the one row that it may return.
// Only a writing statement's outcome can be unknown.
func (op *operation) query(ctx context.Context, conn *sql.Conn, writes bool, query string, args []any,
	into ...any) (found bool, err error) {
	return op.queryRows(ctx, conn, writes, query, args, func() {}, into...)
}

// queryRows is query for any number of rows. It calls take once into has one.
func (op *operation) queryRows(
	ctx context.Context, conn *sql.Conn, writes bool, query string, args []any, take func(), into ...any,
) (found bool, err error) {
	found, err = each(ctx, conn, query, args, take, into...)
	if err == nil {
		return found, nil
	}
	f := judge(ctx, conn, err)
	if !writes && f.verdict == unknown {
		f.verdict = notApplied
	}
	return false, f
}

// missed is the verdict on an attempt that was not applied though, a moment
// later, nothing stands in its way. If its deadline has passed the operation is
// late, or the server's clock is ahead of what we took it for: then the next
// attempt asks for it.
func (op *operation) missed() error {
	if op.lastLook.Before(op.deadline) {
		return &failure{notApplied, errMissed}
	}
	return op.expired()
}

func (op *operation) expired() error {
	op.store.server.forget()
	op.deadline = time.Time{}
	return &failure{throttled, errTooLate}
}

// refused returns the error of an operation whose last attempt was refused in a
// way that trying again cannot mend.
func (op *operation) refused(err error) error {
	if op.unknown {
		return op.uncertain(errors.New(err.Error())) // text only: ErrUncertain is all it may match
	}
	return op.store.friendly(op.key, err)
}

// abandon returns the error of an operation that has no time left.
func (op *operation) abandon(ctx context.Context, last *failure) error {
	ended := ctx.Err()
	cause := last.err
	if ended != nil {
		cause = fmt.Errorf("%w (last attempt: %w)", ended, last.err)
	}
	switch {
	case op.unknown:
		return op.uncertain(cause)
	case ended != nil && (errors.Is(last.err, context.Canceled) || errors.Is(last.err, context.DeadlineExceeded)):
		return fmt.Errorf("pgkv: key %q: %w", op.key, cause) // it says nothing of the server
	case last.verdict == throttled:
		return fmt.Errorf("pgkv: key %q: %w: %w", op.key, kv.ErrThrottled, cause)
	default:
		return fmt.Errorf("pgkv: key %q: %w: %w", op.key, kv.ErrUnavailable, cause)
	}
}

// uncertain makes an UncertainError. cause must match no sentinel of package kv.
func (op *operation) uncertain(cause error) error {
	return &kv.UncertainError{Key: op.key, Current: op.current, Version: op.version, Err: cause}
}
