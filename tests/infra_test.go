package tests_test

import (
	"context"
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/dynalock/dynalock/internal/dynamomem"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/dynamokv"
	"github.com/dynalock/dynalock/kv/kvtest"
)

// object is a mapping of the template. An intrinsic function is one too, of its
// tag: {"!Ref": "Table"}.
type object = map[string]any

func TestTheTemplatesTableIsTheOneThatEnsureTableMakes(t *testing.T) {
	t.Parallel()
	var made tableRecorder
	require.NoError(t, dynamokv.EnsureTable(t.Context(), &made, "locks"))
	template := readTemplate(t)
	table := properties(template, "Table")

	var attributes, keys []any
	for _, a := range made.create.AttributeDefinitions {
		attributes = append(attributes,
			object{"AttributeName": aws.ToString(a.AttributeName), "AttributeType": string(a.AttributeType)})
	}
	for _, k := range made.create.KeySchema {
		keys = append(keys, object{"AttributeName": aws.ToString(k.AttributeName), "KeyType": string(k.KeyType)})
	}
	require.ElementsMatch(t, attributes, table["AttributeDefinitions"])
	require.Equal(t, keys, table["KeySchema"])
	require.Equal(t, object{
		"AttributeName": aws.ToString(made.ttl.TimeToLiveSpecification.AttributeName),
		"Enabled":       aws.ToBool(made.ttl.TimeToLiveSpecification.Enabled),
	}, table["TimeToLiveSpecification"])
	require.Equal(t, object{"!Ref": "BillingMode"}, table["BillingMode"])
	require.Equal(t, string(made.create.BillingMode), template["Parameters"].(object)["BillingMode"].(object)["Default"])

	// EnsureTable sends nothing else that the template would have to have.
	rest := *made.create
	rest.TableName, rest.AttributeDefinitions, rest.KeySchema, rest.BillingMode = nil, nil, nil, ""
	require.Equal(t, dynamodb.CreateTableInput{}, rest)
}

func TestTheOperatorsPolicyAllowsWhatEnsureTableSends(t *testing.T) {
	t.Parallel()
	var made tableRecorder
	require.NoError(t, dynamokv.EnsureTable(t.Context(), &made, "locks"))
	statement := onlyStatement(t, "OperatorPolicy")
	require.ElementsMatch(t, actions(made.operations), statement["Action"])
	require.ElementsMatch(t, actions(methods[dynamokv.TableClient]()), statement["Action"])
	arn := statement["Resource"].(object)["!Sub"].(string)
	require.True(t, strings.HasSuffix(arn, ":table/${TableName}"), arn)
}

// Not parallel: the conformance suite has ended when its subtest has.
func TestTheUsersPolicyAllowsWhatTheDriverSends(t *testing.T) {
	var mu sync.Mutex
	sent := map[string]bool{}
	server := dynamomem.New()
	server.CreateTable("locks", "id", "name")
	t.Run("record", func(t *testing.T) {
		kvtest.Run(t, kvtest.Harness{Open: func(t *testing.T) kv.Store {
			client := server.Client()
			client.Inject(func(_ context.Context, call dynamomem.Call, apply dynamomem.Apply) (any, error) {
				mu.Lock()
				sent[call.Operation] = true
				mu.Unlock()
				return apply()
			})
			t.Cleanup(client.Wait)
			store, err := dynamokv.New(client, "locks")
			require.NoError(t, err)
			return store
		}})
	})
	store, err := dynamokv.New(server.Client(), "locks")
	require.NoError(t, err)
	guard, err := store.ConditionCheck(kv.Condition{Key: "key", Field: "acq", Value: "a"})
	require.NoError(t, err)
	require.Equal(t, types.TransactWriteItem{ConditionCheck: guard.ConditionCheck}, guard,
		"it asks for ConditionCheckItem only")

	var operations []string
	for operation := range sent {
		operations = append(operations, operation)
	}
	statement := onlyStatement(t, "UserPolicy")
	require.ElementsMatch(t, actions(append(operations, "ConditionCheckItem")), statement["Action"])
	require.ElementsMatch(t, actions(append(methods[dynamokv.Client](), "ConditionCheckItem")), statement["Action"])
	require.Equal(t, object{"!GetAtt": "Table.Arn"}, statement["Resource"])
	require.Equal(t,
		object{"ForAllValues:StringEquals": object{"dynamodb:LeadingKeys": []any{object{"!Ref": "Partition"}}}},
		statement["Condition"])
}

func TestTheTemplatesPoliciesAreThoseOfTheDriver(t *testing.T) {
	t.Parallel()
	const arn = "arn:aws:dynamodb:eu-west-1:123456789012:table/locks"
	for name, policy := range map[string]func() (string, error){
		"UserPolicy":     func() (string, error) { return dynamokv.Policy(arn) },
		"OperatorPolicy": func() (string, error) { return dynamokv.TablePolicy(arn) },
	} {
		text, err := policy()
		require.NoError(t, err)
		var document struct{ Statement []object }
		require.NoError(t, json.Unmarshal([]byte(text), &document))
		require.Len(t, document.Statement, 1)
		statement := onlyStatement(t, name)
		require.ElementsMatch(t, statement["Action"], document.Statement[0]["Action"])
		require.Equal(t, statement["Sid"], document.Statement[0]["Sid"])
		require.Equal(t, statement["Condition"] != nil, document.Statement[0]["Condition"] != nil)
	}
}

