package pool

import (
	"context"
	"errors"
	"fmt"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/retry"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// permanent reports whether err is one that waiting does not mend.
func permanent(err error) bool {
	return retry.IsPermanent(err, lease.ErrClosed, lease.ErrInvalid)
}

// stopAtPermanent makes an error that waiting does not mend one to stop at.
func stopAtPermanent(err error) error {
	if permanent(err) {
		return retry.Stop(err)
	}
	return err
}

// untilKnown calls do until it returns nil or an error of retry.Stop, or ctx
// ends. It pauses between failures.
func (p *Pool) untilKnown(ctx context.Context, do func() error) error {
	return retry.UntilKnown(ctx, p.clock, do)
}

// add makes the row of a partition. If there is one, what it says decides: it may
// be there to stay, or about to be removed, which add takes back on the version
// that it was shown. Where the outcome is unknown, or the row has gone meanwhile,
// it goes round again: nothing but a row that was written or seen is an answer.
func (p *Pool) add(ctx context.Context, name string) error {
	return p.untilKnown(ctx, func() error {
		h, err := p.client.Keep(ctx, p.key(name), state{}.encode(nil))
		switch {
		case errors.Is(err, kv.ErrUncertain), errors.Is(err, kv.ErrKeyExists):
			return err
		case err != nil:
			return retry.Stop(err)
		}
		r, err := decode(name, h)
		if err != nil {
			return retry.Stop(err)
		}
		return p.change(ctx, r, func(m *marks) { m.Removed = false })
	})
}

// mark changes a partition's marks, if there is such a partition. When somebody
// else was faster it pauses, like after a failure, and tries again.
func (p *Pool) mark(ctx context.Context, name string, change func(*marks)) error {
	return p.untilKnown(ctx, func() error {
		r, err := p.read(ctx, name)
		if err != nil || r == nil {
			return err
		}
		return p.change(ctx, r, change)
	})
}

// change writes the marks of a partition over those that r shows, unless they are
// so already. It does so whoever has the partition.
func (p *Pool) change(ctx context.Context, r *row, change func(*marks)) error {
	changed := r.marks
	change(&changed)
	if string(changed.encode()) == string(r.marks.encode()) {
		return nil
	}
	return stopAtPermanent(p.client.Annotate(ctx, r.Holder, changed.encode()))
}

// reopen makes a partition that is done or failed one to be worked on again.
func (p *Pool) reopen(ctx context.Context, name string) error {
	return p.untilKnown(ctx, func() error {
		r, err := p.read(ctx, name)
		if err != nil || r == nil || !r.state.ended() {
			return err
		}
		return stopAtPermanent(p.client.Replace(ctx, r.Holder, state{}.of(r.state).encode(r.checkpoint)))
	})
}

// read reads a partition's row, nil if there is none.
func (p *Pool) read(ctx context.Context, name string) (*row, error) {
	h, err := p.client.Holder(ctx, p.key(name))
	if err != nil {
		return nil, stopAtPermanent(err)
	}
	if h.Version == 0 {
		return nil, nil
	}
	r, err := decode(name, h)
	return r, stopAtPermanent(err)
}

// whenIdle waits until nobody has a partition that was marked, or who has it is
// dead, and calls do with its row, but not if there is none. It ends with the
// error of marked as soon as the marks are others. A conflict of what do writes
// is looked into after a pause.
func (p *Pool) whenIdle(ctx context.Context, name string, marked func(marks) error, do func(*row) error) error {
	began := p.clock.Now()
	for {
		var owned error
		err := p.untilKnown(ctx, func() error {
			r, err := p.read(ctx, name)
			if err != nil || r == nil {
				owned = nil
				return err
			}
			if err := marked(r.marks); err != nil {
				return retry.Stop(err)
			}
			if owned, err = p.hasOwner(ctx, r); err != nil || owned != nil {
				return err
			}
			return stopAtPermanent(do(r))
		})
		if err != nil || owned == nil {
			return err
		}
		pause := min(max(p.clock.Now().MonotonicSince(began)/10, p.parts.PollMin), p.parts.PollMax)
		if err := clock.Sleep(ctx, p.clock, pause); err != nil {
			return fmt.Errorf("%w: %w", owned, err)
		}
	}
}

// hasOwner returns who has a partition, as an error, nil if nobody has or who has
// it is dead. That he cannot be asked after is waited out, unless it can never be
// known: that is an error to stop at.
func (p *Pool) hasOwner(ctx context.Context, r *row) (owned, err error) {
	if r.Session == "" {
		return nil, nil
	}
	dead, err := p.client.Dead(ctx, r.Session)
	switch {
	case permanent(err):
		return nil, retry.Stop(err)
	case dead:
		return nil, nil
	}
	held := &lease.HeldError{Holder: *r.Holder}
	if err != nil {
		return fmt.Errorf("%w, who cannot be asked after: %w", held, err), nil
	}
	return held, nil
}
