package dynamomem_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/dynamomem"
)

type item = map[string]types.AttributeValue

func str(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }
func num(s string) types.AttributeValue { return &types.AttributeValueMemberN{Value: s} }

func newClient(t *testing.T) (*dynamomem.Server, *dynamomem.Client) {
	t.Helper()
	server := dynamomem.New()
	server.CreateTable("t", "p", "s")
	return server, server.Client()
}

func put(t *testing.T, c *dynamomem.Client, sort string, more item) {
	t.Helper()
	it := item{"p": str("p"), "s": str(sort)}
	for name, v := range more {
		it[name] = v
	}
	_, err := c.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: aws.String("t"), Item: it})
	require.NoError(t, err)
}

// check puts a row on the condition, with #a, #b, #none, :one and :text as
// placeholders where they occur.
func check(t *testing.T, c *dynamomem.Client, condition string) error {
	t.Helper()
	in := &dynamodb.PutItemInput{
		TableName: aws.String("t"), Item: item{"p": str("p"), "s": str("row"), "a": num("1"), "b": str("text")},
		ConditionExpression:                 aws.String(condition),
		ExpressionAttributeNames:            map[string]string{"#a": "a", "#b": "b", "#none": "none"},
		ExpressionAttributeValues:           item{":one": num("1.0"), ":text": str("te")},
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
	}
	_, err := c.PutItem(t.Context(), in)
	return err
}

// rest uses all the placeholders, and is true.
const tail = " AND (#a = :one OR #b = :text OR attribute_exists(#none))"

func TestConditions(t *testing.T) {
	t.Parallel()
	for condition, want := range map[string]bool{
		"#a = :one": true, "#a < :one": false, "#a <= :one": true, "#a > :one": false, "#a >= :one": true,
		"#b > :text": true, "#b = :one": false, "#b < :one": false, "#none = :one": false, "NOT #none = :one": true,
		"attribute_exists(#a)": true, "attribute_not_exists(#a)": false, "attribute_not_exists(#none)": true,
		"begins_with(#b, :text)": true, "begins_with(#a, :text)": false,
		"(#a < :one OR #a = :one AND #b > :text)": true, "((#a = :one OR #a < :one) AND #b < :text)": false,
		"NOT #a = :one": false, "not (#a = :one and #b = :text)": true,
	} {
		_, c := newClient(t)
		put(t, c, "row", item{"a": num("1"), "b": str("text")})
		err := check(t, c, condition+tail)
		if want {
			require.NoError(t, err, condition)
			continue
		}
		var failed *types.ConditionalCheckFailedException
		require.ErrorAs(t, err, &failed, condition)
		require.Equal(t, num("1"), failed.Item["a"], condition)
	}
}

func TestNothingUnknownPasses(t *testing.T) {
	t.Parallel()
	for _, condition := range []string{
		"", "#a", "#a =", "= :one", "#a <> :one", "a = :one", "#x = :one", "#a = :x", "size(#a) > :one", "#a = :one #b",
		"(#a = :one",
		"#a = :one)", "#a BETWEEN :one AND :one", "#a IN (:one)", "contains(#b, :text)", "#a.#b = :one",
		"attribute_exists(:one)",
		"begins_with(#b, :one)", "#a = :one;", "#a = :one AND", "NOT",
	} {
		_, c := newClient(t)
		requireInvalid(t, check(t, c, condition+tail))
		requireInvalid(t, check(t, c, condition))
	}
	_, c := newClient(t)
	requireInvalid(t, check(t, c, "#a = :one")) // unused placeholders
	for _, bad := range []item{
		{"p": str("p")}, {"p": str("p"), "s": str("")}, {"p": str("p"), "s": num("1")},
		{"p": str("p"), "s": str("s"), "n": num("1e999")},
		{"p": str("p"), "s": str("s"), "n": num("x")}, {"p": str("p"), "s": str("s"), "l": &types.AttributeValueMemberL{}},
	} {
		_, err := c.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: aws.String("t"), Item: bad})
		requireInvalid(t, err)
	}
	_, err := c.PutItem(t.Context(),
		&dynamodb.PutItemInput{TableName: aws.String("t"), Item: item{"p": str("p"), "s": str("s")},
			ReturnValues: types.ReturnValueAllOld})
	requireInvalid(t, err)
	for _, expression := range []string{"", "SET", "SET #s = :one", "SET #a = :one, #a = :one", "SET #a = #none",
		"SET #a = :one - :one", "ADD #a :one",
		"DELETE #a :one", "SET #a = :one SET #b = :one", "SET #a = list_append(#a, :one)", "SET #a = :text + :one",
		"REMOVE #a, #a", "SET #a = :one REMOVE"} {
		requireInvalid(t, update(t, c, expression))
	}
}

