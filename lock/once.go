package lock

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// attempts is how often a write is sent whose outcome is unknown each time. The driver
// has made its own attempts before.
const attempts = 3

// Once runs a job once per slot, however many processes ask for it and whatever their
// clocks show. A slot is a name that all of them derive from what is to be done: the
// time for which the work was scheduled (see Slot), the id of a batch. Once is safe
// for concurrent use. Use NewOnce. The zero Once refuses every call.
//
// # What once means
//
// A slot is claimed by a lease, and the store keeps what became of it:
//
//	none ──▶ running ──▶ done
//	            ├──────▶ failed     fn returned an error or panicked
//	            └──────▶ abandoned  its process died, lost the lease or closed
//	                                its client before fn returned, or fn
//	                                returned an error after its context had ended
//
// The value of the slot's lease is the outcome's. fn must leave it alone. What fn
// writes there with Update is lost when the outcome is recorded. If the outcome is
// not recorded, or fn has released the lease, the slot is abandoned.
//
// By default each slot's fn is started at most once, for as long as outcomes are kept.
// That depends on no clock, TTL or pause. fn starts after the store has acknowledged
// the step to running, a conditional write. Once it has started, nothing but Forget
// leads back.
//
// The price: the work of a process that dies is never finished. It is known that the
// slot was begun, and unknown how far it got. Whether to send a mail or charge a card
// again is not for a library to decide. Work that can be repeated says so with
// TakeOver, and with RetryFailed.
//
// The step to running uses a slot up. A claim that ended before it, by a crash or an
// outage, uses nothing up: another process starts the slot. If Do does not start fn
// after the step, because its answer was lost or ctx has ended, it takes the step
// back. It does so in the background if it must, for as long as the client is open
// and nobody else has claimed the slot.
//
// Only the claimer can know that fn never ran. So a slot may be abandoned although fn
// did not run:
//
//   - if in that moment the process dies, closes its client, or stands still for
//     longer than its lease lasts;
//   - if others ask for the slot while the claimer cannot reach the store for that
//     long.
type Once struct {
	client *lease.Client
	job    string
	onceSettings
	err error // of the options
}

// NewOnce returns the job called job, which may contain slashes. It does no I/O. A nil
// client, a bad name or a bad option is an error of each call, which matches
// lease.ErrInvalid.
func NewOnce(client *lease.Client, job string, options ...OnceOption) *Once {
	o := &Once{client: client, job: job}
	o.retention = DefaultRetention
	for _, option := range options {
		if option == nil {
			o.err = fmt.Errorf("lock: NewOnce: a nil option: %w", lease.ErrInvalid)
		} else {
			o.err = option(&o.onceSettings)
		}
		if o.err != nil {
			break
		}
	}
	return o
}

// Key returns the key of the slot's lease, for lease.Client's Inspect and Break:
// "once/", the job, and the slot with its slashes escaped.
func (o *Once) Key(slot string) string { return rows.OnceKeys + o.job + "/" + url.PathEscape(slot) }

// key is Key with the arguments checked, fn among them by its user.
func (o *Once) key(method, slot string) (string, error) {
	switch {
	case o.client == nil:
		return "", errNoClient(method)
	case o.err != nil:
		return "", o.err
	case o.job == "" || slot == "":
		return "", fmt.Errorf("lock: %s: job %.40q, slot %.40q: want names: %w", method, o.job, slot, lease.ErrInvalid)
	}
	return o.Key(slot), nil
}

