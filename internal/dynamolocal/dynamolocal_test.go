package dynamolocal_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/dynamolocal"
)

func TestMain(m *testing.M) { dynamolocal.Main(m) }

func TestEndpointAnswersAndIsShared(t *testing.T) {
	t.Parallel()
	endpoint := dynamolocal.Endpoint(t)
	response, err := http.Get(endpoint)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, endpoint, dynamolocal.Endpoint(t))
}
