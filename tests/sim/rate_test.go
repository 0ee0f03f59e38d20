package sim_test

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/dynalock/dynalock/internal/retry"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// pollMin is the library's shortest pause between two rounds of one who waits.
const pollMin = 50 * time.Millisecond

// asking is one call of the layer that may wait, and what it asks of the store
// (I13). What nobody waits for is one asking for the whole life of its node.
type asking struct {
	node *node
	what string
	// row is that of the one key that is waited for, "" if there are several. Nothing but
	// the poller reads it for this call.
	row string
	// loops bounds how many ask for the call at the same time, burst how many
	// requests may come together.
	loops, burst int
	// steady is how often it asks whether or not requests fail, 0 if it pauses longer then.
	steady time.Duration

	mu sync.Mutex
	// failures are those since a request was answered: any, by "", or one for a row, by its name.
	failures map[string]*streak
	// failedReads are those of row, answered is when the last request for it ended.
	failedReads int
	answered    time.Duration
	// left is how many requests may be made at once, counted is when it was.
	left    float64
	counted time.Duration
}

// streak are failures in a row. The first of them was asked for at first, the
// last one at last. freed is how many leases its node had given back before: who
// waits for a key is woken by that.
type streak struct {
	failed, freed int
	first, last   time.Duration
}

type askingKey struct{}

// asks returns the context of a call that may wait.
func (n *node) asks(ctx context.Context, what, row string, loops int) context.Context {
	return context.WithValue(ctx, askingKey{}, n.newAsking(what, row, loops))
}

// watches returns the context of a call that asks again and again, once in a poll.
func (n *node) watches(ctx context.Context, what string, poll time.Duration) context.Context {
	q := n.newAsking(what, "", 1)
	q.steady = poll * 8 / 10 * 100 / 104
	return context.WithValue(ctx, askingKey{}, q)
}

func (n *node) newAsking(what, row string, loops int) *asking {
	burst := 30 * loops
	return &asking{node: n, what: what, row: row, loops: loops, burst: burst, failures: map[string]*streak{},
		left: float64(burst), counted: n.w.elapsed()}
}

// askStore stands between the lease layer and the driver.
func (n *node) askStore(ctx context.Context, call kv.Call, next func(context.Context) error) error {
	q, ok := ctx.Value(askingKey{}).(*asking)
	if !ok || call.Op == "AtomicDelete" { // what is given back is nobody's round
		q = n.unasked
	}
	began := q.begins(call)
	err := next(ctx)
	q.ends(ctx, call, began, err)
	return err
}

// begins checks that a request may be made now.
func (q *asking) begins(call kv.Call) (now time.Duration) {
	w := q.node.w
	q.mu.Lock()
	defer q.mu.Unlock()
	now = w.elapsed()
	q.left = min(float64(q.burst), q.left+float64(q.loops)*float64(now-q.counted)/float64(pollMin)) - 1
	q.counted = now
	if q.left < 0 {
		w.fail("I13", "%s of %s: %s %s is one request too many", q.what, q.node.name, call.Op, w.alias(call.Key))
	}
	if call.Op != "Get" || call.Key != q.row || q.answered == 0 {
		return now
	}
	least := pollMin
	if q.failedReads > 0 {
		least = shortestPause(q.failedReads)
	}
	if paused := now - q.answered; paused < least*100/104 {
		w.fail("I13", "%s of %s reads %s %v after the last request, with %d failures behind it: less than %v",
			q.what, q.node.name, q.row, paused, q.failedReads, least)
	}
	return now
}

// ends notes what a request has brought, and checks that failures are not too many.
func (q *asking) ends(ctx context.Context, call kv.Call, began time.Duration, err error) {
	w := q.node.w
	q.mu.Lock()
	defer q.mu.Unlock()
	ours, unknown := call.Key == q.row, (*kv.UncertainError)(nil)
	if ours {
		q.answered = w.elapsed()
	}
	switch {
	case retry.IsAnswer(err), errors.As(err, &unknown) && unknown.Current != nil:
		delete(q.failures, "")
		delete(q.failures, call.Key)
		if ours {
			q.failedReads = 0
		}
		w.mu.Lock()
		q.node.met = q.node.met || unknown == nil
		w.mu.Unlock()
		return
	case ctx.Err() != nil:
		return // the caller's time was up
	}
	if ours && call.Op == "Get" {
		q.failedReads++
	}
	for _, row := range []string{"", call.Key} {
		if failed, most, within := q.failLocked(row, began); failed > most {
			w.fail("I13", "%s of %s: %d failures within %v, more than %d; the last: %s %s: %v",
				q.what, q.node.name, failed, within, most, call.Op, w.alias(call.Key), err)
		}
	}
}

// failLocked counts a failure, and returns how many there were of it in a row
// and how many there may have been.
func (q *asking) failLocked(row string, began time.Duration) (failed, most int, within time.Duration) {
	q.node.w.mu.Lock()
	freed := q.node.freed
	q.node.w.mu.Unlock()
	s := q.failures[row]
	if s == nil {
		s = &streak{first: began, last: began, freed: freed}
		q.failures[row] = s
	}
	s.failed++
	s.first, s.last = min(s.first, began), max(s.last, began)
	within = s.last - s.first
	most = q.loops*roundsWithin(within) + freed - s.freed + 1 // what was written in vain is given back
	if q.steady > 0 {
		most = max(most, 2+int(within/q.steady))
	}
	return s.failed, most, within
}

// shortestPause is that after so many failed rounds: they double to 5 s, and
// each is spread by a half.
func shortestPause(failures int) time.Duration {
	return max(pollMin, min(pollMin<<min(failures-1, 10), 5*time.Second)/2)
}

// roundsWithin is how many rounds that fail may begin in a time.
func roundsWithin(d time.Duration) (rounds int) {
	for at := time.Duration(0); at <= d; at += shortestPause(rounds) * 100 / 104 {
		rounds++
	}
	return rounds
}

// waitedOut checks that an acquire that waits ends for a reason that time does
// not mend (R9.3): its own end, or a refusal that has lasted.
func (w *world) waitedOut(ctx context.Context, n *node, key string, met bool, err error) {
	if err == nil || !met || ctx.Err() != nil || errors.Is(err, lease.ErrClosed) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	limit := 2 * n.ttl * 100 / 104
	if errors.Is(err, kv.ErrRefused) && n.refused > 0 && w.elapsed()-n.refused >= limit {
		w.recordLocked(n, "refused for too long", key, 0)
		return
	}
	w.failLocked("R9.3", "%s does not wait for %s any more: %v", n.name, key, err)
}
