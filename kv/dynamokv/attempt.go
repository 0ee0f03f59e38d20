package dynamokv

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http/httptrace"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/smithy-go/middleware"
	"github.com/cenkalti/backoff/v4"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
)

const (
	// attemptTimeout bounds an attempt, beside the time that what it carries takes
	// at slowest bytes a second. maxAttemptTimeout bounds WithAttemptTimeout.
	attemptTimeout    = time.Second
	maxAttemptTimeout = 30 * time.Second
	slowest           = 100_000
	// answerSize is what a read may be answered with: an item at its largest, about.
	answerSize   = 400_000
	firstBackoff = 25 * time.Millisecond
	maxBackoff   = time.Second
	// defaultBudget bounds an operation whose context has no deadline.
	defaultBudget = 10 * time.Second
	// sendBound is S6: nothing is sent later than this after the operation began.
	sendBound = time.Minute
)

// errTooLate: S6 forbids to send this any more. The process was suspended, or attempts
// failed for a minute.
var errTooLate = errors.New("dynamokv: more than a minute has passed since the operation began")

// errBusy is why an operation has found no moment to be applied at.
var errBusy = errors.New("dynamokv: others wrote or freed the key before each try")

// operation is one call of a Store's method: what is the same for all its attempts. One
// goroutine uses it.
type operation struct {
	store   *Store
	key     string
	write   bool
	version uint64 // what an UncertainError says
	start   clock.Reading
	timeout time.Duration // of one attempt
	unknown bool          // an attempt has been made that may have been applied, or may be
	layout  bool          // it is the look at the layout
	urgent  bool          // it waits for no turn, and tries again sooner
	first   bool          // its turn comes before others'
	pace    *pace         // of its shard, nil: none
	expired bool          // an attempt has been made with expired credentials
	region  string        // of the last attempt
	pauses  *clock.Pauses // between rounds, nil before the second: see again
}

// sender sends one request.
type sender func(context.Context, ...func(*dynamodb.Options)) error

// begin begins an operation on key. timeout is what WithAttemptTimeout says, 0 if
// there is none. size is the most that a request or its answer carries, in bytes.
func (s *Store) begin(key string, write bool, timeout time.Duration, size int) *operation {
	if timeout == 0 {
		timeout = attemptTimeout + time.Duration(size)*time.Second/slowest
	}
	return &operation{
		store: s, key: key, write: write, start: s.clock.Now(), timeout: min(timeout, maxAttemptTimeout),
		pace: s.paceOf(s.shardOf(key), write),
	}
}

// wall is the operation's :now.
func (op *operation) wall() time.Time { return op.start.Wall }

// late reports that S6 forbids to send anything more.
func (op *operation) late() bool { return op.store.clock.Now().Since(op.start) > sendBound }

// run makes attempts until one gets an answer that settles the operation. It returns nil,
// an error for the caller of the Store, or the *types.ConditionalCheckFailedException.
// op.unknown then tells of the attempts before that.
func (op *operation) run(ctx context.Context, send sender) error {
	if err := ctx.Err(); err != nil && !op.unknown {
		return fmt.Errorf("dynamokv: key %q: %w", op.key, err)
	}
	budget, cancel := op.budget(ctx)
	defer cancel()
	if err := op.store.agree(ctx, budget, op); err != nil {
		return err
	}
	pause := op.newBackoff()
	var last error
	for {
		if err := op.awaitTurn(budget); err != nil {
			last = cmp.Or(last, err)
			break
		}
		sent := op.store.clock.Now().Mono
		r, err := op.attempt(budget, send)
		v := classify(err, r, op.store.met.Load())
		if op.pace != nil {
			op.pace.note(v, sent, op.store.clock.Now().Mono)
		}
		switch v {
		case applied:
			return nil
		case conflict:
			return err
		case unknown, foreign:
			op.unknown = true
		}
		if last == nil || budget.Err() == nil || !isEnded(err) {
			last = err // and not only that time was up
		}
		if op.isFinal(v, err) {
			return op.refused(err, v)
		}
		if clock.Sleep(budget, op.store.clock, pause.NextBackOff()) != nil {
			break
		}
	}
	return op.abandon(ctx, last)
}

// awaitTurn waits until the operation may send. Its errors say that it may not any more.
func (op *operation) awaitTurn(budget context.Context) error {
	if op.pace != nil && !op.urgent {
		if err := op.pace.wait(budget, op.store.clock, op.first); err != nil {
			return err
		}
	}
	if op.late() {
		return errTooLate
	}
	return nil
}

// isFinal reports that trying again in this operation is of no use. Expired
// credentials get one more attempt, after a pause.
func (op *operation) isFinal(v verdict, err error) bool {
	switch v {
	case misused, clockWrong, foreign:
		return true
	case refused:
		again := isExpired(err) && !op.expired
		op.expired = true
		return !again
	}
	return false
}

// budget bounds all attempts of the operation together.
func (op *operation) budget(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return op.store.clock.WithTimeout(ctx, defaultBudget-op.store.clock.Now().MonotonicSince(op.start))
}

