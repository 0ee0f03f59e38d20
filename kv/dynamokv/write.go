package dynamokv

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/dynalock/dynalock/kv"
)

// Put implements kv.Store. It costs one write. It costs two where the row is an
// expired one, or the tombstone of a blind Delete, whose fields must not come
// back; and with WithKeepTTL where there is no live pair, or one without an
// expiry and an older or new hint to sweep it.
func (s *Store) Put(ctx context.Context, key string, options ...kv.WriteOption) error {
	w, err := kv.PutSettings(key, options)
	if err != nil {
		return err
	}
	if err := s.checkFields(key, w.Fields); err != nil {
		return err
	}
	op := s.begin(key, true, w.AttemptTimeout, w.Size)
	op.urgent = w.Urgent
	writer := newWriteID()
	send := s.merge(op, &w, writer, nil)
	for {
		ok, r, err := s.conditional(ctx, op, writer, send)
		if ok || err != nil {
			return err
		}
		if err := op.again(ctx); err != nil && op.unknown {
			return op.uncertain(nil, errors.Join(ctx.Err(), errOutcomeUnknown))
		} else if err != nil {
			return err
		}
		if r.live(op.wall()) {
			send = s.merge(op, &w, writer, r)
		} else {
			send = s.overwrite(op, &w, writer, r)
		}
	}
}

// merge makes the sender of the UpdateItem of a Put. r is the live row as it
// was last seen, nil if it was not. It leaves alone rows that merging would
// bring old fields of back to life.
func (s *Store) merge(op *operation, w *kv.WriteSettings, writer string, r *row) sender {
	e := newExpression()
	set := []string{
		s.bumpVersion(op, e),
		e.attr(attrPayload) + " = " + e.value(encodePayload(w)),
		e.attr(attrWriter) + " = " + e.value(stringAttr(writer)),
	}
	for name, value := range w.Fields {
		set = append(set, e.attr(name)+" = "+e.value(encodeField(value)))
	}
	remove := []string{e.attr(attrDeleted)}
	if w.KeepTTL && (r == nil || !r.pair.Expires.IsZero()) {
		return s.updateItem(op.key, e, set, remove, s.keepsExpiry(op, e, w))
	}
	deadline := deadlineOf(w, op.wall())
	if deadline.IsZero() {
		remove = append(remove, e.attr(attrDeadline))
	} else {
		set = append(set, e.attr(attrDeadline)+" = "+e.value(numberAttr(deadline.UnixMilli())))
	}
	if sweep := s.sweepTime(w, deadline, op.wall()); sweep.IsZero() {
		remove = append(remove, e.attr(attrExpires))
	} else {
		set = append(set, e.attr(attrExpires)+" = "+e.value(numberAttr(sweep.Unix())))
	}
	if w.KeepTTL { // and r had none to keep
		return s.updateItem(op.key, e, set, remove, fmt.Sprintf("attribute_not_exists(%s)", e.attr(attrDeadline)))
	}
	return s.updateItem(op.key, e, set, remove, e.notExpired(op.wall()))
}

// keepsExpiry is true of live rows whose expiry and sweep time may stay as they
// are. One that does not expire must not be swept for an older hint.
func (s *Store) keepsExpiry(op *operation, e *expression, w *kv.WriteSettings) string {
	stays := fmt.Sprintf("attribute_exists(%s)", e.attr(attrDeadline))
	if w.SweepAfter == 0 {
		stays += fmt.Sprintf(" OR attribute_not_exists(%s)", e.attr(attrExpires))
	}
	return fmt.Sprintf("attribute_exists(%s) AND %s AND (%s)", e.attr(s.idName), e.notDead(op.wall()), stays)
}

// overwrite makes the sender of a Put that replaces r, a dead row or none.
func (s *Store) overwrite(op *operation, w *kv.WriteSettings, writer string, r *row) sender {
	e := newExpression()
	if r == nil {
		put := s.newRow(op, w, uint64(op.wall().UnixMicro())+1)
		put[attrWriter] = stringAttr(writer)
		return s.putItem(put, e, fmt.Sprintf("attribute_not_exists(%s)", e.attr(s.idName)))
	}
	put := s.newRow(op, w, r.version+1)
	put[attrWriter] = stringAttr(writer)
	return s.putItem(put, e, e.attr(attrVersion)+" = "+e.value(numberAttr(r.version)))
}

// Delete implements kv.Store. It leaves a tombstone, also where there was nothing. If the
// retention is 0 it leaves nothing.
func (s *Store) Delete(ctx context.Context, key string, options ...kv.DeleteOption) error {
	d, err := kv.CheckDelete(key, options)
	if err != nil {
		return err
	}
	op := s.begin(key, true, d.AttemptTimeout, 0)
	e := newExpression()
	if s.retention == 0 {
		return op.run(ctx, s.removeItem(key, e, ""))
	}
	set := []string{
		s.bumpVersion(op, e),
		e.attr(attrWriter) + " = " + e.value(stringAttr(newWriteID())),
		e.attr(attrDeleted) + " = " + e.value(trueAttr()),
		e.attr(attrExpires) + " = " + e.value(numberAttr(op.wall().Add(s.retention).Unix())),
		// The pair's fields, whose names are not known here, are still in this tombstone. A
		// deadline that has passed keeps Put from merging into it.
		e.attr(attrDeadline) + " = " + e.value(numberAttr(0)),
	}
	return op.run(ctx, s.updateItem(key, e, set, []string{e.attr(attrPayload)}, ""))
}

// bumpVersion is the assignment of a blind write's version.
func (s *Store) bumpVersion(op *operation, e *expression) string {
	version := e.attr(attrVersion)
	return fmt.Sprintf("%s = if_not_exists(%s, %s) + %s", version, version, e.value(numberAttr(op.wall().UnixMicro())),
		e.value(numberAttr(1)))
}

// updateItem makes the sender of an UpdateItem, unconditional if condition is empty.
func (s *Store) updateItem(key string, e *expression, set, remove []string, condition string) sender {
	in := &dynamodb.UpdateItemInput{
		TableName:                 aws.String(s.table),
		Key:                       s.keyOf(key),
		UpdateExpression:          aws.String("SET " + strings.Join(set, ", ") + " REMOVE " + strings.Join(remove, ", ")),
		ExpressionAttributeNames:  e.names,
		ExpressionAttributeValues: e.values,
	}
	if condition != "" {
		in.ConditionExpression = aws.String(condition)
		in.ReturnValuesOnConditionCheckFailure = types.ReturnValuesOnConditionCheckFailureAllOld
	}
	return func(ctx context.Context, options ...func(*dynamodb.Options)) error {
		_, err := s.client.UpdateItem(ctx, in, options...)
		return err
	}
}

// removeItem makes the sender of a DeleteItem, unconditional if condition is
// empty. The retention is 0.
func (s *Store) removeItem(key string, e *expression, condition string) sender {
	in := &dynamodb.DeleteItemInput{TableName: aws.String(s.table), Key: s.keyOf(key)}
	if condition != "" {
		in.ConditionExpression = aws.String(condition)
		in.ExpressionAttributeNames, in.ExpressionAttributeValues = e.names, e.values
		in.ReturnValuesOnConditionCheckFailure = types.ReturnValuesOnConditionCheckFailureAllOld
	}
	return func(ctx context.Context, options ...func(*dynamodb.Options)) error {
		_, err := s.deleter.DeleteItem(ctx, in, options...)
		return err
	}
}
