package pgkv

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/dynalock/dynalock/kv"
)

// row is what the table holds under a key.
type row struct {
	version uint64
	live    bool // by the server's clock
	pair    *kv.KVPair
	writer  []byte
}

// current returns the live pair, nil if there is none.
func (r *row) current() *kv.KVPair {
	if r == nil || !r.live {
		return nil
	}
	return r.pair
}

// versionOf returns the row's version, 0 if there is none.
func (r *row) versionOf() uint64 {
	if r == nil {
		return 0
	}
	return r.version
}

// isBy reports whether writer wrote the row.
func (r *row) isBy(writer []byte) bool { return r != nil && bytes.Equal(r.writer, writer) }

// look reads the row of the operation's key, nil if there is none.
func (op *operation) readRow(ctx context.Context, conn *sql.Conn) (*row, error) {
	s := op.store
	var (
		version sql.NullInt64
		live    bool
		expires sql.NullTime
		fields  sql.NullString
		r       row
		value   []byte
	)
	_, err := op.query(ctx, conn, false, s.statements.row, []any{s.namespace, []byte(op.key)},
		&version, &live, &expires, &fields, &value, &r.writer, &op.lastLook)
	if err != nil {
		return nil, err
	}
	s.server.hear(op.lastLook, s.clock.Now())
	op.current = nil
	if !version.Valid {
		return nil, nil
	}
	if r.pair, err = makePair(op.key, version.Int64, expires, fields, value); err != nil {
		return nil, err
	}
	r.version, r.live = r.pair.Version, live
	op.current = r.current()
	return &r, nil
}

// makePair checks what was read.
func makePair(key string, version int64, expires sql.NullTime, text sql.NullString, value []byte) (*kv.KVPair, error) {
	if version <= 0 {
		return nil, &kv.FormatError{Key: key, Problem: fmt.Sprintf("version %d, want more than 0", version)}
	}
	fields, err := decodeFields(text.String)
	if err != nil {
		return nil, &kv.FormatError{Key: key, Problem: err.Error()}
	}
	return kv.NewPair(key, uint64(version), value, expiry(expires), fields), nil
}

// expiry returns the expiry of a pair, the zero time for never.
func expiry(expires sql.NullTime) time.Time {
	if !expires.Valid {
		return time.Time{}
	}
	return time.UnixMilli(expires.Time.UnixMilli())
}

// unreadable returns the error of an operation that met a row that cannot be
// read: what became of an unknown attempt it cannot tell.
func (op *operation) unreadable(err error) error {
	if op.unknown && errors.Is(err, kv.ErrFormat) {
		return op.uncertain(errors.New(err.Error()))
	}
	return err
}
