package pool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/internal/seam"
	"github.com/dynalock/dynalock/lease"
)

// ErrDone is what a Handler returns when its partition is finished for good:
// nobody works on it any more, unless Reopen asks for that.
var ErrDone = errors.New("pool: partition done")

// Causes of a handler's context, beside *lease.LostError.
var (
	// ErrDrainTimeout: the handler was asked to stop, because the partition moves
	// or Run ends, and did not within WithDrainTimeout.
	ErrDrainTimeout = errors.New("pool: drain timeout")
	// ErrStuck: the handler showed no progress for as long as WithProgressTimeout
	// allows.
	ErrStuck = errors.New("pool: no progress")
)

// Handler works on one partition until it has to stop. ctx ends with the
// partition's lease, at its loss at the latest, and context.Cause says why.
// Work.Draining asks earlier, so that the current piece of work can be finished
// first. What it returns decides how it goes on:
//
//   - nil gives the partition up. Whoever the next plan chooses goes on with it.
//   - ErrDone: the partition is finished for good. Its row says so then, also if
//     the client is closing. Where that cannot be written, because the lease is
//     lost or the store does not answer, the log says so.
//   - Any other error, or a panic, is logged. The handler is called again under
//     the same lease after a pause of 1 s to 1 min, unless it was asked to stop or
//     has failed as often as WithMaxAttempts allows.
//
// Before it has returned, the partition is neither given to anybody else nor
// worked on again here. Only the loss of the lease can let others begin.
type Handler func(ctx context.Context, w *Work) error

// Pool is a named set of partitions (shards, tenants, queues, jobs) that the
// members share evenly. One member at a time works on a partition, under a
// fencing token, and leaves a checkpoint. Whoever runs a Pool of that name is a
// member. There is no leader, and members do not talk to each other. Each lists
// sessions and partitions every plan interval and computes the same plan. It
// gives back what the plan gives to another, and takes what it is given. Where
// views differ, a conditional write fails.
//
// In steady state a member costs the heartbeats of its client, one write each,
// and two eventually consistent listings per plan interval, of the sessions and
// of the pool's partitions, whatever it works on. A move costs two writes and,
// for as long as the drain takes, a read per poll. On DynamoDB a listing of n
// rows of s bytes costs n·s/8192 read units, at least a half.
//
// The first member of a fleet that starts does not take everything, only to give
// most of it away. In the first tenth of a plan interval (1 s at the defaults) a
// member takes no more of what nobody has than WithMaxMoves at a time. Then it
// looks again who else has come, which costs one plan more. A fleet that takes
// longer to start is balanced a few moves at a time, as when a member joins
// later.
//
// In a batch job, whose partitions end with ErrDone, a member that has finished
// all it had plans again a tenth of a plan interval after its last plan, and
// while there is nothing for it twice as long after that each time, up to the
// interval. So it takes what others could not, and Run returns soon after the
// last partition is done. That costs up to five plans more each time.
// WithMaxPartitions keeps it from claiming more than it will soon work on, which
// others would have to wait for if it died.
//
// Make one with New. It is safe for concurrent use. Its methods but Run need no
// running member: a tool can use them.
type Pool struct {
	settings
	client *lease.Client
	parts  seam.Client
	clock  clock.Clock
	log    *slog.Logger
	name   string
	handle Handler
	slots  *slots

	mu       sync.Mutex
	cordoned bool
	// uncordon leaves the group that tells the others. It is nil when the member
	// is not cordoned or not running.
	uncordon func()
	running  bool
}

// New makes a Pool on a client, which it shares with whatever else the client is
// used for. It does no I/O. The name is 1 to 128 bytes of UTF-8 without a slash.
// The partitions' keys are pool/name/partition, where they can be inspected and
// broken like any. A tool that does not call Run needs no handler: nil.
//
// Options about the plan (intervals, weights) should be the same for all
// members. Else they disagree, safely, and partitions may lie idle.
func New(c *lease.Client, name string, handle Handler, options ...Option) (*Pool, error) {
	switch {
	case c == nil:
		return nil, fmt.Errorf("pool: New(%q): want a client: %w", name, lease.ErrInvalid)
	case name == "" || len(name) > 128 || !utf8.ValidString(name) || strings.Contains(name, "/"):
		return nil, fmt.Errorf("pool: New(%.40q): want a name of 1 to 128 bytes of UTF-8 without a slash: %w",
			name, lease.ErrInvalid)
	}
	parts := seam.Of(c)
	s, err := newSettings(parts, options)
	if err != nil {
		return nil, err
	}
	return &Pool{
		settings: s, client: c, parts: parts, clock: parts.Clock, log: parts.Log, name: name, handle: handle,
		slots: newSlots(parts.Clock, parts.AttemptTimeout),
	}, nil
}

// Groups that a member joins, so that the others know.
func (p *Pool) group() string       { return "pool/" + p.name }
func (p *Pool) cordonGroup() string { return "pool-cordoned/" + p.name }
func (p *Pool) maxGroup() string    { return "pool-max/" + p.name + "/" }

// key is the key of a partition.
func (p *Pool) key(partition string) string { return rows.PoolKeys + p.name + "/" + partition }

// Cordon makes this member take no new partitions. It keeps those it has, until
// they are paused, removed or given up. It costs one write, at once, while Run is
// running, and holds for later Runs. On failure the others may not know yet.
func (p *Pool) Cordon(ctx context.Context) error {
	p.mu.Lock()
	p.cordoned = true
	announce := p.running && p.uncordon == nil
	p.mu.Unlock()
	if announce {
		return p.tellCordon(ctx)
	}
	return nil
}

// Uncordon ends what Cordon began. The others learn of it with the next
// heartbeat, which is sent at once.
func (p *Pool) Uncordon() {
	p.mu.Lock()
	uncordon := p.uncordon
	p.cordoned, p.uncordon = false, nil
	p.mu.Unlock()
	if uncordon != nil {
		uncordon()
	}
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
