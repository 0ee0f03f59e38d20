package sqlkv

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
)

const (
	// sweepEvery is how many versions pass between two sweeps. sweepRows is how many
	// expired rows one removes at most, so that there are never many. sweepGrace is how
	// long a row stays for readers to see its version.
	sweepEvery = 64
	sweepRows  = 4 * sweepEvery
	sweepGrace = time.Minute
)

// transaction is a write transaction that has begun.
type transaction struct {
	// ctx never ends. A statement that is interrupted leaves a doubt, one that is not is
	// over in no time.
	ctx  context.Context
	conn *conn
	// start is when the operation began, now when it had the database for itself.
	start clock.Reading
	now   time.Time
	// version is what a conditional write gives its pair, 0 before it is known. counted
	// is what the counter of versions is set to, 0 if it is not.
	version, counted uint64
}

// Put implements kv.Store.
func (s *Store) Put(ctx context.Context, key string, options ...kv.WriteOption) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	settings, err := kv.PutSettings(key, options)
	if err != nil {
		return err
	}
	return s.transact(ctx, key, func(t *transaction) error {
		row, err := t.row(key)
		if err != nil {
			return err
		}
		live := livePair(row, t.now)
		if live != nil && len(live.Fields) > 0 {
			maps.Copy(live.Fields, settings.Fields)
			settings.Fields = live.Fields
		}
		_, err = t.write(key, settings, live)
		t.version = 0 // a blind write is not recognized by its version
		return err
	})
}

// AtomicPut implements kv.Store.
func (s *Store) AtomicPut(ctx context.Context, key string, options ...kv.WriteOption) (*kv.KVPair, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	settings, err := kv.AtomicPutSettings(key, options)
	if err != nil {
		return nil, err
	}
	var pair *kv.KVPair
	err = s.transact(ctx, key, func(t *transaction) error {
		live, err := t.check(key, settings.Previous)
		if err != nil {
			return err
		}
		pair, err = t.write(key, settings, live)
		return err
	})
	if err != nil {
		return nil, err
	}
	return pair, nil
}

// Delete implements kv.Store.
func (s *Store) Delete(ctx context.Context, key string, options ...kv.DeleteOption) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if _, err := kv.CheckDelete(key, options); err != nil {
		return err
	}
	return s.transact(ctx, key, func(t *transaction) error { return t.delete(key) })
}

// AtomicDelete implements kv.Store.
func (s *Store) AtomicDelete(ctx context.Context, key string, previous *kv.KVPair, options ...kv.DeleteOption) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if _, err := kv.CheckAtomicDelete(key, previous, options); err != nil {
		return err
	}
	return s.transact(ctx, key, func(t *transaction) error {
		if _, err := t.check(key, previous); err != nil {
			return err
		}
		var err error
		if t.version, err = t.nextVersion(); err != nil {
			return err
		}
		return t.delete(key)
	})
}

// transact runs fn in a write transaction and commits it. If fn fails, ctx ends or the
// operation is late, nothing is written. When the commit itself fails, the error says
// whether that is so: see settle.
func (s *Store) transact(ctx context.Context, key string, fn func(*transaction) error) (err error) {
	start := s.clock.Now()
	conn, err := s.take(ctx, s.writer)
	if err != nil {
		return classified(err)
	}
	var broken error // what is wrong with the connection, if anything is
	defer func() { s.give(s.writer, conn, broken) }()
	t := &transaction{ctx: context.WithoutCancel(ctx), conn: conn, start: start}
	var failed error
	if failed, broken, err = s.try(ctx, t, fn); failed == nil {
		return classified(err)
	}
	discard(conn)
	if conn, err = s.connect(t.ctx); err != nil {
		return &kv.UncertainError{Key: key, Version: t.version, Err: errors.Join(failed, err)}
	}
	err, broken = s.resolve(key, t, conn, failed)
	return classified(err)
}

// try begins t, runs fn and commits. err is why nothing was written. failed is what the
// commit failed with. broken is what is wrong with the connection besides.
func (s *Store) try(ctx context.Context, t *transaction, fn func(*transaction) error) (failed, broken, err error) {
	err = s.retryBusy(ctx, t.start, func() error {
		_, err := t.conn.ExecContext(t.ctx, "BEGIN IMMEDIATE")
		return err
	})
	if err != nil {
		return nil, err, err
	}
	t.now = s.clock.Now().Wall
	err = fn(t)
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = s.file.check()
	}
	if err == nil && s.clock.Now().Since(t.start) > lateLimit {
		err = fmt.Errorf("sqlkv: the operation is older than %v: %w", lateLimit, kv.ErrThrottled)
	}
	if err != nil {
		return nil, t.rollback(), err
	}
	_, failed = t.conn.ExecContext(t.ctx, "COMMIT")
	return failed, nil, nil
}

