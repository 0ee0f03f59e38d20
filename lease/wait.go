package lease

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/kv"
)

// acquire gets a key at once if it is free and nobody waits for it here.
// Otherwise it waits for its turn in this process, or for a lease that is handed
// over to it, and then for the key (R9.3, R15), until Close begins.
func (c *Client) acquire(ctx context.Context, r *request) (l *Lease, err error) {
	defer func() {
		if l == nil {
			c.leaveQueue(r)
		}
	}()
	var failed error
	if c.alone(r.keyState) {
		l, err := c.tryRow(ctx, r, nil)
		if err == nil || !c.worthWaiting(ctx, &r.pace, err) {
			return l, err
		}
		failed = err
	}
	for {
		l, err := c.queueUp(ctx, r, failed)
		if err != nil || l.isGrantable(ctx, r.minRemaining) {
			return l, err
		}
		c.releaseSoon(l) // lost before the waiter looked
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		failed = nil
	}
}

// isGrantable checks a grant when it is returned (R9.4): a lease that was handed over
// may have waited for its waiter, which was at a request. If less trust is left than
// was asked for, a heartbeat is sent first.
func (l *Lease) isGrantable(ctx context.Context, minRemaining time.Duration) bool {
	enough := func() bool { return l.session.Remaining() >= minRemaining }
	if !enough() {
		_ = l.session.Refresh(ctx, enough) // what it says is seen below
	}
	return l.lost() == nil && enough()
}

// queueUp is one turn in the key's queue.
func (c *Client) queueUp(ctx context.Context, r *request, failed error) (*Lease, error) {
	w := c.enqueue(r)
	l, err := c.turn(ctx, w, failed)
	c.dequeue(w)
	var handoff *Lease
	select {
	case handoff = <-w.lease:
	default:
		return l, err
	}
	switch {
	case l == nil && ctx.Err() == nil:
		return handoff, nil
	case l == nil:
		err = context.Cause(ctx)
	}
	c.releaseSoon(handoff)
	return l, err
}

// worthWaiting reports whether an acquire that waits goes on after err: if the
// key is held, or if time may mend err. Until the store has answered once nothing
// says that it will, and what it refuses is waited out for a while only.
func (c *Client) worthWaiting(ctx context.Context, p *pace, err error) bool {
	var b *heldRow
	switch {
	case errors.As(err, &b), errors.Is(err, errHeldHere):
		return true
	case ctx.Err() != nil, permanent(err):
		return false
	case errors.Is(err, ErrHeld): // others were faster again and again
		return true
	}
	return c.contact.Met() && !p.outlasts(c, err)
}

