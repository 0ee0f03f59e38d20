package main_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/dynamolocal"
)

func TestOnDynamoDB(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("needs DynamoDB Local: left out by -short")
	}
	endpoint, stop, err := dynamolocal.Start(t.Context())
	require.NoError(t, err)
	t.Cleanup(stop)
	env := []string{
		"AWS_ENDPOINT_URL_DYNAMODB=" + endpoint,
		"AWS_REGION=eu-west-1", "AWS_ACCESS_KEY_ID=fake", "AWS_SECRET_ACCESS_KEY=fake",
	}

	t.Run("a missing table is refused", func(t *testing.T) {
		t.Parallel()
		requireRefused(t, start(t, env, "-store", "dynamodb:consumers-missing"), "-create-table")
	})
	t.Run("a name that no table can have is refused", func(t *testing.T) {
		t.Parallel()
		requireRefused(t, start(t, env, "-store", "dynamodb:not a table name"), "not a table name")
	})
	t.Run("three workers", func(t *testing.T) {
		t.Parallel()
		p := start(t, env, "-store", "dynamodb:consumers-three", "-create-table", "-input", files(t, 20), "-work", "20ms")
		require.Len(t, p.complete(t, 20).Workers, 3)
	})
	t.Run("three workers on shards", func(t *testing.T) {
		t.Parallel()
		store := "dynamodb:consumers-shards?shards=4"
		p := start(t, env, "-store", store, "-create-table", "-input", files(t, 20), "-work", "20ms")
		require.Len(t, p.complete(t, 20).Workers, 3)
		requireRefused(t, start(t, env, "-store", "dynamodb:consumers-shards?shards=2"), "WithShards(4)")
	})
	t.Run("shards that are no number are refused", func(t *testing.T) {
		t.Parallel()
		requireRefused(t, start(t, env, "-store", "dynamodb:consumers?shards=many"), "dynamodb:TABLE?shards=N")
	})
	t.Run("a killed worker", func(t *testing.T) {
		t.Parallel()
		p := start(t, env, "-store", "dynamodb:consumers-crash", "-create-table", "-crash", "-ttl", "3s", "-input",
			files(t, 20), "-work", "20ms")
		require.Positive(t, p.complete(t, 20).Takeovers)
	})
	t.Run("two processes", func(t *testing.T) {
		t.Parallel()
		flags := []string{"-store", "dynamodb:consumers-two", "-create-table", "-input", files(t, 40), "-work", "50ms"}
		first, second := start(t, env, flags...), start(t, env, flags...)
		first.complete(t, 40)
		second.complete(t, 40)
	})
}
