package pgkv

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"maps"
	"math"
	"time"

	"github.com/dynalock/dynalock/kv"
)

// AtomicPut implements kv.Store. It is one statement; a conflict takes a second
// one, to read the pair that stood in the way.
func (s *Store) AtomicPut(ctx context.Context, key string, options ...kv.WriteOption) (*kv.KVPair, error) {
	w, err := kv.AtomicPutSettings(key, options)
	if err != nil {
		return nil, err
	}
	fields, err := encodeFields(w.Fields)
	if err != nil {
		return nil, err
	}
	op := s.begin(key, true, w.AttemptTimeout, len(w.Value)+len(fields.String))
	var expires sql.NullTime
	if w.Previous == nil {
		err = s.create(ctx, op, &w, fields, &expires)
	} else {
		if err := op.follow(w.Previous); err != nil {
			return nil, err
		}
		err = s.compareAndSwap(ctx, op, w.Previous.Version, &expires, s.statements.swap, func() []any {
			return append(op.putArgs(&w, fields), w.KeepTTL, int64(w.Previous.Version))
		})
	}
	if err != nil {
		return nil, err
	}
	s.wrote(ctx)
	return kv.NewPair(key, op.version, bytes.Clone(w.Value), expiry(expires), maps.Clone(w.Fields)), nil
}

// AtomicDelete implements kv.Store. It leaves a tombstone. It costs what AtomicPut costs.
func (s *Store) AtomicDelete(ctx context.Context, key string, previous *kv.KVPair, options ...kv.DeleteOption) error {
	d, err := kv.CheckAtomicDelete(key, previous, options)
	if err != nil {
		return err
	}
	op := s.begin(key, true, d.AttemptTimeout, 0)
	if err := op.follow(previous); err != nil {
		return err
	}
	err = s.compareAndSwap(ctx, op, previous.Version, new(sql.NullTime), s.statements.atomicDelete, func() []any {
		return append(op.deleteArgs(), int64(op.version), int64(previous.Version), s.channel)
	})
	if err == nil {
		s.wrote(ctx)
	}
	return err
}

// follow gives the operation the version after that of previous.
func (op *operation) follow(previous *kv.KVPair) error {
	if previous.Version >= math.MaxInt64 {
		return fmt.Errorf("pgkv: key %q: no pair of this store has version %d: %w", op.key, previous.Version,
			kv.ErrInvalidOption)
	}
	op.version = previous.Version + 1
	return nil
}

// putArgs are the parameters $1 to $9 of a write of w.
func (op *operation) putArgs(w *kv.WriteSettings, fields sql.NullString) []any {
	var sweep sql.NullInt64
	if w.SweepAfter > 0 {
		sweep = sql.NullInt64{Int64: max(w.SweepAfter, retention).Milliseconds(), Valid: true}
	}
	value := w.Value
	if value == nil {
		value = []byte{} // nil would be NULL
	}
	return []any{
		op.store.namespace, []byte(op.key), int64(op.version), value, fields,
		sql.NullInt64{Int64: w.TTL.Milliseconds(), Valid: w.TTL > 0}, sweep, op.writer, op.deadline,
	}
}

// deleteArgs are the parameters $1 to $4 of a delete.
func (op *operation) deleteArgs() []any {
	return []any{op.store.namespace, []byte(op.key), op.writer, op.deadline}
}

// create applies an AtomicPut without a previous pair.
func (s *Store) create(ctx context.Context, op *operation, w *kv.WriteSettings, fields sql.NullString,
	expires *sql.NullTime) error {
	return op.run(ctx, func(ctx context.Context, conn *sql.Conn) (again bool, err error) {
		op.number()
		applied, r, err := op.apply(ctx, conn, s.statements.create, op.putArgs(w, fields), expires)
		switch {
		case applied || err != nil:
			return false, err
		case r.current() == nil && r.versionOf() < op.version:
			return false, op.missed()
		case op.unknown: // until the row's version has reached ours it may be applied (H14, W1)
			return false, op.uncertain(errOutcomeUnknown)
		case r.live:
			return false, &kv.ConflictError{Key: op.key, Create: true, Current: r.pair, Version: r.version}
		}
		// The server's clock was ahead of what somebody took it for. No attempt
		// is unknown, so another one above the dead row is a new write.
		op.version, op.writer = r.version+1, newWriter()
		return true, nil
	})
}

// number gives the operation the version of a create, which its attempts share.
func (op *operation) number() {
	if op.version == 0 {
		op.version = uint64(op.store.server.at(op.start).UnixMicro())
	}
}

// compareAndSwap sends a write that replaces the live row of version previous by
// one of version previous+1.
func (s *Store) compareAndSwap(ctx context.Context, op *operation, previous uint64, expires *sql.NullTime, query string,
	args func() []any) error {
	return op.run(ctx, func(ctx context.Context, conn *sql.Conn) (again bool, err error) {
		applied, r, err := op.apply(ctx, conn, query, args(), expires)
		switch {
		case applied || err != nil:
			return false, err
		case r.versionOf() == previous && r.live:
			return false, op.missed()
		// Ours is not in the row. It cannot have been if the row is still the
		// previous one, which has expired, or if another writer's took the only
		// version that ours could have.
		case op.unknown && r.versionOf() != previous && r.versionOf() != previous+1:
			return false, op.uncertain(errOutcomeUnknown)
		}
		return false, &kv.ConflictError{Key: op.key, Current: r.current(), Version: r.versionOf()}
	})
}

// apply runs a conditional write, and looks at the row if it was not applied. It
// was applied, too, if the row shows that an earlier attempt was.
func (op *operation) apply(ctx context.Context, conn *sql.Conn, query string, args []any,
	expires *sql.NullTime) (applied bool, r *row, err error) {
	var now time.Time
	applied, err = op.query(ctx, conn, true, query, args, expires, &now)
	if err != nil {
		return false, nil, err
	}
	if applied {
		op.store.server.hear(now, op.store.clock.Now())
		return true, nil, nil
	}
	r, err = op.readRow(ctx, conn)
	if err != nil {
		return false, nil, op.unreadable(err)
	}
	if r.isBy(op.writer) {
		*expires = sql.NullTime{Time: r.pair.Expires, Valid: !r.pair.Expires.IsZero()}
		return true, r, nil
	}
	return false, r, nil
}
