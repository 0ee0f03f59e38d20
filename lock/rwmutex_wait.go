package lock

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/retry"
	"github.com/dynalock/dynalock/internal/seam"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// rwWait is the waiting of one call: its pauses (R9.3, I13), and what there is
// to say of it when it ends.
type rwWait struct {
	client seam.Client
	lease  *lease.Client
	key    string
	began  clock.Reading
	// holders are who was in the way when it was last looked, first seen at
	// since.
	holders []lease.Holder
	since   clock.Reading
	// trouble is why a later look failed, and failures are the pauses since the
	// first that did. refused is since when the store refuses. All end with a
	// look that succeeds.
	trouble  error
	failures *clock.Pauses
	refused  clock.Reading
}

func (m *RWMutex) newWait(client seam.Client, key string) *rwWait {
	return &rwWait{client: client, lease: m.client, key: key, began: client.Clock.Now()}
}

// found notes who is in the way.
func (w *rwWait) found(holders []lease.Holder) {
	w.trouble, w.failures, w.refused = nil, nil, clock.Reading{}
	same := slices.EqualFunc(holders, w.holders, func(a, b lease.Holder) bool {
		return a.Key == b.Key && a.Version == b.Version
	})
	if !same || w.since.IsZero() {
		w.since = w.client.Clock.Now()
	}
	w.holders = holders
}

// failed notes that a look failed, and reports whether the call goes on: if
// time may mend it, as lease.Client.Acquire has it. A row that was lost before
// it was granted is acquired anew.
func (w *rwWait) failed(err error) (goesOn bool) {
	if retry.IsPermanent(err, lease.ErrInvalid, lease.ErrClosed) || !w.client.Met() {
		return false
	}
	now := w.client.Clock.Now()
	if errors.Is(err, kv.ErrRefused) {
		if w.refused.IsZero() {
			w.refused = now
		}
		if now.MonotonicSince(w.refused) >= w.client.RefusedLimit {
			return false
		}
	}
	w.trouble = err
	if w.failures == nil {
		w.failures = retry.PausesBetween(w.client.Clock, w.client.PollMin, max(longestPause, w.client.PollMax))
	}
	return true
}

// pause is how long to wait for the next look: a tenth of the time since who is
// in the way was last seen to change, within the bounds of lease.WithPoll.
func (w *rwWait) pause() time.Duration {
	if w.failures != nil {
		return max(w.failures.NextBackOff(), w.client.PollMin)
	}
	unchanged := w.client.Clock.Now().MonotonicSince(w.since)
	pause := min(max(unchanged/10, w.client.PollMin), w.client.PollMax)
	return max(clock.Spread(w.client.Clock, pause*9/10, 1.0/9), w.client.PollMin)
}

// sleep waits for a pause, or until woken has a word, or ctx ends.
func (w *rwWait) sleep(ctx context.Context, woken <-chan struct{}) error {
	t := w.client.Clock.NewTimer(w.pause())
	defer t.Stop()
	select {
	case <-t.C():
		return nil
	case <-woken:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// ended says why a call ended with its context.
func (w *rwWait) ended(ctx, caller context.Context) error {
	if caller.Err() == nil {
		return context.Cause(ctx) // Close has begun
	}
	e := &lease.WaitError{
		Key: w.key, Waited: w.client.Clock.Now().MonotonicSince(w.began), Trouble: w.trouble, Err: context.Cause(ctx),
	}
	if len(w.holders) > 0 {
		e.Key, e.Holder, e.Holders = w.holders[0].Key, &w.holders[0], w.holders
		e.Own = e.Holder.Session == w.lease.Session()
	}
	return e
}

// awaitOpen waits until no writer has the lock, as it was last looked, or it is
// worth trying again after a failure. One reader at a time asks for all that
// wait here.
func (m *RWMutex) awaitOpen(ctx context.Context, w *rwWait) error {
	m.mu.Lock()
	open := m.open
	m.mu.Unlock()
	select {
	case m.polling <- struct{}{}:
	case <-open:
		return nil
	case <-ctx.Done():
		return nil // its caller says why
	}
	defer func() { <-m.polling }()
	for {
		if w.sleep(ctx, nil) != nil {
			return nil
		}
		writer, _, err := m.readWriter(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !w.failed(err):
			return err
		case err != nil:
		case writer != nil:
			w.found([]lease.Holder{*writer})
		default:
			m.mu.Lock()
			defer m.mu.Unlock()
			close(m.open)
			m.open = make(chan struct{})
			return nil
		}
	}
}

// signal leaves a word, unless one is there.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