// turn waits until w is the first, and then contends. failed is the error of an
// attempt just made, nil if there was none.
func (c *Client) turn(ctx context.Context, w *waiter, failed error) (*Lease, error) {
	select {
	case <-w.first:
		return c.contend(ctx, w, failed)
	default:
	}
	w.emitWaiting(nil, nil)
	select {
	case l := <-w.lease:
		return l, nil
	case <-w.first:
		if err := c.contact.Unmet(w.began); err != nil { // whoever was first has told
			return nil, fmt.Errorf("lease: acquiring %q: %w", w.key, err)
		}
		return c.contend(ctx, w, nil)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// contend tries to get the key, and waits for it, until it has it or is handed a
// lease. err is that of an attempt just made, nil if there was none.
func (c *Client) contend(ctx context.Context, w *waiter, err error) (*Lease, error) {
	watch := c.newWatch(w.key)
	defer watch.stop()
	var known *rows.Found
	for {
		if err == nil || errors.Is(err, errHeldHere) {
			l, localErr := c.awaitLocal(ctx, w)
			if l != nil || localErr != nil {
				return l, localErr
			}
			if l, err = c.tryRow(ctx, w.request, known); err == nil {
				return l, nil
			}
			if errors.Is(err, errHeldHere) {
				known = nil
				continue
			}
		}
		if !c.worthWaiting(ctx, &w.pace, err) {
			return nil, err
		}
		var b *heldRow
		errors.As(err, &b)
		c.enter(ctx, w, b)
		w.pace.note(c, b)
		w.note(b, err)
		w.emitWaiting(b, err)
		watch.start(ctx)
		var l *Lease
		if known, l, err = c.poll(ctx, w, b, watch); l != nil || err != nil {
			return l, err
		}
	}
}

// awaitLocal waits while a lease of this client has the key, which costs no
// request. It returns the lease that w is handed meanwhile, if it is.
func (c *Client) awaitLocal(ctx context.Context, w *waiter) (handoff *Lease, err error) {
	for {
		select {
		case <-w.keyState.freed: // what it tells of is seen now
		default:
		}
		l := c.localHolder(w.key)
		if l == nil {
			return nil, nil
		}
		w.emitWaiting(nil, nil)
		select {
		case <-w.keyState.freed:
		case <-l.session.Context().Done():
		case handoff = <-w.lease:
			return handoff, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// note notes what a round has found: who has the key, or else why it failed.
func (w *waiter) note(b *heldRow, err error) {
	w.client.keys.mu.Lock()
	defer w.client.keys.mu.Unlock()
	if b != nil {
		w.keyState.known, err = b.Found, b.err
	}
	w.keyState.trouble = err
}

// noteFree notes that nobody has the key.
func (w *waiter) noteFree() {
	w.client.keys.mu.Lock()
	defer w.client.keys.mu.Unlock()
	w.keyState.known, w.keyState.trouble = nil, nil
}

// endOfWait is err with the end of ctx, if a call that waits would have gone on
// after err: the store failed just then.
func endOfWait(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	if cause == nil || permanent(err) || errors.Is(err, cause) {
		return err
	}
	return fmt.Errorf("%w, and before that: %w", cause, err)
}

// waitEnded says of a wait that ended with its caller's context what there was to
// wait for. err is the context's end.
func (c *Client) waitEnded(r *request, err error) error {
	e := &WaitError{Key: r.key, Waited: c.clock.Now().MonotonicSince(r.began), Err: err}
	if l := c.localHolder(r.key); l != nil {
		holder := l.holder()
		e.Holder, e.Own = &holder, true
		return e
	}
	c.keys.mu.Lock()
	known, trouble := r.keyState.known, r.keyState.trouble
	c.keys.mu.Unlock()
	e.Trouble = trouble
	if known != nil {
		holder := showHolder(r.key, known)
		e.Holder, e.Silent = &holder, c.others.Silent(known.Record.Session)
	}
	return e
}

// emitWaiting emits that the acquire waits: the first time, and when what it
// waits for becomes an error or ceases to be one.
func (w *waiter) emitWaiting(b *heldRow, err error) {
	e := Event{Type: EventWaiting, Key: w.key, Call: w.call, Err: err}
	switch {
	case b == nil && err == nil:
		e.Owner = w.client.owner
	case b != nil && b.Record.Session == "":
		e.Owner = b.Record.First().Owner
	case b != nil:
		e.Owner, e.Token, e.Err = b.Record.Owner, b.Record.TokenIn(b.Pair), b.err
	}
	if w.emitted && w.troubled == (e.Err != nil) {
		return
	}
	w.emitted, w.troubled = true, e.Err != nil
	w.client.emit(e)
}

// poll waits until the row has changed or its holder's session is worth another
// look. It returns the row as it was read, nil if there is none, or the lease
// that w is handed meanwhile.
func (c *Client) poll(
	ctx context.Context, w *waiter, b *heldRow, watch *watch,
) (known *rows.Found, handoff *Lease, err error) {
	looked := c.clock.Now()
	for {
		pause := w.pace.pause(c, b, looked, watch)
		if left, never := w.untilTurn(b); !never && left > 0 && w.pace.failures == nil {
			pause = max(min(pause, left), c.pollMin) // I13
		}
		freed, handoff, err := w.sleep(ctx, pause, watch)
		if freed || handoff != nil || err != nil {
			return nil, handoff, err
		}
		lookDue := b != nil && c.clock.Now().MonotonicSince(looked) >= b.recheck
		if left, never := w.untilTurn(b); !never && left <= 0 {
			lookDue = true
		}
		pair, err := c.store.Get(ctx, rows.LeasePrefix+w.key, c.attempts)
		switch {
		case errors.Is(err, kv.ErrKeyNotFound):
			w.noteFree()
			return nil, nil, nil
		case err != nil && ctx.Err() != nil:
			return nil, nil, context.Cause(ctx)
		case err != nil && !c.worthWaiting(ctx, &w.pace, err):
			return nil, nil, fmt.Errorf("lease: waiting for %q: %w", w.key, err)
		case err != nil:
			w.emitWaiting(nil, err) // an outage is waited out
			w.note(nil, err)
			w.pace.failed(c)
		case lookDue || b == nil || pair.Version != b.Pair.Version:
			known, err = rows.Read(pair)
			return known, nil, err
		default:
			w.pace.succeeded()
			w.note(b, nil)
		}
	}
}

// sleep waits for d, or until the row may have changed. freed: a lease of this
// client on the key has ended.
func (w *waiter) sleep(ctx context.Context, d time.Duration, watch *watch) (freed bool, handoff *Lease, err error) {
	t := w.client.clock.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C():
	case _, ok := <-watch.changed:
		if !ok {
			watch.changed = nil // it failed: polls go on
		}
	case <-w.keyState.freed:
		return true, nil, nil
	case handoff = <-w.lease:
		return false, handoff, nil
	case <-ctx.Done():
		return false, nil, context.Cause(ctx)
	}
	return false, nil, nil
}

// minWatchInterval is the shortest that kv.WithWatchInterval takes.
const minWatchInterval = 10 * time.Millisecond

// watch tells of changes of one row where the store does so by itself, in the
// place of polls (R9.3).
type watch struct {
	client *Client
	key    string
	// changed gets a word when the row may have changed. It is closed when the
	// watch failed, and nil where there is none.
	changed chan struct{}
	cancel  context.CancelFunc
	ended   chan struct{}
}

func (c *Client) newWatch(key string) *watch { return &watch{client: c, key: rows.LeasePrefix + key} }

// start begins to watch, if the store can and it has not begun. stop ends it and
// waits for its goroutine.
func (w *watch) start(ctx context.Context) {
	if _, ok := kv.As[kv.Watcher](w.client.store); !ok || w.cancel != nil {
		return
	}
	ctx, w.cancel = context.WithCancel(ctx)
	w.changed, w.ended = make(chan struct{}, 1), make(chan struct{})
	go w.run(ctx, w.changed)
}

func (w *watch) stop() {
	if w.cancel != nil {
		w.cancel()
		<-w.ended
	}
}

func (w *watch) run(ctx context.Context, changed chan<- struct{}) {
	defer close(w.ended)
	defer close(changed)
	often := kv.WithWatchInterval(max(w.client.pollMin, minWatchInterval)) // where the driver asks by itself
	for event, err := range kv.Watch(ctx, w.client.store, w.key, often) {
		if err != nil {
			return
		}
		if event.Key != w.key && event.Type != kv.EventSynced {
			continue
		}
		select {
		case changed <- struct{}{}:
		default:
		}
	}
}
