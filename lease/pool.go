package lease

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"unicode/utf8"
)

// ErrDone is what a Pool's handler returns when its partition is finished for good: nobody works on it any more, unless Reopen asks for that.
var ErrDone = errors.New("lease: partition done")

// Causes of a handler's context, beside *LostError.
var (
	// ErrDrainTimeout: the handler was asked to stop, because the partition moves or Run ends, and did not within WithDrainTimeout.
	ErrDrainTimeout = errors.New("lease: drain timeout")
	// ErrStuck: the handler showed no progress for as long as WithProgressTimeout allows.
	ErrStuck = errors.New("lease: no progress")
)

// Handler works on one partition, whose lease l it is given, until it has to stop. ctx ends with the lease, at its loss at the latest, and
// context.Cause says why; Draining(ctx) asks earlier, so that the current piece of work can be finished first. l.Value is the
// checkpoint that the predecessor left, nil if there is none, l.Update writes a new one, and l.Token is for the resource to check. A handler
// does not release l.
//
// It returns nil to give the partition up: whoever the next plan chooses goes on with it. ErrDone: it is finished for good, which the partition's row
// then says, also if the client is closing; where that cannot be written, because the lease is lost or the store does not answer, the log says so. Any other error, or a
// panic, is logged, and the handler is called again with the same lease after a pause of 1 s to 1 min, unless it was asked to stop. Before it has
// returned, the partition is neither given to anybody else nor worked on again here; only the loss of the lease can let others begin.
type Handler func(ctx context.Context, l *Lease) error

// Pool is a named set of partitions (shards, tenants, queues, jobs) that the live members share evenly, each worked on by one of them at
// a time under a fencing token, with its checkpoint. Everyone who runs a Pool of that name is a member: there is no leader, and members
// do not talk to each other. Each lists sessions and partitions every plan interval and computes the same plan; it gives back what the plan
// gives to another, and takes what it is given. Where views differ, a conditional write fails.
//
// In steady state a member costs the heartbeats of its client, one write each, and two eventually consistent listings per plan interval, of
// the sessions and of the pool's partitions, whatever it works on. A move costs two writes and, for as long as the drain takes, a read per
// poll. On DynamoDB a listing of n rows of s bytes costs n·s/8192 read units, at least a half.
//
// The first member of a fleet that starts does not take everything, only to give most of it away: in the first tenth of a plan interval (1 s at
// the defaults) a member takes no more of what nobody has than WithMaxMoves at a time, and then looks again who else has come. That costs one
// plan more. A fleet that takes longer to start is balanced a few moves at a time, as when a member joins later.
//
// In a batch job, whose partitions end with ErrDone, a member that has finished all it had plans again a tenth of a plan interval after its last
// plan, and while there is nothing for it twice as long after that each time, up to the interval: so it takes what others could not, and
// Run returns soon after the last partition is done. That costs up to five plans more each time. WithMaxPartitions keeps it from claiming more than it will
// soon work on, which others would have to wait for if it died.
//
// Make one with NewPool. It is safe for concurrent use. Its methods but Run need no running member: a tool can use them.
type Pool struct {
	poolSettings
	client *Client
	name   string
	handle Handler
	slots  *slots

	mu       sync.Mutex
	cordoned bool
	// uncordon leaves the group that tells the others; nil when not cordoned or not running.
	uncordon func()
	running  bool
}

// NewPool makes a Pool on a client, which it shares with whatever else the client is used for. The name is 1 to 128 bytes of
// UTF-8 without a slash; the partitions' keys are name/partition, where they can be inspected and broken like any. It does no I/O. A
// tool that does not call Run needs no handler: nil. Options about the plan (intervals, weights) should be the same for all members: else they disagree, safely, and partitions may lie idle.
func NewPool(c *Client, name string, handle Handler, options ...PoolOption) (*Pool, error) {
	switch {
	case c == nil:
		return nil, fmt.Errorf("lease: NewPool(%q): want a client: %w", name, ErrInvalid)
	case name == "" || len(name) > 128 || !utf8.ValidString(name) || strings.Contains(name, "/"):
		return nil, fmt.Errorf("lease: NewPool(%.40q): want a name of 1 to 128 bytes of UTF-8 without a slash: %w", name, ErrInvalid)
	}
	s, err := newPoolSettings(c, options)
	if err != nil {
		return nil, err
	}
	return &Pool{poolSettings: s, client: c, name: name, handle: handle, slots: newSlots(c)}, nil
}

// Groups that a member joins, so that the others know.
func (p *Pool) group() string       { return "pool/" + p.name }
func (p *Pool) cordonGroup() string { return "pool-cordoned/" + p.name }
func (p *Pool) mostGroup() string   { return "pool-most/" + p.name + "/" }

// key is the key of a partition.
func (p *Pool) key(partition string) string { return p.name + "/" + partition }

// Cordon makes this member take no new partitions; it keeps those it has, until they are paused, removed or given up. on false ends that. It
// costs one write, at once, while Run is running, and holds for later Runs. On failure the others may not know yet.
func (p *Pool) Cordon(ctx context.Context, on bool) error {
	p.mu.Lock()
	p.cordoned = on
	running, uncordon := p.running, p.uncordon
	if !on {
		p.uncordon = nil
	}
	p.mu.Unlock()
	switch {
	case !on && uncordon != nil:
		uncordon()
	case on && running && uncordon == nil:
		return p.tellCordon(ctx)
	}
	return nil
}

// tellCordon joins the group of the cordoned.
func (p *Pool) tellCordon(ctx context.Context) error {
	leave, err := p.client.Join(ctx, p.cordonGroup())
	if err != nil {
		return err
	}
	p.mu.Lock()
	if p.cordoned && p.running && p.uncordon == nil {
		p.uncordon, leave = leave, nil
	}
	p.mu.Unlock()
	if leave != nil {
		leave() // it was taken back meanwhile
	}
	return nil
}
