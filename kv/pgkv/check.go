package pgkv

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/dynalock/dynalock/kv"
)

// CheckQuery returns a statement for the caller's own transaction on the
// database: it returns a row if c holds, and none if it does not, after which
// the transaction must be rolled back. If it holds it goes on to hold until the
// transaction ends, as the row of the pair is locked: whoever wants to change
// the pair waits. So let such a transaction be short, and release a lease after
// it, not inside.
//
// The parameters are a string, []byte, string and string. c is in terms of this
// Store's keys: see kv.ResolveCondition.
func (s *Store) CheckQuery(c kv.Condition) (query string, args []any, err error) {
	// As the options of a write, key and field are checked and normalized as those of a write are.
	w, err := kv.AtomicPutSettings(c.Key, []kv.WriteOption{kv.WithFields(kv.Fields{c.Field: c.Value})})
	if err != nil {
		return "", nil, fmt.Errorf("pgkv: condition: %w", err)
	}
	value, err := json.Marshal(encodeField(w.Fields[c.Field]))
	if err != nil {
		return "", nil, fmt.Errorf("pgkv: condition: %w", err)
	}
	return s.statements.check, []any{s.namespace, []byte(c.Key), escape.Replace(c.Field), string(value)}, nil
}

// Check guards what tx writes by a condition, such as that of a lease: a holder
// that has lost the lease cannot commit. It runs CheckQuery's statement, as the
// first of tx or as any other. tx is on the database of the Store.
//
// A condition that does not hold is a *kv.ConflictError, without the pair that
// stands in the way. After any error the caller rolls tx back.
func (s *Store) Check(ctx context.Context, tx *sql.Tx, c kv.Condition) error {
	query, args, err := s.CheckQuery(c)
	if err != nil {
		return err
	}
	var version int64
	err = tx.QueryRowContext(ctx, query, args...).Scan(&version)
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("pgkv: the condition does not hold: %w", &kv.ConflictError{Key: c.Key})
	}
	if err != nil {
		return fmt.Errorf("pgkv: checking the condition on key %q: %w", c.Key, err)
	}
	return nil
}