// Do runs fn for the slot unless that was done before. ran tells whether it did. fn
// runs under a lease: its context ends with ctx, and when the lease is lost, with a
// *lease.LostError as its cause. When fn panics or ends its goroutine, the slot is
// recorded as failed, and the same panic or end goes on. A panic's text and fn's
// error are kept, up to 1 KiB.
//
// A nil error means that the slot is done, by this call or an earlier one. If fn did
// not run:
//
//   - An error that matches lease.ErrHeld: the slot runs elsewhere.
//   - ErrFailed or ErrAbandoned, as a *FinishedError: the slot is settled so.
//   - Any other error: the slot is as before, or will be when the client reaches the
//     store again, as said above.
//
// If fn ran, the error is fn's, joined to that of recording the outcome:
//
//   - An error that matches lease.ErrLost: the lease ended before fn returned. The
//     slot may be abandoned or taken over. What fn did last may have been done beside
//     another's run.
//   - An error that matches kv.ErrUncertain: recording goes on in the background.
//
// It costs one read when the slot is settled. The first claim costs one read and three
// writes (claim, start, outcome), and one more for a client's first lease. While the
// slot runs elsewhere it costs a write, two reads and at most one more.
func (o *Once) Do(
	ctx context.Context, slot string, fn func(ctx context.Context, l *lease.Lease) error,
) (ran bool, err error) {
	key, err := o.key("Do", slot)
	if err != nil {
		return false, err
	}
	if fn == nil {
		return false, errNoFunc("Do")
	}
	run, err := o.begin(ctx, key, slot)
	switch {
	case errors.Is(err, ErrDone):
		return false, nil
	case err != nil:
		return false, err
	}
	return true, execute(ctx, run, fn)
}

// begin claims the slot and takes the step to running. A slot that is settled is
// a *FinishedError, also when it is done.
func (o *Once) begin(ctx context.Context, key, slot string) (*Run, error) {
	_, found, err := o.read(ctx, key)
	if err != nil {
		return nil, err
	}
	if err := o.verdict(slot, found); err != nil {
		return nil, err
	}
	l, err := o.claim(ctx, key, lease.WithRetention(o.retention), lease.WithValue(Outcome{}.encode()))
	if err != nil {
		return nil, err
	}
	return o.decide(ctx, slot, l)
}

// Outcome returns what became of the slot, with StateNone if it was never started. A
// slot whose claimer is known to be dead is StateAbandoned, also before anybody has
// recorded that. It costs one read, and one more while the slot is claimed.
func (o *Once) Outcome(ctx context.Context, slot string) (Outcome, error) {
	key, err := o.key("Outcome", slot)
	if err != nil {
		return Outcome{}, err
	}
	h, found, err := o.read(ctx, key)
	if err != nil {
		return Outcome{}, err
	}
	if found.State == StateRunning && h.Member == nil {
		found.State = StateAbandoned
	}
	return found, nil
}

// Forget makes the slot one that was never claimed. It is for repeating by hand what
// was settled, and for cleaning up on stores that do not follow retention. While the
// slot runs it is an error that matches lease.ErrHeld. It costs three writes, and
// leaves a row without outcome, which DynamoDB removes within days.
func (o *Once) Forget(ctx context.Context, slot string) error {
	key, err := o.key("Forget", slot)
	if err != nil {
		return err
	}
	// dynamokv keeps the row for as long as versions need.
	l, err := o.client.TryAcquire(ctx, key, lease.WithRetention(time.Second), lease.WithValue(Outcome{}.encode()))
	if err != nil {
		return err
	}
	return leave(ctx, l, Outcome{})
}

// look reads the slot.
func (o *Once) read(ctx context.Context, key string) (*lease.Holder, Outcome, error) {
	h, err := o.client.Inspect(ctx, key)
	if err != nil {
		return nil, Outcome{}, err
	}
	found, err := outcomeIn(h)
	return h, found, err
}

// outcomeIn is what a slot's row says.
func outcomeIn(h *lease.Holder) (Outcome, error) {
	if !h.Held() && len(h.Value) == 0 {
		return Outcome{}, nil // no row, or one that was emptied, as its next claimer finds out
	}
	found, err := decodeOutcome(h.Key, h.Value)
	if found.isOverwritten() && h.Held() {
		found = Outcome{State: StateRunning, Token: h.Token, Owner: h.Owner, Started: h.Acquired}
	}
	return found, err
}

// verdict is nil if something is left to run after found, and else says that the
// slot is settled.
func (o *Once) verdict(slot string, found Outcome) error {
	switch {
	case found.State == StateDone, found.State == StateFailed && !o.retryFailed,
		found.State == StateAbandoned && !o.takeOver:
		return &FinishedError{Job: o.job, Slot: slot, Outcome: found}
	}
	return nil
}

