package session

import (
	"context"

	"github.com/dynalock/dynalock/internal/retry"
	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/kv"
)

// Unlanded is a session row whose create has an unknown outcome. Nobody has ever
// trusted it, and nothing names it. It may be there, or land later.
type Unlanded struct {
	config Config
	key    string
	record rows.Session
	// ending is held while it is created and deleted: what another one creates
	// meanwhile would land after that. ended: it is known to be over.
	ending chan struct{}
	ended  bool
}

// End makes sure that the row is not there and cannot land any more: it creates
// the same row again and deletes it, so that the older create finds a version that
// is not below its own (S3). It costs two writes, or one where the row has landed.
// It tries until that is known or ctx ends. Two callers take turns.
func (u *Unlanded) End(ctx context.Context) error {
	return retry.UntilKnown(ctx, u.config.Clock, func() error {
		select {
		case u.ending <- struct{}{}:
			defer func() { <-u.ending }()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if u.ended {
			return nil
		}
		err := u.try(ctx)
		u.ended = err == nil
		return err
	})
}

// try creates the row and deletes it.
func (u *Unlanded) try(ctx context.Context) error {
	pair, err := u.config.Store.AtomicPut(ctx, u.key, u.record.Options(nil, u.config.Attempts)...)
	current, conflict := rows.CurrentPair(err)
	switch {
	case err == nil:
	case conflict && current != nil:
		pair = current // it has landed, or our own attempt before
	default:
		return err
	}
	return u.delete(ctx, pair)
}

func (u *Unlanded) delete(ctx context.Context, pair *kv.KVPair) error {
	err := u.config.Store.AtomicDelete(ctx, u.key, pair, u.config.Attempts)
	current, conflict := rows.CurrentPair(err)
	switch {
	case err == nil, conflict && current == nil:
		return nil
	case conflict:
		return retry.ErrAgain // the older create has landed in between
	}
	return err
}
