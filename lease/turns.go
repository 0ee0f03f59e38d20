package lease

import (
	"context"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
)

// yieldShare is how many times longer than it yields a client has a key before
// it yields: so that costs a key that nobody else wants a twentieth of its time
// at most (R15).
const yieldShare = 20

// A turn is what a client remembers of a key that it has just released. Who
// locks and unlocks in a loop leaves the key free for an instant at a time,
// and other processes, who only look now and then, never find it so.
type turn struct {
	// stint is since when the client has had the key in one go. rested is when it
	// last left the key free for a minimum poll, stint if it has not since.
	stint, rested time.Duration
	// freed is when the client began to release it, or, once that is known,
	// when the key was free.
	freed time.Duration
	// yield is how long after freed the client leaves the key to others, if it
	// yields. Who takes it again sooner has it in one go.
	yield  time.Duration
	yields bool
}

// maxTurns is of how many keys a client remembers its turns. What is forgotten
// counts as a new one.
const maxTurns = 256

// endTurn notes that a lease is being released, and reports whether the
// client leaves the key to others now. That is for one and a half times the
// poll of one who has waited since the key was granted, so that who waits
// elsewhere looks meanwhile. The caller holds c.keys.mu.
func (c *Client) endTurn(l *Lease) (yields bool) {
	now := c.clock.Now().Mono
	poll := min(max((now-l.granted)/10, c.pollMin), c.pollMax)
	t := turn{stint: l.stint, rested: l.rested, freed: now, yield: poll + poll/2}
	t.yields = now-t.stint >= yieldShare*t.yield
	for key := range c.keys.turns {
		if len(c.keys.turns) < maxTurns {
			break
		}
		delete(c.keys.turns, key)
	}
	c.keys.turns[l.key] = t
	return t.yields
}

// turnEnded notes that the key is free: what it yields counts from here.
func (c *Client) turnEnded(key string) {
	c.keys.mu.Lock()
	defer c.keys.mu.Unlock()
	if t, ok := c.keys.turns[key]; ok {
		t.freed = c.clock.Now().Mono
		c.keys.turns[key] = t
	}
}

// yield waits until others have had their chance, if this client has had the
// key for long. Who only tries does not wait longer than a minimum poll, and for
// a twentieth of the time at most.
func (c *Client) yield(ctx context.Context, r *request) error {
	if r.private {
		return nil
	}
	c.keys.mu.Lock()
	t := c.keys.turns[r.key]
	c.keys.mu.Unlock()
	left := t.left(c.clock.Now().Mono)
	if !r.waits {
		left = min(left, c.pollMin)
	}
	if left <= 0 || !r.waits && t.freed-t.rested < yieldShare*left {
		return nil
	}
	return clock.Sleep(ctx, c.clock, left)
}

// yieldLeft is for how long this client leaves the key to others, 0 or less: it
// does not.
func (c *Client) yieldLeft(key string) time.Duration {
	c.keys.mu.Lock()
	defer c.keys.mu.Unlock()
	return c.keys.turns[key].left(c.clock.Now().Mono)
}

// left is for how long from now on the key is left to others.
func (t turn) left(now time.Duration) time.Duration {
	if !t.yields {
		return 0
	}
	return t.yield - (now - t.freed)
}

// beginTurn tells l when it was granted, and since when this client has the key
// in one go.
func (c *Client) beginTurn(r *request, l *Lease) {
	now := c.clock.Now().Mono
	c.keys.mu.Lock()
	defer c.keys.mu.Unlock()
	t, ok := c.keys.turns[r.key]
	delete(c.keys.turns, r.key)
	l.granted, l.stint, l.rested = now, now, now
	free := now - t.freed
	if !ok || r.blocked || free >= t.yield {
		return
	}
	l.stint = t.stint
	if free < c.pollMin {
		l.rested = t.rested
	}
}
