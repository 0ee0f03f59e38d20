package dynamomem

import (
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

func (s *Server) table(name *string) (*table, error) {
	if t := s.tables[aws.ToString(name)]; t != nil {
		return t, nil
	}
	return nil, &types.ResourceNotFoundException{Message: aws.String("Requested resource not found")}
}

func (s *Server) getItem(in *dynamodb.GetItemInput) (*dynamodb.GetItemOutput, error) {
	if err := onlyFields(in, "TableName", "Key", "ConsistentRead", "ProjectionExpression",
		"ExpressionAttributeNames"); err != nil {
		return nil, err
	}
	t, err := s.table(in.TableName)
	if err != nil {
		return nil, err
	}
	key, err := t.onlyKey(in.Key)
	if err != nil {
		return nil, err
	}
	e, err := newScope(in.ExpressionAttributeNames, nil)
	if err != nil {
		return nil, err
	}
	names, err := e.projection(in.ProjectionExpression)
	if err != nil {
		return nil, err
	}
	if err := e.checkUsed(); err != nil {
		return nil, err
	}
	m, err := s.admit(t, "", key.partition, false)
	if err != nil {
		return nil, err
	}
	m.read(sizeOf(t.rows[key]), aws.ToBool(in.ConsistentRead))
	return &dynamodb.GetItemOutput{Item: project(t.rows[key], names)}, nil
}

// project copies the attributes of a row that have these names, all if names is nil.
func project(row item, names []string) item {
	out := cloneItem(row)
	for name := range row {
		if names != nil && !slices.Contains(names, name) {
			delete(out, name)
		}
	}
	return out
}

// write is a parsed request that writes a row, or only asks about one.
type write struct {
	table     *table
	key       rowKey
	condition predicate
	onFailure types.ReturnValuesOnConditionCheckFailure
	next      func(old item) (item, error) // the row that follows old, nil for none
}

// plan returns the row that w leaves, and changes nothing.
func (w *write) plan() (item, error) {
	old := w.table.rows[w.key]
	if !w.condition(old) {
		failed := &types.ConditionalCheckFailedException{Message: aws.String("The conditional request failed")}
		if w.onFailure == types.ReturnValuesOnConditionCheckFailureAllOld {
			failed.Item = cloneItem(old)
		}
		return nil, failed
	}
	row, err := w.next(old)
	if err != nil {
		return nil, err
	}
	if size := sizeOf(row); size > maxItemSize {
		return nil, invalid("item size has exceeded the maximum allowed size: %d bytes", size)
	}
	return row, w.table.checkIndexKeys(row)
}

// apply stores what plan returned.
func (w *write) apply(row item) {
	if row == nil {
		delete(w.table.rows, w.key)
		return
	}
	w.table.rows[w.key] = row
}

// run plans and applies.
func (s *Server) run(w *write) error {
	m, err := s.admit(w.table, "", w.key.partition, true)
	if err != nil {
		return err
	}
	row, err := w.plan()
	m.write(w.table.rows[w.key], row, 1)
	if err == nil {
		w.apply(row)
	}
	return err
}

// writeFields are the parameters that all writes have.
var writeFields = []string{"TableName", "ConditionExpression", "ExpressionAttributeNames", "ExpressionAttributeValues",
	"ReturnValuesOnConditionCheckFailure"}

// parseCondition completes w, whose other expressions have been parsed.
func (w *write) parseCondition(e *scope, condition *string) (*write, error) {
	var err error
	if w.condition, err = e.condition(condition); err != nil {
		return nil, err
	}
	return w, e.checkUsed()
}

func (s *Server) putItem(in *dynamodb.PutItemInput) (*dynamodb.PutItemOutput, error) {
	w, err := s.parsePut(in)
	if err == nil {
		err = s.run(w)
	}
	return &dynamodb.PutItemOutput{}, err
}

func (s *Server) parsePut(in *dynamodb.PutItemInput) (*write, error) {
	if err := onlyFields(in, append([]string{"Item"}, writeFields...)...); err != nil {
		return nil, err
	}
	t, err := s.table(in.TableName)
	if err != nil {
		return nil, err
	}
	row, err := normalizeItem(in.Item)
	if err != nil {
		return nil, err
	}
	key, err := t.keyOf(row)
	if err != nil {
		return nil, err
	}
	e, err := newScope(in.ExpressionAttributeNames, in.ExpressionAttributeValues)
	if err != nil {
		return nil, err
	}
	w := &write{table: t, key: key, onFailure: in.ReturnValuesOnConditionCheckFailure,
		next: func(item) (item, error) { return row, nil }}
	return w.parseCondition(e, in.ConditionExpression)
}

func (s *Server) deleteItem(in *dynamodb.DeleteItemInput) (*dynamodb.DeleteItemOutput, error) {
	w, err := s.parseDelete(in)
	if err == nil {
		err = s.run(w)
	}
	return &dynamodb.DeleteItemOutput{}, err
}

func (s *Server) parseDelete(in *dynamodb.DeleteItemInput) (*write, error) {
	if err := onlyFields(in, append([]string{"Key"}, writeFields...)...); err != nil {
		return nil, err
	}
	t, err := s.table(in.TableName)
	if err != nil {
		return nil, err
	}
	key, err := t.onlyKey(in.Key)
	if err != nil {
		return nil, err
	}
	e, err := newScope(in.ExpressionAttributeNames, in.ExpressionAttributeValues)
	if err != nil {
		return nil, err
	}
	w := &write{table: t, key: key, onFailure: in.ReturnValuesOnConditionCheckFailure,
		next: func(item) (item, error) { return nil, nil }}
	return w.parseCondition(e, in.ConditionExpression)
}

func (s *Server) updateItem(in *dynamodb.UpdateItemInput) (*dynamodb.UpdateItemOutput, error) {
	w, err := s.parseUpdate(in)
	if err == nil {
		err = s.run(w)
	}
	return &dynamodb.UpdateItemOutput{}, err
}

func (s *Server) parseUpdate(in *dynamodb.UpdateItemInput) (*write, error) {
	if err := onlyFields(in, append([]string{"Key", "UpdateExpression"}, writeFields...)...); err != nil {
		return nil, err
	}
	t, err := s.table(in.TableName)
	if err != nil {
		return nil, err
	}
	key, err := t.onlyKey(in.Key)
	if err != nil {
		return nil, err
	}
	e, err := newScope(in.ExpressionAttributeNames, in.ExpressionAttributeValues)
	if err != nil {
		return nil, err
	}
	u, err := e.update(t, in.UpdateExpression)
	if err != nil {
		return nil, err
	}
	w := &write{table: t, key: key, onFailure: in.ReturnValuesOnConditionCheckFailure, next: func(old item) (item, error) {
		if old == nil {
			old = t.keyItem(key)
		}
		return u.apply(old)
	}}
	return w.parseCondition(e, in.ConditionExpression)
}
