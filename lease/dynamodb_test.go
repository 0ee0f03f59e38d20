package lease_test

import (
	"context"
	"crypto/rand"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/dynamolocal"
	"github.com/dynalock/dynalock/kv/dynamokv"
	"github.com/dynalock/dynalock/lease"
)

func TestMain(m *testing.M) { dynamolocal.Main(m) }

// counter counts the requests that go over the wire, by DynamoDB's name for them.
type counter struct {
	base http.RoundTripper

	mu    sync.Mutex
	calls map[string]int
}

func (c *counter) RoundTrip(r *http.Request) (*http.Response, error) {
	_, operation, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	c.mu.Lock()
	c.calls[operation]++
	c.mu.Unlock()
	return c.base.RoundTrip(r)
}

func (c *counter) Take() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	calls := c.calls
	c.calls = map[string]int{}
	return calls
}

// patientClock is the machine's clock, but attempts have thirty times as long
// for their answers: one that a slow machine is late with must not be repeated
// where requests are counted.
type patientClock struct{ clock.Clock }

func (c patientClock) WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return c.Clock.WithTimeout(ctx, 30*d)
}

// onDynamoDB makes a client on a table of its own and a counter of its requests.
func onDynamoDB(t *testing.T, table string) (*lease.Client, *counter) {
	t.Helper()
	count := &counter{base: http.DefaultTransport, calls: map[string]int{}}
	db := dynamodb.New(dynamodb.Options{
		BaseEndpoint: aws.String(dynamolocal.Endpoint(t)), Region: dynamolocal.Region,
		HTTPClient: &http.Client{Transport: count},
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: dynamolocal.AccessKey, SecretAccessKey: dynamolocal.SecretKey}, nil
		}),
	})
	require.NoError(t, dynamokv.EnsureTable(t.Context(), db, table))
	store, err := dynamokv.New(db, table, dynamokv.WithClock(patientClock{clock.System}))
	require.NoError(t, err)
	c, err := lease.New(store, lease.WithTTL(time.Hour)) // no heartbeat comes between
	require.NoError(t, err)
	count.Take()
	return c, count
}

func TestI12RequestsOnTheWire(t *testing.T) {
	t.Parallel()
	table := "requests-" + rand.Text() // the emulator may be shared by several runs
	c, count := onDynamoDB(t, table)
	acquire := func(key string) *lease.Lease {
		l, err := c.TryAcquire(t.Context(), key)
		require.NoError(t, err)
		return l
	}
	first := acquire("first")
	// The store's first use reads its partition's layout row, and makes it: the partition is new.
	require.Equal(t, map[string]int{"GetItem": 1, "PutItem": 3}, count.Take(), "first acquire: the session and the lease")
	second := acquire("second")
	require.Equal(t, map[string]int{"PutItem": 1}, count.Take(), "a key never used")
	require.NoError(t, first.Release(t.Context()))
	require.Equal(t, map[string]int{"PutItem": 1}, count.Take(), "release")
	again := acquire("first")
	require.Equal(t, map[string]int{"PutItem": 1}, count.Take(), "a key that was released")
	require.Greater(t, again.Token(), first.Token())

	other, otherCount := onDynamoDB(t, table)
	mine, err := other.TryAcquire(t.Context(), "mine")
	require.NoError(t, err)
	otherCount.Take()
	_, err = other.TryAcquire(t.Context(), "second")
	require.ErrorIs(t, err, lease.ErrHeld)
	require.Equal(t, map[string]int{"PutItem": 1, "GetItem": 1}, otherCount.Take(), "a held key")

	closed := make(chan error, 1)
	go func() { closed <- c.Close(context.Background()) }()
	<-second.Context().Done()
	require.NoError(t, second.Release(t.Context()))
	require.NoError(t, again.Release(t.Context()))
	require.NoError(t, <-closed)
	require.Equal(t, map[string]int{"PutItem": 1}, count.Take(), "close, with two leases held")
	require.NoError(t, mine.Release(t.Context()))
	require.NoError(t, other.Close(t.Context()))
}
