package main

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/dynamolocal"
	"github.com/dynalock/dynalock/internal/dynamomem"
)

// consult runs doctor and returns its findings, by check.
func consult(t *testing.T, store string) map[string]finding {
	t.Helper()
	cmd := command(t, store, "doctor", "-o", "json", "--timeout", "2m")
	output, err := cmd.Output()
	var ended *exec.ExitError
	if !errors.As(err, &ended) {
		require.NoError(t, err)
	}
	var all []finding
	require.NoError(t, json.Unmarshal(output, &all), "%s", output)
	found, status := map[string]finding{}, 0
	for _, f := range all {
		found[f.Check] = f
		if !f.OK {
			status = statusFailed
		}
	}
	require.Equal(t, status, cmd.ProcessState.ExitCode(), "%s", output)
	return found
}

// inMemory is a store of a DynamoDB in memory behind an endpoint. before answers
// instead of it, if it returns true.
func inMemory(t *testing.T, before func(operation string, w http.ResponseWriter) bool) (store string) {
	t.Helper()
	memory := dynamomem.New()
	memory.CreateTable("locks", "id", "name")
	proxy := &httputil.ReverseProxy{
		Transport: memory.Transport(), Rewrite: func(r *httputil.ProxyRequest) { r.Out.URL.Host = "memory.invalid" },
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, operation, isCall := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
		switch {
		case before(operation, w):
		case isCall:
			proxy.ServeHTTP(w, r)
		default:
			_, _ = w.Write([]byte("healthy: dynamodb"))
		}
	}))
	t.Cleanup(server.Close)
	return "dynamodb:locks?endpoint=" + server.URL
}

// refuse answers as DynamoDB does.
func refuse(w http.ResponseWriter, code, message string) bool {
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	w.WriteHeader(http.StatusBadRequest)
	_, _ = fmt.Fprintf(w, `{"__type":"com.amazonaws.dynamodb.v20120810#%s","message":%q}`, code, message)
	return true
}

func TestDoctorFindsEachMissingPermission(t *testing.T) {
	t.Parallel()
	for operation, action := range map[string]string{
		"GetItem": "dynamodb:GetItem (for everything)", "PutItem": "dynamodb:PutItem (for locks)",
		"Query": "dynamodb:Query (for pools", "UpdateItem": "dynamodb:UpdateItem (for Put and Delete",
		"TransactWriteItems": "dynamodb:ConditionCheckItem (for transactions",
		"DescribeTable":      "", "DescribeTimeToLive": "", // nothing but the check of the table needs them
	} {
		t.Run(operation, func(t *testing.T) {
			t.Parallel()
			store := inMemory(t, func(asked string, w http.ResponseWriter) bool {
				return asked == operation && refuse(w, "AccessDeniedException", "not authorized")
			})
			found := consult(t, store)
			if action == "" {
				require.True(t, found["permissions"].OK)
				require.Contains(t, found["table"].Text, "not checked, which takes dynamodb:DescribeTable")
				return
			}
			require.False(t, found["permissions"].OK)
			require.Contains(t, found["permissions"].Text, "lack "+action)
			require.Contains(t, found["permissions"].Text, "dynalock table policy")
		})
	}
}

func TestDoctorFindsAClockThatDynamoDBRefuses(t *testing.T) {
	t.Parallel()
	off := func(w http.ResponseWriter) {
		w.Header().Set("Date", time.Now().Add(20*time.Minute+30*time.Second).UTC().Format(http.TimeFormat))
	}
	store := inMemory(t, func(_ string, w http.ResponseWriter) bool {
		off(w)
		return false
	})
	found := consult(t, store)
	require.False(t, found["clock"].OK)
	require.True(t, found["locks"].OK, "the rest is looked at too: %v", found)
	require.Contains(t, found["clock"].Text, "off by -20m")
	require.Contains(t, found["clock"].Text, "set it (chrony, ntpd)")

	store = inMemory(t, func(operation string, w http.ResponseWriter) bool {
		off(w)
		return operation != "" && refuse(w, "InvalidSignatureException", "Signature expired: 20261127T070000Z is now earlier")
	})
	found = consult(t, store)
	require.Len(t, found, 2, "%v", found)
	require.False(t, found["reads"].OK)
	require.False(t, found["clock"].OK)
	require.Contains(t, found["clock"].Text, "off by -20m")
}