// resolve finds out on a new connection what became of t, whose commit failed. It returns
// the error of the operation. If nothing was counted since t began, t was not applied.
// Else it is a *kv.UncertainError with the current pair.
//
// It counts a version, for the write's sake. The log may end with all of t: unseen by
// readers, but found by recovery once all processes have crashed. The next commit goes
// over it.
func (s *Store) resolve(key string, t *transaction, conn *conn, cause error) (err, broken error) {
	uncertain := &kv.UncertainError{Key: key, Version: t.version, Err: cause}
	var row *kv.KVPair
	var counted uint64
	check := &transaction{ctx: t.ctx, conn: conn, start: s.clock.Now()}
	failed, broken, err := s.try(t.ctx, check, func(check *transaction) (err error) {
		if row, err = check.row(key); err != nil {
			return err
		}
		counted, err = check.nextVersion()
		return err
	})
	switch {
	case failed != nil:
		uncertain.Err = errors.Join(cause, failed)
		return uncertain, sql.ErrConnDone
	case err != nil:
		uncertain.Err = errors.Join(cause, err)
		return uncertain, broken
	case counted == t.counted:
		return fmt.Errorf("sqlkv: writing %q: not committed: %w", key, cause), nil
	}
	uncertain.Current = livePair(row, check.now)
	return uncertain, nil
}

// rollback ends the transaction. If that fails, the connection may still be in it: the
// error makes give discard it.
func (t *transaction) rollback() error {
	if _, err := t.conn.ExecContext(t.ctx, "ROLLBACK"); err != nil {
		return errors.Join(sql.ErrConnDone, err)
	}
	return nil
}

// row returns the pair of key, live or expired, nil if there is none.
func (t *transaction) row(key string) (*kv.KVPair, error) {
	return rowOf(t.conn.QueryRowContext(t.ctx, selectRow(columns), []byte(key)))
}

// check returns the live pair of key, or the conflict of a write that depends on previous.
func (t *transaction) check(key string, previous *kv.KVPair) (*kv.KVPair, error) {
	row, err := t.row(key)
	if err != nil {
		return nil, err
	}
	live := livePair(row, t.now)
	if previous == nil && live == nil || previous != nil && live != nil && live.Version == previous.Version {
		return live, nil
	}
	conflict := &kv.ConflictError{Key: key, Create: previous == nil, Current: live}
	if row != nil {
		conflict.Version = row.Version
	}
	return nil, conflict
}

// write replaces the row of key, whose live pair is live, and returns what it wrote.
func (t *transaction) write(key string, settings kv.WriteSettings, live *kv.KVPair) (*kv.KVPair, error) {
	var expires time.Time
	switch {
	case settings.TTL > 0:
		expires = time.UnixMilli(t.start.Wall.UnixMilli() + settings.TTL.Milliseconds())
	case settings.KeepTTL && live != nil:
		expires = live.Expires
	}
	fields, err := encodeFields(settings.Fields)
	if err != nil {
		return nil, err
	}
	if t.version, err = t.nextVersion(); err != nil {
		return nil, err
	}
	value := append([]byte{}, settings.Value...)
	_, err = t.conn.ExecContext(t.ctx,
		`INSERT INTO kv (key, version, expires, fields, value) VALUES (?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE
		SET version = excluded.version, expires = excluded.expires, fields = excluded.fields, value = excluded.value`,
		[]byte(key), int64(t.version), sql.NullInt64{Int64: expires.UnixMilli(), Valid: !expires.IsZero()}, fields, value)
	if err != nil {
		return nil, fmt.Errorf("sqlkv: writing %q: %w", key, err)
	}
	if t.version%sweepEvery == 0 {
		if err := t.sweep(); err != nil {
			return nil, err
		}
	}
	return kv.NewPair(key, t.version, value, expires, settings.Fields), nil
}

// nextVersion counts the store's versions up.
func (t *transaction) nextVersion() (uint64, error) {
	var version int64
	err := t.conn.QueryRowContext(t.ctx,
		`UPDATE kv_meta SET value = value + 1 WHERE name = 'version' RETURNING value`).Scan(&version)
	if err != nil {
		return 0, fmt.Errorf("sqlkv: counting versions: %w", err)
	}
	t.counted = uint64(version)
	return t.counted, nil
}

// delete removes the row of key. Later versions are greater all the same, as the counter stays.
func (t *transaction) delete(key string) error {
	if _, err := t.conn.ExecContext(t.ctx, `DELETE FROM kv WHERE key = ?`, []byte(key)); err != nil {
		return fmt.Errorf("sqlkv: deleting %q: %w", key, err)
	}
	return nil
}

// sweep removes rows that expired a while ago.
func (t *transaction) sweep() error {
	_, err := t.conn.ExecContext(t.ctx, `DELETE FROM kv WHERE key IN (SELECT key FROM kv WHERE expires <= ? LIMIT ?)`,
		t.now.Add(-sweepGrace).UnixMilli(), sweepRows)
	if err != nil {
		return fmt.Errorf("sqlkv: removing expired rows: %w", err)
	}
	return nil
}
