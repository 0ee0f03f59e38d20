package dynamomem_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/dynamomem"
)

// api is what both a Client and the SDK's have.
type api interface {
	PutItem(context.Context, *dynamodb.PutItemInput, ...func(*dynamodb.Options)) (*dynamodb.PutItemOutput, error)
	GetItem(context.Context, *dynamodb.GetItemInput, ...func(*dynamodb.Options)) (*dynamodb.GetItemOutput, error)
}

// limited is a server that throttles by the bubble's time.
func limited(t *testing.T, limit dynamomem.Throughput) (*dynamomem.Server, *dynamomem.Client) {
	t.Helper()
	server, c := newClient(t)
	server.Limit(limit, clock.System)
	return server, c
}

func write(t *testing.T, c api, partition string, more item) error {
	it := item{"p": str(partition), "s": str("s")}
	for name, v := range more {
		it[name] = v
	}
	_, err := c.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: aws.String("t"), Item: it})
	return err
}

func read(t *testing.T, c api, consistent bool) error {
	_, err := c.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: aws.String("t"),
		Key: item{"p": str("p"), "s": str("s")}, ConsistentRead: aws.Bool(consistent)})
	return err
}

// until counts how often do works before it is throttled.
func until(t *testing.T, do func() error) int {
	t.Helper()
	for n := 0; ; n++ {
		if err := do(); err != nil {
			var throttled *types.ThrottlingException
			require.ErrorAs(t, err, &throttled)
			return n
		}
	}
}

func TestNothingIsThrottledWithoutALimit(t *testing.T) {
	t.Parallel()
	server, c := newClient(t)
	for range 5000 {
		require.NoError(t, write(t, c, "p", nil))
	}
	require.Zero(t, server.Load("t", "p"))
}

func TestAPartitionTakesItsUnitsPerSecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server, c := limited(t, dynamomem.OnDemand)
		put := func() error { return write(t, c, "p", nil) }
		require.Equal(t, 1000, until(t, put), "a second's burst")
		require.Equal(t, 3000, until(t, func() error { return read(t, c, true) }), "reads have units of their own")
		require.NoError(t, write(t, c, "other", nil), "and so have other partitions")
		time.Sleep(100 * time.Millisecond)
		require.Equal(t, 100, until(t, put))
		require.Equal(t, 600, until(t, func() error { return read(t, c, false) }), "half a unit each")
		time.Sleep(time.Hour)
		require.Equal(t, 1000, until(t, put), "no more than the burst is saved")
		require.Equal(t, dynamomem.Load{Writes: 2100, Reads: 3300, Throttled: 5}, server.Load("t", "p"))
	})
}

func TestUnitsCountTheKilobytes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server, c := limited(t, dynamomem.OnDemand)
		writes := func() float64 { return server.Load("t", "p").Writes }
		large := item{"b": str(strings.Repeat("x", 4096))}
		require.NoError(t, write(t, c, "p", large))
		require.InDelta(t, 5, writes(), 0)
		require.NoError(t, write(t, c, "p", nil), "replaces the large one")
		require.InDelta(t, 10, writes(), 0)
		_, err := c.PutItem(t.Context(), &dynamodb.PutItemInput{
			TableName: aws.String("t"), Item: item{"p": str("p"), "s": str("s")},
			ConditionExpression: aws.String("attribute_not_exists(#p)"), ExpressionAttributeNames: map[string]string{"#p": "p"},
		})
		require.Error(t, err, "which costs as much as a write")
		require.InDelta(t, 11, writes(), 0)
		require.NoError(t, write(t, c, "p", large))
		for range 3 {
			require.NoError(t, read(t, c, true))
		}
		require.InDelta(t, 6, server.Load("t", "p").Reads, 0)
		_, err = c.Query(t.Context(), &dynamodb.QueryInput{
			TableName: aws.String("t"), ConsistentRead: aws.Bool(true), KeyConditionExpression: aws.String("#p = :p"),
			ExpressionAttributeNames: map[string]string{"#p": "p"}, ExpressionAttributeValues: item{":p": str("p")},
		})
		require.NoError(t, err)
		require.InDelta(t, 8, server.Load("t", "p").Reads, 0)
	})
}

func TestAnAppliedRequestMayLeaveAPartitionInDebt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, c := limited(t, dynamomem.Throughput{Writes: 10, Reads: 10, Burst: time.Second})
		require.NoError(t, write(t, c, "p", item{"b": str(strings.Repeat("x", 20<<10))})) // 21 units
		require.Error(t, write(t, c, "p", nil))
		time.Sleep(1100 * time.Millisecond)
		require.Error(t, write(t, c, "p", nil))
		time.Sleep(50 * time.Millisecond)
		require.NoError(t, write(t, c, "p", nil))
	})
}

func TestAThrottledWriteChangesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server, c := limited(t, dynamomem.Throughput{Writes: 1, Reads: 1, Burst: time.Second})
		require.NoError(t, write(t, c, "p", item{"a": num("1")}))
		require.Error(t, write(t, c, "p", item{"a": num("2")}))
		require.Equal(t, num("1"), server.Item("t", "p", "s")["a"])
	})
}

func TestATransactionIsThrottledWhole(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server, c := limited(t, dynamomem.Throughput{Writes: 2, Reads: 1, Burst: time.Second})
		both := func() error {
			var items []types.TransactWriteItem
			for _, p := range []string{"p", "q"} {
				items = append(items, types.TransactWriteItem{Put: &types.Put{TableName: aws.String("t"),
					Item: item{"p": str(p), "s": str("s")}}})
			}
			_, err := c.TransactWriteItems(t.Context(), &dynamodb.TransactWriteItemsInput{TransactItems: items})
			return err
		}
		require.NoError(t, write(t, c, "p", nil))
		require.NoError(t, both())
		require.InDelta(t, 3, server.Load("t", "p").Writes, 0, "two units each")
		time.Sleep(500 * time.Millisecond) // p is still in debt, q is not
		err := both()
		var canceled *types.TransactionCanceledException
		require.ErrorAs(t, err, &canceled)
		require.Equal(t, "ThrottlingError", *canceled.CancellationReasons[0].Code)
		require.Equal(t, "None", *canceled.CancellationReasons[1].Code)
		require.InDelta(t, 2, server.Load("t", "q").Writes, 0)
	})
}

// TestThrottlingReadsAsTheSDKHasIt compares what a Client returns with what the
// SDK makes of the same answer on the wire.
func TestThrottlingReadsAsTheSDKHasIt(t *testing.T) {
	t.Parallel()
	for _, provisioned := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			limit := dynamomem.Throughput{Writes: 1, Reads: 1, Burst: time.Second, Provisioned: provisioned}
			server, c := limited(t, limit)
			sdk := dynamodb.New(dynamodb.Options{
				BaseEndpoint: aws.String("http://dynamodb.invalid"), Region: "eu-central-1",
				HTTPClient: &http.Client{Transport: server.Transport()}, Retryer: aws.NopRetryer{},
				Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
					return aws.Credentials{AccessKeyID: "a", SecretAccessKey: "b"}, nil
				}),
			})
			require.NoError(t, write(t, c, "p", nil))
			require.NoError(t, read(t, c, true))
			for _, client := range []api{c, sdk} {
				requireReason(t, write(t, client, "p", nil), provisioned, "TableWriteKeyRangeThroughputExceeded")
				requireReason(t, read(t, client, true), provisioned, "TableReadKeyRangeThroughputExceeded")
			}
		})
	}
}

func requireReason(t *testing.T, err error, provisioned bool, want string) {
	t.Helper()
	var reasons []types.ThrottlingReason
	if provisioned {
		var throttled *types.ProvisionedThroughputExceededException
		require.ErrorAs(t, err, &throttled)
		reasons = throttled.ThrottlingReasons
	} else {
		var throttled *types.ThrottlingException
		require.ErrorAs(t, err, &throttled)
		reasons = throttled.ThrottlingReasons
	}
	require.Len(t, reasons, 1)
	require.Equal(t, want, *reasons[0].Reason)
	require.Contains(t, *reasons[0].Resource, "table/t")
}

func TestAGlobalIndexHasUnitsOfItsOwn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := dynamomem.New()
		server.CreateTable("t", "p", "s", dynamomem.Index{Name: "g", PartitionKey: "owner"})
		server.Limit(dynamomem.Throughput{Writes: 1, Reads: 1, Burst: time.Second}, clock.System)
		c := server.Client()
		query := func() error {
			_, err := c.Query(t.Context(), &dynamodb.QueryInput{
				TableName: aws.String("t"), IndexName: aws.String("g"), KeyConditionExpression: aws.String("#o = :o"),
				ExpressionAttributeNames: map[string]string{"#o": "owner"}, ExpressionAttributeValues: item{":o": str("me")},
			})
			return err
		}
		require.NoError(t, read(t, c, true))
		require.Error(t, read(t, c, true))
		require.NoError(t, query())
		require.NoError(t, query(), "half a unit is left")
		requireReason(t, query(), false, "IndexReadKeyRangeThroughputExceeded")
	})
}
