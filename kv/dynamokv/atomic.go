package dynamokv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/dynalock/dynalock/kv"
)

// errOutcomeUnknown is why a conflict after an unknown attempt settles nothing.
var errOutcomeUnknown = errors.New("dynamokv: an attempt's answer was lost, " +
	"and the key's row does not tell whether it was applied")

// AtomicPut implements kv.Store. It is a PutItem, which replaces the item whole.
func (s *Store) AtomicPut(ctx context.Context, key string, options ...kv.WriteOption) (*kv.KVPair, error) {
	w, err := kv.AtomicPutSettings(key, options)
	if err != nil {
		return nil, err
	}
	if err := s.checkFields(key, w.Fields); err != nil {
		return nil, err
	}
	op := s.begin(key, true, w.AttemptTimeout, w.Size)
	op.urgent = w.Urgent
	if w.Previous == nil {
		return s.create(ctx, op, &w)
	}
	if err := setNextVersion(op, w.Previous); err != nil {
		return nil, err
	}
	e := newExpression()
	put := s.newRow(op, &w, op.version)
	send := s.putItem(put, e, e.liveAt(w.Previous.Version, op.wall()))
	if err := s.compareAndSwap(ctx, op, w.Previous.Version, writerOf(put), send); err != nil {
		return nil, err
	}
	return s.written(op, &w), nil
}

// AtomicDelete implements kv.Store. It replaces the item by a bare tombstone, or removes it
// if the retention is 0.
func (s *Store) AtomicDelete(ctx context.Context, key string, previous *kv.KVPair, options ...kv.DeleteOption) error {
	d, err := kv.CheckAtomicDelete(key, previous, options)
	if err != nil {
		return err
	}
	op := s.begin(key, true, d.AttemptTimeout, 0)
	op.first = true // others wait for a release, and it makes the acquire before it worth its write
	if err := setNextVersion(op, previous); err != nil {
		return err
	}
	e, writer := newExpression(), newWriteID()
	condition := e.liveAt(previous.Version, op.wall())
	send := s.putItem(s.tombstone(op, writer), e, condition)
	if s.retention == 0 {
		send = s.removeItem(key, e, condition)
	}
	return s.compareAndSwap(ctx, op, previous.Version, writer, send)
}

// tombstone is the item that keeps a deleted key's version.
func (s *Store) tombstone(op *operation, writer string) item {
	put := s.keyOf(op.key)
	put[attrVersion] = numberAttr(op.version)
	put[attrWriter] = stringAttr(writer)
	put[attrDeleted] = trueAttr()
	put[attrExpires] = numberAttr(op.wall().Add(s.retention).Unix())
	return put
}

// maxVersion is the greatest version of a row: decode refuses the next one.
const maxVersion = math.MaxUint64 - 1

func setNextVersion(op *operation, previous *kv.KVPair) error {
	if previous.Version >= maxVersion {
		return fmt.Errorf("dynamokv: key %q: version %d has no next: %w", op.key, previous.Version, kv.ErrInvalidOption)
	}
	op.version = previous.Version + 1
	return nil
}

// create applies an AtomicPut without a previous pair. Only a live pair refuses
// it. A dead row whose version is not below ours does not. Nor does a row that
// the endpoint does not return and that is gone when it is read. Then the
// create is tried anew, above what was seen, until time is up (W2).
func (s *Store) create(ctx context.Context, op *operation, w *kv.WriteSettings) (*kv.KVPair, error) {
	op.version = s.createVersion(op.wall())
	for {
		put := s.newRow(op, w, op.version) // with a new write id: no attempt of the last one is unknown
		e := newExpression()
		ok, r, err := s.conditional(ctx, op, writerOf(put), s.putItem(put, e, e.creatable(s.idName, op.version, op.wall())))
		if op.unknown { // what is created later is above what may land yet, though the clock is set back
			s.observeVersion(op.version, op.wall())
		}
		switch {
		case err != nil:
			return nil, err
		case ok:
			return s.written(op, w), nil
		case op.unknown: // until the row's version has reached ours it may be applied (H14, W1)
			return nil, op.uncertain(r.current(op.wall()), errOutcomeUnknown)
		case r.live(op.wall()):
			return nil, &kv.ConflictError{Key: op.key, Create: true, Current: r.pair, Version: r.version}
		case r == nil: // a create cannot fail on nothing: this endpoint does not return rows
			s.returnsItems.Store(false)
		case r.version >= maxVersion:
			return nil, &kv.FormatError{Key: op.key, Problem: fmt.Sprintf("version %d has no next", r.version)}
		}
		if err := op.again(ctx); err != nil {
			return nil, err
		}
		op.version = max(op.version, r.versionOf()+1)
	}
}

// compareAndSwap sends a write that replaces the live row of version previous by writer's
// of version previous+1, or removes it.
func (s *Store) compareAndSwap(ctx context.Context, op *operation, previous uint64, writer string, send sender) error {
	ok, r, err := s.conditional(ctx, op, writer, send)
	if err != nil {
		return err
	}
	if ok {
		s.observeVersion(op.version, op.wall())
		return nil
	}
	// Ours is not in the row. It cannot have been if the row is still the previous one
	// (dead by our :now, for all attempts alike). Nor can it if another writer's took the
	// only version that ours could have.
	if op.unknown && r.versionOf() != previous && r.versionOf() != previous+1 {
		return op.uncertain(r.current(op.wall()), errOutcomeUnknown)
	}
	return &kv.ConflictError{Key: op.key, Current: r.current(op.wall()), Version: r.versionOf()}
}

