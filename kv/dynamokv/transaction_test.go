package dynamokv_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
)

// transact sends a transaction of the user's own to the rig's table, and says how it ended.
func (r *rig) transact(t *testing.T, items ...types.TransactWriteItem) string {
	t.Helper()
	_, err := newClient(r.endpoint, &wire{base: r.wire.base}).TransactWriteItems(t.Context(),
		&dynamodb.TransactWriteItemsInput{TransactItems: items})
	var canceled *types.TransactionCanceledException
	if err == nil {
		return "applied"
	}
	if !errors.As(err, &canceled) {
		return "refused"
	}
	text := "canceled"
	for _, reason := range canceled.CancellationReasons {
		text += fmt.Sprintf(" %s(%d)", aws.ToString(reason.Code), len(reason.Item))
	}
	return text
}

func (r *rig) row(name string) map[string]types.AttributeValue {
	return map[string]types.AttributeValue{"id": s(r.partition), "name": s(name)}
}

// check is the condition that the pair of key has the acq.
func (r *rig) check(t *testing.T, key, acq string) types.TransactWriteItem {
	t.Helper()
	check, err := r.ConditionCheck(kv.Condition{Key: key, Field: "acq", Value: acq})
	require.NoError(t, err)
	return check
}

// addTo counts a number of a row that is not a pair up, or fails from three on.
func (r *rig) addTo(name string) types.TransactWriteItem {
	return types.TransactWriteItem{Update: &types.Update{
		TableName: aws.String(r.table), Key: r.row(name),
		UpdateExpression:          aws.String("SET #n = if_not_exists(#n, :zero) + :one"),
		ConditionExpression:       aws.String("attribute_not_exists(#n) OR #n < :three"),
		ExpressionAttributeNames:  map[string]string{"#n": "n"},
		ExpressionAttributeValues: map[string]types.AttributeValue{":zero": n(0), ":one": n(1), ":three": n(3)},
	}}
}

func (r *rig) putRow(name string) types.TransactWriteItem {
	return types.TransactWriteItem{Put: &types.Put{TableName: aws.String(r.table), Item: r.row(name)}}
}

func (r *rig) deleteRow(name string) types.TransactWriteItem {
	return types.TransactWriteItem{Delete: &types.Delete{TableName: aws.String(r.table), Key: r.row(name)}}
}

func TestConditionCheckGuardsATransaction(t *testing.T) {
	onBoth(t, func(t *testing.T, emulator bool) {
		r := newEitherRig(t, emulator)
		p, err := r.AtomicPut(t.Context(), "key", kv.WithFields(kv.Fields{"acq": "mine"}))
		require.NoError(t, err)
		require.Equal(t, "applied", r.transact(t, r.check(t, "key", "mine"), r.putRow("data 1")))
		require.Equal(t, "applied", r.transact(t, r.check(t, "key", "mine"), r.addTo("data 2")))
		require.NotNil(t, r.raw(t, "data 1"))
		require.Equal(t, n(1), r.raw(t, "data 2")["n"])

		refused := func(key, acq string, row int) {
			t.Helper()
			want := fmt.Sprintf("canceled None(0) ConditionalCheckFailed(%d)", row)
			require.Equal(t, want, r.transact(t, r.putRow("never"), r.check(t, key, acq)))
			require.Empty(t, r.raw(t, "never"), "all or nothing")
		}
		refused("key", "theirs", len(r.raw(t, "key")))
		refused("other", "mine", 0)
		require.NoError(t, r.AtomicDelete(t.Context(), "key", p))
		refused("key", "mine", len(r.raw(t, "key")))

		_, err = r.ConditionCheck(kv.Condition{Key: "key", Field: "version", Value: 1})
		require.ErrorIs(t, err, kv.ErrReservedField)
		_, err = r.ConditionCheck(kv.Condition{Key: "", Field: "acq", Value: 1})
		require.ErrorIs(t, err, kv.ErrInvalidKey)
	})
}

// newEitherRig makes a rig on the emulator or in memory.
func newEitherRig(t *testing.T, emulator bool) *rig {
	t.Helper()
	if emulator {
		return newRig(t)
	}
	return newMemRig(t)
}

func TestTransactionsInMemoryAndEmulatorAgree(t *testing.T) {
	t.Parallel()
	emulator, memory := newRig(t), newMemRig(t)
	for i := range uint64(steps(60)) {
		want := emulator.transactionStep(t, rand.New(rand.NewPCG(i, 3)))
		require.Equal(t, want, memory.transactionStep(t, rand.New(rand.NewPCG(i, 3))), "step %d", i)
	}
}

// transactionStep does a random transaction, often with a row twice, and shows what it left.
func (r *rig) transactionStep(t *testing.T, random *rand.Rand) string {
	if random.IntN(3) == 0 {
		require.NoError(t, r.Put(t.Context(), "a", kv.WithFields(kv.Fields{"acq": fmt.Sprint(random.IntN(2))})))
	}
	var items []types.TransactWriteItem
	if random.IntN(2) == 0 { // one at most: the emulator would take two of the same row
		items = append(items, r.check(t, "a", "1"))
	}
	for range 1 + random.IntN(3) {
		row := []string{"b", "c", "d", "e", "f"}[random.IntN(5)]
		items = append(items, []types.TransactWriteItem{r.addTo(row), r.addTo(row), r.putRow(row),
			r.deleteRow(row)}[random.IntN(4)])
	}
	text := r.transact(t, items...)
	for _, row := range []string{"b", "c", "d", "e", "f"} {
		it := r.raw(t, row)
		number, _ := it["n"].(*types.AttributeValueMemberN)
		text += fmt.Sprint(" ", len(it), number != nil && number.Value == "3")
	}
	return text
}
