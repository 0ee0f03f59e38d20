package pgkv

import (
	"context"
	"database/sql"
	"time"

	"github.com/dynalock/dynalock/kv"
)

// Put implements kv.Store. It is one statement.
func (s *Store) Put(ctx context.Context, key string, options ...kv.WriteOption) error {
	w, err := kv.PutSettings(key, options)
	if err != nil {
		return err
	}
	fields, err := encodeFields(w.Fields)
	if err != nil {
		return err
	}
	op := s.begin(key, true, w.AttemptTimeout, len(w.Value)+len(fields.String))
	var number uint64 // of a new row: not an UncertainError's, as over a row it is another
	return s.blind(ctx, op, s.statements.put, func() []any {
		if number == 0 {
			number = uint64(s.server.at(op.start).UnixMicro())
		}
		args := append(op.putArgs(&w, fields), w.KeepTTL)
		args[2] = int64(number)
		return args
	})
}

// Delete implements kv.Store. It is one statement, and leaves a tombstone where
// there was a pair.
func (s *Store) Delete(ctx context.Context, key string, options ...kv.DeleteOption) error {
	d, err := kv.CheckDelete(key, options)
	if err != nil {
		return err
	}
	op := s.begin(key, true, d.AttemptTimeout, 0)
	return s.blind(ctx, op, s.statements.delete, op.deleteArgs)
}

// blind runs a write that depends on nothing. It returns a row unless its
// deadline has passed.
func (s *Store) blind(ctx context.Context, op *operation, query string, args func() []any) error {
	err := op.run(ctx, func(ctx context.Context, conn *sql.Conn) (again bool, err error) {
		if op.unknown { // rather not twice
			if r, err := op.readRow(ctx, conn); err != nil || r.isBy(op.writer) {
				return false, op.unreadable(err)
			}
		}
		var now time.Time
		applied, err := op.query(ctx, conn, true, query, args(), new(sql.NullTime), &now)
		switch {
		case err != nil:
			return false, err
		case !applied:
			return false, op.expired()
		}
		s.server.hear(now, s.clock.Now())
		return false, nil
	})
	if err == nil {
		s.wrote(ctx)
	}
	return err
}
