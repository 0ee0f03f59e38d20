package session

import (
	"context"
	"errors"

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
	// version is the greatest that a create of unknown outcome may give the row. It
	// cannot land any more where the row has had that one.
	version uint64
	// ending is held while it is created and deleted: what another one creates
	// meanwhile would land after that. ended: it is known to be over.
	ending chan struct{}
	ended  bool
}

// errLandsYet says that the row was created and deleted at a version below that
// of an older create, since the clock was set back in between.
var errLandsYet = errors.New("lease: a create of the same row has a greater version, and may land yet")

// End makes sure that the row is not there and cannot land any more: it creates
// the same row again and deletes it, so that the older create finds a version that
// is not below its own (S3). It costs two writes, or one where the row has landed.
// It tries until that is known or ctx ends. Two callers take turns.
func (u *Unlanded) End(ctx context.Context) error {
	return retry.UntilKnown(ctx, u.config.Clock, func() error { return u.TryEnd(ctx) })
}

// TryEnd is one attempt of End's, for retry.UntilKnown.
func (u *Unlanded) TryEnd(ctx context.Context) error {
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
		u.note(err)
		return err
	}
	if err := u.delete(ctx, pair); err != nil {
		return err
	}
	if pair.Version < u.version {
		return errLandsYet
	}
	return nil
}

// note takes the version of a create that failed with err, and may land yet. 0:
// a wrapper has hidden it.
func (u *Unlanded) note(err error) {
	uncertain := &kv.UncertainError{}
	errors.As(err, &uncertain)
	u.version = max(u.version, uncertain.Version)
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
