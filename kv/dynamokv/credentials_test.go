package dynamokv_test

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/dynamolocal"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/dynamokv"
)

// credentials are the emulator's.
type credentials struct{}

func (credentials) Retrieve(context.Context) (aws.Credentials, error) {
	return aws.Credentials{AccessKeyID: dynamolocal.AccessKey, SecretAccessKey: dynamolocal.SecretKey}, nil
}

// suspending are credentials that take two minutes to get, by a clock that is
// stepped.
type suspending struct {
	credentials
	clock *clock.Skewed
}

func (s suspending) Retrieve(ctx context.Context) (aws.Credentials, error) {
	s.clock.Step(2 * time.Minute)
	return s.credentials.Retrieve(ctx)
}

// S6: the process is suspended when a write has begun to be sent. It is not sent
// afterwards, signed as it may be.
func TestAWriteThatIsSuspendedBeforeItIsSignedIsNotSent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &wire{base: newMem().Transport()}
		c := clock.NewSkewed(clock.System, 1, 0)
		client := dynamodb.New(dynamodb.Options{
			BaseEndpoint: aws.String("http://dynamodb.invalid"), Region: dynamolocal.Region,
			HTTPClient: &http.Client{Transport: w}, Credentials: suspending{clock: c},
		})
		s, err := dynamokv.New(client, "table", dynamokv.WithClock(c))
		require.NoError(t, err)
		_, err = s.AtomicPut(t.Context(), "key")
		require.Error(t, err)
		require.NotErrorIs(t, err, kv.ErrUncertain)
		require.Zero(t, w.requests())
	})
}
