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
	if err := onlyFields(in, "TableName", "Key", "ConsistentRead", "ProjectionExpression", "ExpressionAttributeNames"); err != nil {
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

func (s *Server) putItem(in *dynamodb.PutItemInput) (*dynamodb.PutItemOutput, error) {
	if err := onlyFields(in, "TableName", "Item", "ConditionExpression", "ExpressionAttributeNames", "ExpressionAttributeValues", "ReturnValuesOnConditionCheckFailure"); err != nil {
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
	condition, err := e.condition(in.ConditionExpression)
	if err != nil {
		return nil, err
	}
	if err := e.checkUsed(); err != nil {
		return nil, err
	}
	if err := t.replace(key, row, condition, in.ReturnValuesOnConditionCheckFailure); err != nil {
		return nil, err
	}
	return &dynamodb.PutItemOutput{}, nil
}

func (s *Server) deleteItem(in *dynamodb.DeleteItemInput) (*dynamodb.DeleteItemOutput, error) {
	if err := onlyFields(in, "TableName", "Key", "ConditionExpression", "ExpressionAttributeNames", "ExpressionAttributeValues", "ReturnValuesOnConditionCheckFailure"); err != nil {
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
	condition, err := e.condition(in.ConditionExpression)
	if err != nil {
		return nil, err
	}
	if err := e.checkUsed(); err != nil {
		return nil, err
	}
	if err := t.replace(key, nil, condition, in.ReturnValuesOnConditionCheckFailure); err != nil {
		return nil, err
	}
	return &dynamodb.DeleteItemOutput{}, nil
}

// replace stores row, if condition is true of the one that is there; a nil row removes that.
func (t *table) replace(key rowKey, row item, condition predicate, onFailure types.ReturnValuesOnConditionCheckFailure) error {
	if old := t.rows[key]; !condition(old) {
		failed := &types.ConditionalCheckFailedException{Message: aws.String("The conditional request failed")}
		if onFailure == types.ReturnValuesOnConditionCheckFailureAllOld {
			failed.Item = cloneItem(old)
		}
		return failed
	}
	if size := sizeOf(row); size > maxItemSize {
		return invalid("item size has exceeded the maximum allowed size: %d bytes", size)
	}
	if row == nil {
		delete(t.rows, key)
		return nil
	}
	t.rows[key] = row
	return nil
}

func (s *Server) updateItem(in *dynamodb.UpdateItemInput) (*dynamodb.UpdateItemOutput, error) {
	if err := onlyFields(in, "TableName", "Key", "UpdateExpression", "ConditionExpression", "ExpressionAttributeNames", "ExpressionAttributeValues", "ReturnValuesOnConditionCheckFailure"); err != nil {
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
	condition, err := e.condition(in.ConditionExpression)
	if err != nil {
		return nil, err
	}
	if err := e.checkUsed(); err != nil {
		return nil, err
	}
	if err := t.updateRow(key, u, condition, in.ReturnValuesOnConditionCheckFailure); err != nil {
		return nil, err
	}
	return &dynamodb.UpdateItemOutput{}, nil
}

// updateRow applies u to a row, or to the bare key if there is none.
func (t *table) updateRow(key rowKey, u *update, condition predicate, onFailure types.ReturnValuesOnConditionCheckFailure) error {
	old := t.rows[key]
	if !condition(old) {
		return t.replace(key, nil, condition, onFailure)
	}
	if old == nil {
		old = t.keyItem(key)
	}
	row, err := u.apply(old)
	if err != nil {
		return err
	}
	return t.replace(key, row, condition, onFailure)
}
