package lock_test

import (
	"context"
	"crypto/rand"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/dynamolocal"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/dynamokv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

func TestMain(m *testing.M) { dynamolocal.Main(m) }

func newDynamoDB(t *testing.T) *dynamodb.Client {
	t.Helper()
	return dynamodb.New(dynamodb.Options{
		BaseEndpoint: aws.String(dynamolocal.Endpoint(t)), Region: dynamolocal.Region,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: dynamolocal.AccessKey, SecretAccessKey: dynamolocal.SecretKey}, nil
		}),
	})
}

// newAccounts makes the table that writeBalance writes to.
func newAccounts(t *testing.T, db *dynamodb.Client) string {
	t.Helper()
	table := "accounts-" + rand.Text()
	_, err := db.CreateTable(t.Context(), &dynamodb.CreateTableInput{
		TableName: aws.String(table), BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("account"),
			AttributeType: types.ScalarAttributeTypeS}},
		KeySchema: []types.KeySchemaElement{{AttributeName: aws.String("account"), KeyType: types.KeyTypeHash}},
	})
	require.NoError(t, err)
	return table
}

func TestADeposedHolderCannotWriteToDynamoDB(t *testing.T) {
	t.Parallel()
	db := newDynamoDB(t)
	accounts, locks := newAccounts(t, db), "locks-"+rand.Text()
	require.NoError(t, dynamokv.EnsureTable(t.Context(), db, locks))
	store, err := dynamokv.New(db, locks)
	require.NoError(t, err)
	a := newClient(t, kv.Prefixed(store, "app/"), lease.WithTTL(time.Hour))
	b := newClient(t, kv.Prefixed(store, "app/"), lease.WithTTL(time.Hour))

	deposed, err := lock.NewMutex(a, "account/7").Lock(t.Context())
	require.NoError(t, err)
	require.NoError(t, writeBalance(t.Context(), db, store, deposed, accounts, "7", "1"))
	h, err := b.Inspect(t.Context(), "account/7")
	require.NoError(t, err)
	require.NoError(t, b.Break(t.Context(), h, lease.BreakForce()))
	require.ErrorContains(t, writeBalance(t.Context(), db, store, deposed, accounts, "7", "2"), "the lock went to another")
	err = lock.NewMutex(b, "account/7").Do(t.Context(), func(ctx context.Context, l *lease.Lease) error {
		return writeBalance(ctx, db, store, l, accounts, "7", "3")
	})
	require.NoError(t, err)
	require.ErrorContains(t, writeBalance(t.Context(), db, store, deposed, accounts, "7", "4"), "the lock went to another")

	row, err := db.GetItem(t.Context(), &dynamodb.GetItemInput{
		TableName: aws.String(accounts),
		Key:       map[string]types.AttributeValue{"account": &types.AttributeValueMemberS{Value: "7"}},
	})
	require.NoError(t, err)
	require.Equal(t, &types.AttributeValueMemberN{Value: "3"}, row.Item["balance"])
}

func TestOnceOnDynamoDB(t *testing.T) {
	t.Parallel()
	db := newDynamoDB(t)
	table := "once-" + rand.Text()
	require.NoError(t, dynamokv.EnsureTable(t.Context(), db, table))
	store, err := dynamokv.New(db, table)
	require.NoError(t, err)
	o := lock.NewOnce(newClient(t, store, lease.WithTTL(time.Hour)), "job")
	ran, err := o.Do(t.Context(), "slot", nop)
	require.NoError(t, err)
	require.True(t, ran)
	done := requireState(t, o, lock.StateDone)

	row, err := db.GetItem(t.Context(),
		&dynamodb.GetItemInput{TableName: aws.String(table), Key: map[string]types.AttributeValue{
			"id":   &types.AttributeValueMemberS{Value: "dynalock"},
			"name": &types.AttributeValueMemberS{Value: "lease/" + o.Key("slot")},
		}})
	require.NoError(t, err)
	require.Contains(t, row.Item, "expires", "the retention")
	ran, err = lock.NewOnce(newClient(t, store, lease.WithTTL(time.Hour)), "job").Do(t.Context(), "slot", mustNotRun(t))
	require.NoError(t, err)
	require.False(t, ran)
	require.Positive(t, done.Token)
}
