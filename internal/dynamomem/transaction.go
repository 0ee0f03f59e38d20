package dynamomem

import (
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

const maxTransaction = 100

// transactWriteItems applies all writes or none. A token that was applied
// before makes it do nothing.
func (s *Server) transactWriteItems(in *dynamodb.TransactWriteItemsInput) (*dynamodb.TransactWriteItemsOutput, error) {
	if err := onlyFields(in, "TransactItems", "ClientRequestToken"); err != nil {
		return nil, err
	}
	writes, err := s.parseTransaction(in.TransactItems)
	if err != nil {
		return nil, err
	}
	token := aws.ToString(in.ClientRequestToken)
	if token != "" && s.tokens[token] {
		return &dynamodb.TransactWriteItemsOutput{}, nil
	}
	meters, err := s.admitAll(writes)
	if err != nil {
		return nil, err
	}
	rows, err := planAll(writes)
	for i, w := range writes {
		var row item
		if err == nil {
			row = rows[i]
		}
		meters[i].write(w.table.rows[w.key], row, 2)
	}
	if err != nil {
		return nil, err
	}
	for i, w := range writes {
		w.apply(rows[i])
	}
	s.tokens[token] = true
	return &dynamodb.TransactWriteItemsOutput{}, nil
}

func (s *Server) parseTransaction(items []types.TransactWriteItem) ([]*write, error) {
	if len(items) == 0 || len(items) > maxTransaction {
		return nil, invalid("a transaction has %d items, want 1 to %d", len(items), maxTransaction)
	}
	known := map[string]bool{}
	var writes []*write
	for _, it := range items {
		w, err := s.parseTransactItem(it)
		if err != nil {
			return nil, err
		}
		row := fmt.Sprintf("%p %q", w.table, w.key)
		if known[row] {
			return nil, invalid("transaction request cannot include multiple operations on one item")
		}
		known[row], writes = true, append(writes, w)
	}
	return writes, nil
}

// parseTransactItem parses an element as the request of its own that it is like.
func (s *Server) parseTransactItem(it types.TransactWriteItem) (*write, error) {
	switch {
	case it == types.TransactWriteItem{Put: it.Put} && it.Put != nil:
		p := it.Put
		return s.parsePut(&dynamodb.PutItemInput{TableName: p.TableName, Item: p.Item,
			ConditionExpression:      p.ConditionExpression,
			ExpressionAttributeNames: p.ExpressionAttributeNames, ExpressionAttributeValues: p.ExpressionAttributeValues,
			ReturnValuesOnConditionCheckFailure: p.ReturnValuesOnConditionCheckFailure})
	case it == types.TransactWriteItem{Update: it.Update} && it.Update != nil:
		u := it.Update
		return s.parseUpdate(&dynamodb.UpdateItemInput{TableName: u.TableName, Key: u.Key,
			UpdateExpression:    u.UpdateExpression,
			ConditionExpression: u.ConditionExpression, ExpressionAttributeNames: u.ExpressionAttributeNames,
			ExpressionAttributeValues:           u.ExpressionAttributeValues,
			ReturnValuesOnConditionCheckFailure: u.ReturnValuesOnConditionCheckFailure})
	case it == types.TransactWriteItem{Delete: it.Delete} && it.Delete != nil:
		d := it.Delete
		return s.parseDelete(&dynamodb.DeleteItemInput{TableName: d.TableName, Key: d.Key,
			ConditionExpression:      d.ConditionExpression,
			ExpressionAttributeNames: d.ExpressionAttributeNames, ExpressionAttributeValues: d.ExpressionAttributeValues,
			ReturnValuesOnConditionCheckFailure: d.ReturnValuesOnConditionCheckFailure})
	case it == types.TransactWriteItem{ConditionCheck: it.ConditionCheck} && it.ConditionCheck != nil:
		c := it.ConditionCheck
		w,
			err := s.parseDelete(&dynamodb.DeleteItemInput{TableName: c.TableName, Key: c.Key,
			ConditionExpression:      c.ConditionExpression,
			ExpressionAttributeNames: c.ExpressionAttributeNames, ExpressionAttributeValues: c.ExpressionAttributeValues,
			ReturnValuesOnConditionCheckFailure: c.ReturnValuesOnConditionCheckFailure})
		if err != nil {
			return nil, err
		}
		if c.ConditionExpression == nil {
			return nil, invalid("a ConditionCheck has no condition")
		}
		w.next = func(old item) (item, error) { return old, nil }
		return w, nil
	}
	return nil, invalid("an item of a transaction wants exactly one of Put, Update, Delete and ConditionCheck")
}

// planAll plans each write on the rows as they are. If a condition fails, the
// error says of each write what became of it.
func planAll(writes []*write) ([]item, error) {
	var rows []item
	var reasons []types.CancellationReason
	canceled := false
	for _, w := range writes {
		row, err := w.plan()
		reason := types.CancellationReason{Code: aws.String("None")}
		var failed *types.ConditionalCheckFailedException
		if errors.As(err, &failed) {
			reason = types.CancellationReason{Code: aws.String("ConditionalCheckFailed"), Message: failed.Message,
				Item: failed.Item}
			canceled = true
		} else if err != nil {
			return nil, err
		}
		rows, reasons = append(rows, row), append(reasons, reason)
	}
	if !canceled {
		return rows, nil
	}
	return nil, cancelTransaction(reasons)
}

// admitAll lets all writes in, or none. It returns the meter of each.
func (s *Server) admitAll(writes []*write) ([]*meter, error) {
	var meters []*meter
	var reasons []types.CancellationReason
	canceled := false
	for _, w := range writes {
		m, err := s.admit(w.table, "", w.key.partition, true)
		reason := types.CancellationReason{Code: aws.String("None")}
		if err != nil {
			reason = types.CancellationReason{Code: aws.String("ThrottlingError"), Message: aws.String(err.Error())}
			canceled = true
		}
		meters, reasons = append(meters, m), append(reasons, reason)
	}
	if canceled {
		return nil, cancelTransaction(reasons)
	}
	return meters, nil
}

func cancelTransaction(reasons []types.CancellationReason) error {
	var codes []string
	for _, reason := range reasons {
		codes = append(codes, *reason.Code)
	}
	message := fmt.Sprintf("Transaction cancelled, please refer cancellation reasons for specific reasons [%s]",
		strings.Join(codes, ", "))
	return &types.TransactionCanceledException{Message: aws.String(message), CancellationReasons: reasons}
}