func TestTheTemplateAlarmsOnConsumptionAndThrottles(t *testing.T) {
	t.Parallel()
	metrics := map[string]any{}
	for name, r := range readTemplate(t)["Resources"].(object) {
		if r.(object)["Type"] == "AWS::CloudWatch::Alarm" {
			p := r.(object)["Properties"].(object)
			require.Equal(t, []any{object{"Name": "TableName", "Value": object{"!Ref": "Table"}}}, p["Dimensions"], name)
			metrics[p["MetricName"].(string)] = p["Threshold"]
		}
	}
	require.Equal(t, map[string]any{
		"ConsumedReadCapacityUnits":  object{"!Ref": "ReadUnitsPerMinute"},
		"ConsumedWriteCapacityUnits": object{"!Ref": "WriteUnitsPerMinute"},
		"ReadThrottleEvents":         0,
		"WriteThrottleEvents":        0,
	}, metrics)
}

// tableRecorder is a DynamoDB without the table, until it is created. It keeps
// what EnsureTable sends.
type tableRecorder struct {
	operations []string
	create     *dynamodb.CreateTableInput
	ttl        *dynamodb.UpdateTimeToLiveInput
}

func (r *tableRecorder) note(operation string) {
	if !slices.Contains(r.operations, operation) {
		r.operations = append(r.operations, operation)
	}
}

func (r *tableRecorder) DescribeTable(context.Context, *dynamodb.DescribeTableInput,
	...func(*dynamodb.Options)) (*dynamodb.DescribeTableOutput, error) {
	r.note("DescribeTable")
	if r.create == nil {
		return nil, &types.ResourceNotFoundException{}
	}
	return &dynamodb.DescribeTableOutput{Table: &types.TableDescription{
		TableStatus: types.TableStatusActive, KeySchema: r.create.KeySchema,
		AttributeDefinitions: r.create.AttributeDefinitions,
	}}, nil
}

func (r *tableRecorder) CreateTable(_ context.Context, in *dynamodb.CreateTableInput,
	_ ...func(*dynamodb.Options)) (*dynamodb.CreateTableOutput, error) {
	r.note("CreateTable")
	r.create = in
	return &dynamodb.CreateTableOutput{}, nil
}

func (r *tableRecorder) DescribeTimeToLive(context.Context, *dynamodb.DescribeTimeToLiveInput,
	...func(*dynamodb.Options)) (*dynamodb.DescribeTimeToLiveOutput, error) {
	r.note("DescribeTimeToLive")
	return &dynamodb.DescribeTimeToLiveOutput{}, nil
}

func (r *tableRecorder) UpdateTimeToLive(_ context.Context, in *dynamodb.UpdateTimeToLiveInput,
	_ ...func(*dynamodb.Options)) (*dynamodb.UpdateTimeToLiveOutput, error) {
	r.note("UpdateTimeToLive")
	r.ttl = in
	return &dynamodb.UpdateTimeToLiveOutput{}, nil
}

// methods returns the names of an interface's methods.
func methods[T any]() []string {
	var names []string
	for method := range reflect.TypeFor[T]().Methods() {
		names = append(names, method.Name)
	}
	return names
}

// actions returns the IAM actions of DynamoDB's operations.
func actions(operations []string) []any {
	var names []any
	for _, operation := range operations {
		names = append(names, "dynamodb:"+operation)
	}
	return names
}

func onlyStatement(t *testing.T, policy string) object {
	t.Helper()
	statements := properties(readTemplate(t), policy)["PolicyDocument"].(object)["Statement"].([]any)
	require.Len(t, statements, 1)
	require.Equal(t, "Allow", statements[0].(object)["Effect"])
	return statements[0].(object)
}

func properties(template object, name string) object {
	return template["Resources"].(object)[name].(object)["Properties"].(object)
}

func readTemplate(t *testing.T) object {
	t.Helper()
	text, err := os.ReadFile(repository + "/infra/table.yaml")
	require.NoError(t, err)
	var document yaml.Node
	require.NoError(t, yaml.Unmarshal(text, &document))
	require.Len(t, document.Content, 1)
	return plain(t, document.Content[0]).(object)
}

// plain returns what a node of YAML says: an object, a []any or a scalar.
func plain(t *testing.T, n *yaml.Node) any {
	t.Helper()
	var value any
	switch n.Kind {
	case yaml.MappingNode:
		entries := object{}
		for i := 0; i < len(n.Content); i += 2 {
			entries[n.Content[i].Value] = plain(t, n.Content[i+1])
		}
		value = entries
	case yaml.SequenceNode:
		list := []any{}
		for _, element := range n.Content {
			list = append(list, plain(t, element))
		}
		value = list
	case yaml.ScalarNode:
		if intrinsic(n) {
			value = n.Value
		} else {
			require.NoError(t, n.Decode(&value), "line %d", n.Line)
		}
	default:
		require.Fail(t, "not of CloudFormation", "line %d", n.Line)
	}
	if intrinsic(n) {
		return object{n.Tag: value}
	}
	return value
}

// intrinsic reports whether n is a call of one of CloudFormation's functions, in its short form.
func intrinsic(n *yaml.Node) bool {
	return strings.HasPrefix(n.Tag, "!") && !strings.HasPrefix(n.Tag, "!!")
}