func TestDoctorFindsTenThousandDeletedRows(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short")
	}
	partition := newPartition()
	store := localStore(t, dynamolocal.Endpoint(t)) + "&partition=" + partition
	client, table, _, err := dynamoDB(t.Context(), strings.TrimPrefix(store, "dynamodb:"))
	require.NoError(t, err)
	const each = 25 // of a batch
	remove := func(rows int) {
		for ; rows > 0; rows -= each {
			var batch []types.WriteRequest
			for range each {
				batch = append(batch, types.WriteRequest{PutRequest: &types.PutRequest{Item: map[string]types.AttributeValue{
					"id":      &types.AttributeValueMemberS{Value: partition},
					"name":    &types.AttributeValueMemberS{Value: "lease/" + rand.Text()},
					"version": &types.AttributeValueMemberN{Value: "1790000000000000"},
					"writer":  &types.AttributeValueMemberS{Value: rand.Text()},
					"deleted": &types.AttributeValueMemberBOOL{Value: true},
				}}})
			}
			_, err := client.BatchWriteItem(t.Context(), &dynamodb.BatchWriteItemInput{
				RequestItems: map[string][]types.WriteRequest{table: batch},
			})
			require.NoError(t, err)
		}
	}
	remove(100)
	found := consult(t, store)
	require.Equal(t, "listings read 100 deleted rows", found["deleted"].Text)
	remove(9_900)
	found = consult(t, store)
	require.False(t, found["deleted"].OK)
	require.Contains(t, found["deleted"].Text, "10000 of the 10000 rows under lease/")
	require.Contains(t, found["deleted"].Text, "WithRetention")
}

func TestDoctorTellsOfNothingElseWhereNobodyAnswers(t *testing.T) {
	t.Parallel()
	cmd := command(t, "dynamodb:locks?endpoint=http://127.0.0.1:1", "doctor", "--timeout", "1s")
	output, err := cmd.Output()
	require.Error(t, err)
	require.Equal(t, 2, strings.Count(string(output), "\n"), "%s", output)
	require.Contains(t, string(output), "check Region, endpoint and network")
}

func TestDoctorFindsTablesThatAreMissingOrUnfit(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short")
	}
	endpoint := dynamolocal.Endpoint(t)
	fit := localStore(t, endpoint)
	found := consult(t, fit+"&partition="+newPartition())
	for _, check := range []string{"clock", "permissions", "writes", "sessions", "locks", "table", "deleted"} {
		require.True(t, found[check].OK, "%s: %v", check, found)
	}

	found = consult(t, "dynamodb:no-such-table?endpoint="+endpoint)
	require.Contains(t, found["reads"].Text, `"no-such-table" does not exist in `+dynamolocal.Region)
	require.Contains(t, found["reads"].Text, "dynalock table create makes it")
	found = consult(t, fit+"&region=eu-west-3")
	require.Contains(t, found["reads"].Text, "does not exist in eu-west-3")
	require.Contains(t, found["reads"].Text, "check Region and account")

	other := makeTable(t, endpoint, "pk", "sk")
	found = consult(t, other)
	require.Contains(t, found["table"].Text, `has HASH key "pk", want "id"`)
	found = consult(t, makeTable(t, endpoint, "id", "name"))
	require.False(t, found["table"].OK)
	require.True(t, found["locks"].OK, "locks work: %v", found)
	require.Contains(t, found["table"].Text, `no time to live, so what is deleted stays: enable it on "expires"`)

	for store, status := range map[string]int{
		fit: 0, other: statusUnfit, "dynamodb:no-such-table?endpoint=" + endpoint: statusUnfit, "sqlite:x": statusUsage,
	} {
		cmd := command(t, store, "table", "check")
		output, _ := cmd.CombinedOutput()
		require.Equal(t, status, cmd.ProcessState.ExitCode(), "%s: %s", store, output)
	}
}

// makeTable makes a table without a time to live.
func makeTable(t *testing.T, endpoint, hash, sort string) (store string) {
	t.Helper()
	localStore(t, endpoint) // which sets the credentials
	store = "cli-" + rand.Text() + "?endpoint=" + endpoint
	client, table, _, err := dynamoDB(t.Context(), store)
	require.NoError(t, err)
	_, err = client.CreateTable(t.Context(), &dynamodb.CreateTableInput{
		TableName: aws.String(table), BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{
			{AttributeName: aws.String(hash), AttributeType: types.ScalarAttributeTypeS},
			{AttributeName: aws.String(sort), AttributeType: types.ScalarAttributeTypeS},
		},
		KeySchema: []types.KeySchemaElement{
			{AttributeName: aws.String(hash), KeyType: types.KeyTypeHash},
			{AttributeName: aws.String(sort), KeyType: types.KeyTypeRange},
		},
	})
	require.NoError(t, err)
	return "dynamodb:" + store
}