// again waits until the next round of an operation may begin, since the row
// has changed between a look at it and a write. The second round begins at
// once. An error says that time is up and that nothing was written: a caller
// whose attempts may be unknown returns another one.
func (op *operation) again(ctx context.Context) error {
	if op.pauses == nil {
		op.pauses = op.newBackoff()
		return nil
	}
	budget, cancel := op.budget(ctx)
	defer cancel()
	err := clock.Sleep(budget, op.store.clock, op.pauses.NextBackOff())
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("dynamokv: key %q: %w: %w (%w)", op.key, kv.ErrThrottled, errBusy, ctx.Err())
	case err != nil || budget.Err() != nil:
		return fmt.Errorf("dynamokv: key %q: %w: %w", op.key, kv.ErrThrottled, errBusy)
	case op.late():
		return fmt.Errorf("dynamokv: key %q: %w: %w (%w)", op.key, kv.ErrThrottled, errBusy, errTooLate)
	}
	return nil
}

// newBackoff jitters fully: the n-th pause is anything from 0 to firstBackoff·2ⁿ,
// maxBackoff at most, or urgentBackoff.
func (op *operation) newBackoff() *clock.Pauses {
	longest := maxBackoff
	if op.urgent {
		longest = urgentBackoff
	}
	return clock.Jitter(op.store.clock, backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(firstBackoff/2),
		backoff.WithRandomizationFactor(1),
		backoff.WithMultiplier(2),
		backoff.WithMaxInterval(longest/2),
		backoff.WithMaxElapsedTime(0),
	))
}

// attempt sends once, and tells how far the request got. A Client that ignores
// options counts as having written it. So does an HTTP client that asks for no
// connection as net/http does, and says so by httptrace.
func (op *operation) attempt(ctx context.Context, send sender) (r reach, err error) {
	ctx, cancel := op.store.clock.WithTimeout(ctx, op.timeout)
	defer cancel()
	var entered, underway, connecting, connected atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { connecting.Store(true) },
		GotConn: func(httptrace.GotConnInfo) { connected.Store(true) },
	})
	err = send(ctx, func(o *dynamodb.Options) {
		o.Retryer = aws.NopRetryer{}
		o.DisableClockSkewCorrection = true
		op.region = o.Region
		o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
			return op.observe(stack, &entered, &underway)
		})
	})
	if err == nil || codeOf(err) != "" {
		op.store.met.Store(true)
	}
	switch {
	case entered.Load() && !underway.Load():
		return unsent, err
	case underway.Load() && connecting.Load() && !connected.Load():
		return unwritten, err
	}
	return written, err
}

// observe notes when a request enters the SDK, and when it is handed to the HTTP client,
// signed. There S6 is checked again: the process may have been suspended on the way.
func (op *operation) observe(stack *middleware.Stack, entered, underway *atomic.Bool) error {
	err := stack.Initialize.Add(middleware.InitializeMiddlewareFunc("DynalockEntered",
		func(ctx context.Context, in middleware.InitializeInput,
			next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
			entered.Store(true)
			return next.HandleInitialize(ctx, in)
		}), middleware.Before)
	if err != nil {
		return err
	}
	return stack.Deserialize.Add(middleware.DeserializeMiddlewareFunc("DynalockHanded",
		func(ctx context.Context, in middleware.DeserializeInput,
			next middleware.DeserializeHandler) (middleware.DeserializeOutput, middleware.Metadata, error) {
			if op.late() {
				return middleware.DeserializeOutput{}, middleware.Metadata{}, errTooLate
			}
			underway.Store(true)
			return next.HandleDeserialize(ctx, in)
		}), middleware.After)
}

// refused returns the error of an operation whose last attempt was refused in a way that
// trying again cannot mend.
func (op *operation) refused(err error, v verdict) error {
	sentinel := kv.ErrRefused
	switch {
	case op.write && op.unknown:
		return op.uncertain(nil, fmt.Errorf("%s%w", remedy(err), err))
	case v == clockWrong:
		sentinel = kv.ErrClock
	case v == misused:
		sentinel = kv.ErrUnsupported
	}
	return op.store.friendly(fmt.Sprintf("key %q", op.key), op.region, sentinel, err)
}

// abandon returns the error of an operation that has no time left. last is why its last
// attempt failed, or could not be made.
func (op *operation) abandon(ctx context.Context, last error) error {
	ended := ctx.Err()
	why := last
	if ended != nil {
		why = fmt.Errorf("%w (last attempt: %w)", ended, last)
	}
	switch {
	case op.write && op.unknown:
		return op.uncertain(nil, why)
	case classify(last, written, true) == throttled, errors.Is(last, errPaced):
		return fmt.Errorf("dynamokv: key %q: %w: %w", op.key, kv.ErrThrottled, why)
	case ended != nil && isEnded(last):
		return fmt.Errorf("dynamokv: key %q: %w", op.key, why) // it says nothing of the store
	default:
		return fmt.Errorf("dynamokv: key %q: %w: %w", op.key, kv.ErrUnavailable, why)
	}
}

// uncertain makes an UncertainError. cause must match no sentinel of package kv.
func (op *operation) uncertain(current *kv.KVPair, cause error) error {
	return &kv.UncertainError{Key: op.key, Current: current, Version: op.version, Err: cause}
}
