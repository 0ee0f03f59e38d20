package lease

import (
	"context"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
)

// restShare is how many times longer than its rest a client has a key before
// it rests: so a rest costs a key that nobody else wants a twentieth of its
// time at most (R15).
const restShare = 20

// A turn is what a client remembers of a key that it has just released. Who
// locks and unlocks in a loop leaves the key free for an instant at a time,
// and other processes, who only look now and then, never find it so.
type turn struct {
	// stint is since when the client has had the key in one go.
	stint time.Duration
	// freed is when the client began to release it, or, once that is known,
	// when the key was free.
	freed time.Duration
	// rest is how long after freed the client leaves the key to others, if it
	// rests. Who takes it again sooner has it in one go.
	rest  time.Duration
	rests bool
}

// over reports whether others have had their chance since.
func (t turn) over(now time.Duration) bool { return now-t.freed >= t.rest }

// turns are the turns that have just ended, by key.
type turns struct {
	byKey map[string]turn
	// sweepAt is at which size those that are over are forgotten.
	sweepAt int
}

// endTurn notes that a lease is being released, and reports whether the
// client leaves the key to others now. The rest is one and a half times the
// poll of one who has waited since the key was granted, so that who waits
// elsewhere looks meanwhile. The caller holds c.mu.
func (c *Client) endTurn(l *Lease) (rests bool) {
	now := c.clock.Now().Mono
	poll := min(max((now-l.granted)/10, c.pollMin), c.pollMax)
	t := turn{stint: l.stint, freed: now, rest: poll + poll/2}
	t.rests = now-t.stint >= restShare*t.rest
	c.turns.add(l.key, t)
	return t.rests
}

func (t *turns) add(key string, ended turn) {
	if len(t.byKey) >= t.sweepAt {
		for key, old := range t.byKey {
			if old.over(ended.freed) {
				delete(t.byKey, key)
			}
		}
		t.sweepAt = max(64, 2*len(t.byKey))
	}
	if t.byKey == nil {
		t.byKey = map[string]turn{}
	}
	t.byKey[key] = ended
}

// turnEnded notes that the key is free: a rest counts from here.
func (c *Client) turnEnded(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t, ok := c.turns.byKey[key]; ok {
		t.freed = c.clock.Now().Mono
		c.turns.byKey[key] = t
	}
}

// rest waits until others have had their chance, if this client has had the
// key for long. Who only tries does not wait longer than a minimum poll.
func (c *Client) rest(ctx context.Context, r *request) error {
	c.mu.Lock()
	t := c.turns.byKey[r.key]
	c.mu.Unlock()
	if !t.rests {
		return nil
	}
	left := t.rest - (c.clock.Now().Mono - t.freed)
	if !r.waits {
		left = min(left, c.pollMin)
	}
	return clock.Sleep(ctx, c.clock, left)
}

// beginTurn returns the time of a grant, and since when this client has the
// key in one go.
func (c *Client) beginTurn(r *request) (granted, stint time.Duration) {
	now := c.clock.Now().Mono
	c.mu.Lock()
	defer c.mu.Unlock()
	t, ok := c.turns.byKey[r.key]
	delete(c.turns.byKey, r.key)
	if !ok || r.blocked || t.over(now) {
		return now, now
	}
	return now, t.stint
}