func requireInvalid(t *testing.T, err error) {
	t.Helper()
	var api smithy.APIError
	require.ErrorAs(t, err, &api)
	require.Equal(t, "ValidationException", api.ErrorCode(), "%v", err)
}

// update updates the row "row", with those of the placeholders that occur.
func update(t *testing.T, c *dynamomem.Client, expression string) error {
	t.Helper()
	in := &dynamodb.UpdateItemInput{
		TableName: aws.String("t"), Key: item{"p": str("p"), "s": str("row")}, UpdateExpression: aws.String(expression),
		ConditionExpression:       aws.String("attribute_not_exists(#x) OR #x = :one OR #x = :text OR #a = #b OR #none = #s"),
		ExpressionAttributeNames:  map[string]string{"#a": "a", "#b": "b", "#none": "none", "#s": "s", "#x": "x"},
		ExpressionAttributeValues: item{":one": num("1"), ":text": str("text")},
	}
	_, err := c.UpdateItem(t.Context(), in)
	return err
}

func TestUpdates(t *testing.T) {
	t.Parallel()
	server, c := newClient(t)
	require.NoError(t, update(t, c, "SET #a = if_not_exists(#a, :one) + :one, #b = :text"))
	require.Equal(t, item{"p": str("p"), "s": str("row"), "a": num("2"), "b": str("text")}, server.Item("t", "p", "row"))
	require.NoError(t, update(t, c, "SET #a = if_not_exists(#a, :one) + :one REMOVE #b, #none"))
	require.Equal(t, item{"p": str("p"), "s": str("row"), "a": num("3")}, server.Item("t", "p", "row"))
}

func TestQueriesCountWhatTheFilterDrops(t *testing.T) {
	t.Parallel()
	_, c := newClient(t)
	for _, sort := range []string{"x1", "x2", "x3", "y"} {
		put(t, c, sort, nil)
	}
	put(t, c, "x2", item{"dead": num("1")})
	query := func(start item, forward bool) *dynamodb.QueryOutput {
		out, err := c.Query(t.Context(), &dynamodb.QueryInput{
			TableName: aws.String("t"), Limit: aws.Int32(2), ExclusiveStartKey: start, ScanIndexForward: aws.Bool(forward),
			KeyConditionExpression:    aws.String("#p = :p AND begins_with(#s, :x)"),
			FilterExpression:          aws.String("attribute_not_exists(#d)"),
			ExpressionAttributeNames:  map[string]string{"#p": "p", "#s": "s", "#d": "dead"},
			ExpressionAttributeValues: item{":p": str("p"), ":x": str("x")}, ProjectionExpression: aws.String("#s"),
		})
		require.NoError(t, err)
		return out
	}
	first := query(nil, true)
	require.Equal(t, []item{{"s": str("x1")}}, first.Items)
	require.Equal(t, item{"p": str("p"), "s": str("x2")}, first.LastEvaluatedKey)
	second := query(first.LastEvaluatedKey, true)
	require.Equal(t, []item{{"s": str("x3")}}, second.Items)
	require.Nil(t, second.LastEvaluatedKey)
	require.Equal(t, []item{{"s": str("x1")}}, query(first.LastEvaluatedKey, false).Items)
}

func TestSweep(t *testing.T) {
	t.Parallel()
	server, c := newClient(t)
	put(t, c, "old", item{"expires": num("99")})
	put(t, c, "new", item{"expires": num("100")})
	put(t, c, "never", nil)
	require.Equal(t, 1, server.Sweep(time.Unix(100, 0)))
	require.Nil(t, server.Item("t", "p", "old"))
	require.NotNil(t, server.Item("t", "p", "new"))
}

func TestFaults(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for name, f := range map[string]struct {
			fault  dynamomem.Fault
			now    bool // whether the row is there when the call returns
			landed bool // and when all has landed
		}{
			"lost":      {dynamomem.Lost(dynamomem.ErrCut), false, false},
			"answer":    {dynamomem.LostAnswer(dynamomem.ErrCut), true, true},
			"duplicate": {dynamomem.Duplicate(dynamomem.ErrCut), true, true},
			"late":      {dynamomem.Late(clock.System, time.Hour, dynamomem.ErrCut), false, true},
		} {
			server, c := newClient(t)
			c.Inject(f.fault)
			_, err := c.PutItem(t.Context(),
				&dynamodb.PutItemInput{TableName: aws.String("t"), Item: item{"p": str("p"), "s": str("s")}})
			require.ErrorIs(t, err, dynamomem.ErrCut, name)
			require.Equal(t, f.now, server.Item("t", "p", "s") != nil, name)
			c.Wait()
			require.Equal(t, f.landed, server.Item("t", "p", "s") != nil, name)
			require.Equal(t, 1, c.Requests())
		}
	})
}
