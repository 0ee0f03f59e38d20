package pgkv

import (
	"context"
	"database/sql"
	"errors"

	"github.com/dynalock/dynalock/kv"
)

// Get implements kv.Store. It is one statement.
func (s *Store) Get(ctx context.Context, key string, options ...kv.ReadOption) (*kv.KVPair, error) {
	settings, err := kv.GetSettings(key, options)
	if err != nil {
		return nil, err
	}
	op := s.begin(key, false, settings.AttemptTimeout, kv.MaxPairSize)
	var r *row
	err = op.run(ctx, func(ctx context.Context, conn *sql.Conn) (again bool, err error) {
		r, err = op.readRow(ctx, conn)
		return false, err
	})
	if err != nil {
		return nil, err
	}
	if pair := r.current(); pair != nil {
		return pair, nil
	}
	return nil, &kv.NotFoundError{Key: key, Version: r.versionOf()}
}

// Exists implements kv.Store.
func (s *Store) Exists(ctx context.Context, key string, options ...kv.ReadOption) (bool, error) {
	_, err := s.Get(ctx, key, options...)
	if errors.Is(err, kv.ErrKeyNotFound) {
		return false, nil
	}
	return err == nil, err
}
