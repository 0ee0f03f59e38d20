package dynastore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/dynalock/dynalock/kv"
)

// sweepDelay is how long after its expiry DynamoDB may sweep a row that was taken
// over: dynamokv's default retention.
const sweepDelay = 24 * time.Hour

// Imported says what an Import has done.
type Imported struct {
	// Copied rows were written.
	Copied int
	// Kept are the keys that the store had before. They were left as they were.
	Kept int
}

// Import copies the live rows to store, with values, fields and expiry. Versions
// are the store's own. A key that the store has is left alone, so an Import that
// was broken off may be called again, and never undoes what was written since. The
// rows stay.
//
// On failure it tells what it has done so far. An error that matches kv.ErrFormat
// names the row that it could not read. It costs what All costs, and one write for
// each row.
func (t *Table) Import(ctx context.Context, store kv.Store, e Encoding) (done Imported, err error) {
	for r, err := range t.All(ctx, "") {
		if err != nil {
			return done, err
		}
		value, err := r.Value(e)
		if err != nil {
			return done, err
		}
		options := []kv.WriteOption{kv.WithBytes(value)}
		if e == Text {
			options[0] = kv.WithString(string(value))
		}
		if r.Fields != nil {
			options = append(options, kv.WithFields(r.Fields))
		}
		if !r.Expires.IsZero() {
			options = append(options, kv.WithTTL(max(time.Until(r.Expires), time.Millisecond)))
		}
		switch _, err = store.AtomicPut(ctx, r.Key, options...); {
		case err == nil:
			done.Copied++
		case errors.Is(err, kv.ErrKeyExists):
			done.Kept++
		default:
			return done, fmt.Errorf("dynastore: copying %q: %w", r.Key, err)
		}
	}
	return done, nil
}

// TakeOver turns the row itself into a pair of dynamokv's, if it is still as it
// was read: for a dynamokv.Store of the same table and partition. Value, fields
// and expiry stay. The version becomes the time in microseconds, above any that
// the old library gave. Old programs must not write the key any more.
//
// nil: the row is a pair. An error that matches kv.ErrKeyModified: the row was
// changed or deleted since it was read, or taken over by another. Any other error:
// unknown, read it again. It costs one write.
func (t *Table) TakeOver(ctx context.Context, r *Row, e Encoding) error {
	value, err := r.Value(e)
	if err != nil {
		return err
	}
	writer := rand.Text()
	_, err = t.client.UpdateItem(ctx, t.takeOver(r, e, value, writer, time.Now()))
	var failed *types.ConditionalCheckFailedException
	if errors.As(err, &failed) {
		if w, ok := failed.Item[attrWriter].(*types.AttributeValueMemberS); ok && w.Value == writer {
			return nil // an answer was lost, and the SDK has asked again
		}
		return fmt.Errorf("dynastore: taking over %q, version %d: %w", r.Key, r.Version, kv.ErrKeyModified)
	}
	if err != nil {
		return fmt.Errorf("dynastore: taking over %q: %w", r.Key, err)
	}
	return nil
}

func (t *Table) takeOver(r *Row, e Encoding, value []byte, writer string, now time.Time) *dynamodb.UpdateItemInput {
	set := "SET #v = :next, #p = :value, #w = :writer"
	remove := " REMOVE #e"
	condition := "#v = :version AND attribute_not_exists(#w) AND attribute_not_exists(#e)"
	names := map[string]string{"#v": attrVersion, "#p": attrPayload, "#w": attrWriter, "#e": attrExpires}
	values := item{
		":next": whole(now.UnixMicro()), ":version": whole(int64(r.Version)), ":writer": text(writer),
		":value": &types.AttributeValueMemberB{Value: value},
	}
	if e == Text {
		values[":value"] = text(string(value))
	}
	if !r.Expires.IsZero() {
		set += ", #d = :deadline, #e = :sweep"
		remove = ""
		condition = "#v = :version AND attribute_not_exists(#w) AND #e = :expires"
		names["#d"] = attrDeadline
		values[":deadline"] = whole(r.Expires.UnixMilli())
		values[":expires"] = whole(r.Expires.Unix())
		sweep := r.Expires
		if now.After(sweep) {
			sweep = now
		}
		values[":sweep"] = whole(sweep.Add(sweepDelay).Unix())
	}
	return &dynamodb.UpdateItemInput{
		TableName: &t.table, Key: t.keyOf(r.Key),
		UpdateExpression: aws.String(set + remove), ConditionExpression: &condition,
		ExpressionAttributeNames: names, ExpressionAttributeValues: values,
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
	}
}
