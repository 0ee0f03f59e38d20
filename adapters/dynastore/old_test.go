package dynastore_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/adapters/dynastore"
	"github.com/dynalock/dynalock/internal/dynamolocal"
	"github.com/dynalock/dynalock/internal/dynamomem"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/dynamokv"
)

func TestMain(m *testing.M) { dynamolocal.Main(m) }

type item = map[string]types.AttributeValue

// oldStore writes rows as dynastore does.
type oldStore struct {
	client    dynamokv.Client
	table     string
	partition string
}

func (o oldStore) key(key string) item {
	return item{"id": s(o.partition), "name": s(key)}
}

func s(text string) types.AttributeValue { return &types.AttributeValueMemberS{Value: text} }
func n(number int64) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: fmt.Sprint(number)}
}

// put writes payload. previous is the version to depend on, 0: none.
func (o oldStore) put(key, payload string, expires time.Time, fields map[string]string, previous int64) error {
	update := "SET #v = if_not_exists(#v, :zero) + :one, #p = :p" // dynastore says ADD #v :one
	names := map[string]string{"#v": "version", "#p": "payload"}
	values := item{":zero": n(0), ":one": n(1), ":p": s(payload)}
	if !expires.IsZero() {
		update += ", #e = :e"
		names["#e"], values[":e"] = "expires", n(expires.Unix())
	}
	for name, value := range fields {
		update += fmt.Sprintf(", #%[1]s = :%[1]s", name)
		names["#"+name], values[":"+name] = name, s(value)
	}
	in := &dynamodb.UpdateItemInput{
		TableName: &o.table, Key: o.key(key), UpdateExpression: &update,
		ExpressionAttributeNames: names, ExpressionAttributeValues: values,
	}
	if previous != 0 {
		in.ConditionExpression = aws.String("#v = :v")
		values[":v"] = n(previous)
	}
	_, err := o.client.UpdateItem(context.Background(), in)
	return err
}

// get returns what dynastore makes of a row: its payload, "" for none, and whether
// it thinks that there is one.
func (o oldStore) get(t *testing.T, key string) (payload string, found bool) {
	t.Helper()
	out, err := o.client.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: &o.table, Key: o.key(key)})
	require.NoError(t, err)
	if out.Item == nil {
		return "", false
	}
	if e, ok := out.Item["expires"].(*types.AttributeValueMemberN); ok && e.Value < fmt.Sprint(time.Now().Unix()) {
		return "", false
	}
	if p, ok := out.Item["payload"].(*types.AttributeValueMemberS); ok {
		payload = p.Value
	}
	return payload, true
}

// raw puts an item that neither library writes.
func (o oldStore) raw(t *testing.T, key string, attributes item) {
	t.Helper()
	it := o.key(key)
	for name, value := range attributes {
		it[name] = value
	}
	_, err := o.client.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &o.table, Item: it})
	require.NoError(t, err)
}

// rig is a table that the old program has written, and this library's two ways to
// it.
type rig struct {
	old   oldStore
	table *dynastore.Table
	store kv.Store // of the same partition
	fresh kv.Store // of another
}

const bytesValue = "\x00\xffbytes"

func newRig(t *testing.T, client dynamokv.Client, table string) rig {
	t.Helper()
	r := rig{old: oldStore{client, table, "settings"}}
	var err error
	r.table, err = dynastore.Open(client, table, "settings")
	require.NoError(t, err)
	r.store, err = dynamokv.New(client, table, dynamokv.WithPartition("settings"))
	require.NoError(t, err)
	r.fresh, err = dynamokv.New(client, table, dynamokv.WithPartition("fresh"))
	require.NoError(t, err)

	require.NoError(t, r.old.put("app/a", base64.StdEncoding.EncodeToString([]byte(bytesValue)), time.Time{}, nil, 0))
	require.NoError(t, r.old.put("app/b", "b25l", time.Time{}, nil, 0))
	require.NoError(t, r.old.put("app/b", "dHdv", time.Time{}, map[string]string{"team": "blue"}, 1))
	require.NoError(t, r.old.put("app/live", "c29vbg==", time.Now().Add(time.Hour), nil, 0))
	require.NoError(t, r.old.put("app/over", "b3Zlcg==", time.Now().Add(-time.Hour), nil, 0))
	require.NoError(t, r.old.put("apple", "", time.Time{}, nil, 0))
	return r
}

// onBoth runs the test in memory and, unless short, on DynamoDB Local.
func onBoth(t *testing.T, test func(t *testing.T, r rig)) {
	t.Run("in memory", func(t *testing.T) {
		t.Parallel()
		server := dynamomem.New()
		server.CreateTable("app", "id", "name")
		test(t, newRig(t, server.Client(), "app"))
	})
	t.Run("DynamoDB Local", func(t *testing.T) {
		t.Parallel()
		db := dynamodb.New(dynamodb.Options{
			BaseEndpoint: aws.String(dynamolocal.Endpoint(t)), Region: dynamolocal.Region,
			Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
				return aws.Credentials{AccessKeyID: dynamolocal.AccessKey, SecretAccessKey: dynamolocal.SecretKey}, nil
			}),
		})
		table := "app-" + rand.Text()
		require.NoError(t, dynamokv.EnsureTable(t.Context(), db, table))
		test(t, newRig(t, db, table))
	})
}