// conditional runs a conditional write. ok: it was applied, by whichever attempt. Else
// there is an error, or r is the row that failed the condition, nil for none.
func (s *Store) conditional(ctx context.Context, op *operation, writer string,
	send sender) (ok bool, r *row, err error) {
	err = op.run(ctx, send)
	var failed *types.ConditionalCheckFailedException
	if !errors.As(err, &failed) {
		return err == nil, nil, err
	}
	r, err = s.conflictingRow(ctx, op, failed.Item)
	switch {
	case err == nil:
		return r != nil && r.writer == writer, r, nil
	case op.unknown:
		return false, nil, op.uncertain(nil, errors.New(err.Error())) // text only: ErrUncertain is all it may match
	default:
		return false, nil, err
	}
}

// conflictingRow decodes the row that failed a condition. DynamoDB returns none if there is none.
// An endpoint that has returned none yet may never return any, so it gets a read.
func (s *Store) conflictingRow(ctx context.Context, op *operation, it item) (*row, error) {
	if len(it) > 0 {
		s.returnsItems.Store(true)
	} else if it = nil; !s.returnsItems.Load() {
		read := *op
		read.write, read.unknown = false, false
		var err error
		if it, err = s.getItem(ctx, &read, false, nil); err != nil {
			return nil, err
		}
	}
	r, err := s.decode(op.key, it, true)
	if r != nil && err == nil {
		s.observeVersion(r.version, op.wall())
	}
	return r, err
}

// putItem makes the sender of a PutItem.
func (s *Store) putItem(put item, e *expression, condition string) sender {
	in := &dynamodb.PutItemInput{
		TableName:                           aws.String(s.table),
		Item:                                put,
		ConditionExpression:                 aws.String(condition),
		ExpressionAttributeNames:            e.names,
		ExpressionAttributeValues:           e.values,
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
	}
	if len(e.values) == 0 {
		in.ExpressionAttributeValues = nil
	}
	return func(ctx context.Context, options ...func(*dynamodb.Options)) error {
		_, err := s.client.PutItem(ctx, in, options...)
		return err
	}
}

// newRow is the item that w makes, with a new write id.
func (s *Store) newRow(op *operation, w *kv.WriteSettings, version uint64) item {
	put := s.keyOf(op.key)
	for name, value := range w.Fields {
		put[name] = encodeField(value)
	}
	put[attrVersion] = numberAttr(version)
	put[attrPayload] = encodePayload(w)
	put[attrWriter] = stringAttr(newWriteID())
	deadline := deadlineOf(w, op.wall())
	if !deadline.IsZero() {
		put[attrDeadline] = numberAttr(deadline.UnixMilli())
	}
	if sweep := s.sweepTime(w, deadline, op.wall()); !sweep.IsZero() {
		put[attrExpires] = numberAttr(sweep.Unix())
	}
	return put
}

func writerOf(put item) string { return put[attrWriter].(*types.AttributeValueMemberS).Value }

// deadlineOf is when the pair that w writes expires, the zero time for never.
func deadlineOf(w *kv.WriteSettings, now time.Time) time.Time {
	switch {
	case w.KeepTTL && w.Previous != nil:
		return w.Previous.Expires
	case w.TTL > 0:
		return time.UnixMilli(now.UnixMilli() + w.TTL.Milliseconds())
	default:
		return time.Time{}
	}
}

// sweepTime is when the row may be swept, the zero time for never. It leaves the retention
// to every row, so that no late attempt of an older write finds it gone.
func (s *Store) sweepTime(w *kv.WriteSettings, deadline, now time.Time) time.Time {
	if deadline.IsZero() && w.SweepAfter == 0 {
		return time.Time{}
	}
	// the attribute has whole seconds: without any retention too, no live row is swept
	keep := max(s.retention, time.Second)
	sweep := now.Add(max(w.SweepAfter, keep))
	if !deadline.IsZero() && deadline.Add(keep).After(sweep) {
		return deadline.Add(keep)
	}
	return sweep
}

// written is the pair that the operation has written. It shares nothing with the caller's
// arguments.
func (s *Store) written(op *operation, w *kv.WriteSettings) *kv.KVPair {
	s.observeVersion(op.version, op.wall())
	return kv.NewPair(op.key, op.version, bytes.Clone(w.Value), deadlineOf(w, op.wall()), maps.Clone(w.Fields))
}

// checkFields refuses fields that have the names of this table's keys.
func (s *Store) checkFields(key string, fields kv.Fields) error {
	for _, name := range []string{s.idName, s.nameName} {
		if _, ok := fields[name]; ok {
			return fmt.Errorf("dynamokv: key %q: field %q is part of the table's key: %w", key, name, kv.ErrReservedField)
		}
	}
	return nil
}