// claim acquires the slot's lease. After a lost answer it asks again: what is its own
// it gets at once.
func (o *Once) claim(ctx context.Context, key string, options ...lease.AcquireOption) (l *lease.Lease, err error) {
	acquire := o.client.TryAcquire
	if o.wait {
		acquire = o.client.Acquire
	}
	for range attempts {
		if l, err = acquire(ctx, key, options...); !errors.Is(err, kv.ErrUncertain) || ctx.Err() != nil {
			break
		}
	}
	return l, err
}

// decide takes the step to running under the lease, or records that nobody will.
// Nobody else can change any more what the row says now.
func (o *Once) decide(ctx context.Context, slot string, l *lease.Lease) (*Run, error) {
	found, err := decodeOutcome(l.Key(), l.Value())
	if err != nil {
		return nil, errors.Join(err, l.Release(ctx))
	}
	fate, died := found, found.State == StateRunning
	if died { // not by us, and whoever it was has the lease no more
		fate.State, fate.Ended = StateAbandoned, clock.System.Now().Wall
	}
	if finished := o.verdict(slot, fate); finished != nil {
		if !died {
			_ = l.Release(ctx) // what fails goes on in the background; the slot is settled either way
			return nil, finished
		}
		return nil, errors.Join(finished, leave(ctx, l, fate))
	}
	run, err := o.start(ctx, l, found)
	if err != nil {
		return nil, err
	}
	return &Run{lease: l, outcome: run}, nil
}

// start takes the step to running. On failure it has given the lease back, with the
// slot as it was.
func (o *Once) start(ctx context.Context, l *lease.Lease, before Outcome) (Outcome, error) {
	run := Outcome{
		State: StateRunning, Token: l.Token(), Owner: o.client.Owner(), Attempt: before.Attempt + 1,
		Started: clock.System.Now().Wall,
	}
	err := step(ctx, l, run)
	if err == nil {
		err = errors.Join(l.Err(), context.Cause(ctx)) // an acknowledged step is no use to one who must not begin
	}
	if err == nil {
		return run, nil
	}
	_ = l.ReleaseWith(ctx, before.encode()) // undoes the step if it was taken; what fails goes on in the background
	return Outcome{}, fmt.Errorf("lock: starting %q: %w", l.Key(), err)
}

// step writes that the slot runs. It gives up while half of the trust is
// left: the step of a lease that was lost meanwhile could not be taken back.
func step(ctx context.Context, l *lease.Lease, run Outcome) (err error) {
	ctx, cancel := clock.System.WithTimeout(ctx, l.Remaining()/2)
	defer cancel()
	for range attempts {
		if err = l.Update(ctx, run.encode()); !errors.Is(err, kv.ErrUncertain) || ctx.Err() != nil {
			break
		}
	}
	return err
}

// execute runs fn and records its outcome.
func execute(ctx context.Context, run *Run, fn func(context.Context, *lease.Lease) error) (err error) {
	ctx, stop := under(ctx, run.lease.Context())
	defer stop()
	returned := false
	defer func() {
		if returned {
			return
		}
		panicked := recover()
		text := "the function ended its goroutine"
		if panicked != nil {
			text = fmt.Sprintf("panic: %v", panicked)
		}
		_ = run.record(ctx, StateFailed, nil, text) // the panic says more
		if panicked != nil {
			panic(panicked)
		}
	}()
	err = fn(ctx, run.lease)
	returned = true
	if err != nil && ctx.Err() != nil { // it was stopped, and has not failed by itself
		return errors.Join(err, run.record(ctx, StateAbandoned, run.value, "interrupted: "+err.Error()))
	}
	return errors.Join(err, run.Finish(ctx, run.value, err))
}

// leave gives the lease back and leaves the outcome in its row, in one write. nil: the
// outcome is recorded.
func leave(ctx context.Context, l *lease.Lease, outcome Outcome) error {
	err := l.Err()
	if !errors.Is(err, lease.ErrNotHeld) { // else fn has released it, and nothing can be recorded any more
		err = l.ReleaseWith(ctx, outcome.encode())
	}
	if err != nil {
		return fmt.Errorf("lock: recording %q as %s: %w", l.Key(), outcome.State, err)
	}
	return nil
}
