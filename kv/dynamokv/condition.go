package dynamokv

import (
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/dynalock/dynalock/kv"
)

// ConditionCheck turns c into an element of a DynamoDB transaction. The transaction is then
// applied only if the live pair of c.Key has the field with the value. With the condition
// of a lease in the transaction that writes the guarded data, a holder that has lost the
// lease cannot write. c is in terms of this Store's keys: see kv.ResolveCondition.
func (s *Store) ConditionCheck(c kv.Condition) (types.TransactWriteItem, error) {
	// As the options of a write, key and field are checked and normalized as those of a write are.
	w, err := kv.AtomicPutSettings(c.Key, []kv.WriteOption{kv.WithFields(kv.Fields{c.Field: c.Value})})
	if err == nil {
		err = s.checkFields(c.Key, w.Fields)
	}
	if err != nil {
		return types.TransactWriteItem{}, fmt.Errorf("dynamokv: ConditionCheck: %w", err)
	}
	e := newExpression()
	condition := fmt.Sprintf("%s = %s AND %s", e.attr(c.Field), e.value(encodeField(w.Fields[c.Field])),
		e.notDead(s.clock.Now().Wall))
	return types.TransactWriteItem{ConditionCheck: &types.ConditionCheck{
		TableName:                           aws.String(s.table),
		Key:                                 s.keyOf(c.Key),
		ConditionExpression:                 aws.String(condition),
		ExpressionAttributeNames:            e.names,
		ExpressionAttributeValues:           e.values,
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
	}}, nil
}
