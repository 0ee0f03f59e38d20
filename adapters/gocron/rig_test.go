package gocronlock_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/stretchr/testify/require"

	_ "modernc.org/sqlite"

	"github.com/dynalock/dynalock/internal/dynamolocal"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/dynamokv"
	"github.com/dynalock/dynalock/kv/sqlkv"
	"github.com/dynalock/dynalock/lease"
)

func TestMain(m *testing.M) { dynamolocal.Main(m) }

func newClient(t *testing.T, store kv.Store) *lease.Client {
	t.Helper()
	c, err := lease.New(store)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		require.NoError(t, c.Close(ctx))
	})
	return c
}

func newFile(t *testing.T) kv.Store {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(t.TempDir(), "jobs.db"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	store, err := sqlkv.Open(t.Context(), db)
	require.NoError(t, err)
	return store
}

func newTable(t *testing.T) kv.Store {
	t.Helper()
	client := dynamodb.New(dynamodb.Options{
		BaseEndpoint: aws.String(dynamolocal.Endpoint(t)), Region: dynamolocal.Region,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: dynamolocal.AccessKey, SecretAccessKey: dynamolocal.SecretKey}, nil
		}),
	})
	table := "gocron-" + rand.Text()
	require.NoError(t, dynamokv.EnsureTable(t.Context(), client, table))
	store, err := dynamokv.New(client, table)
	require.NoError(t, err)
	return store
}
