package dynamolocal_test

import (
	"net/http"
	"os"
	"path/filepath"
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

// Not parallel, since it changes the environment.
func TestWhatJavaSaidIsInTheError(t *testing.T) {
	if os.Getenv(dynamolocal.EndpointVariable) != "" || testing.Short() {
		t.Skip("it starts nothing")
	}
	folder := t.TempDir()
	script := "#!/bin/sh\necho no memory left >&2\nexit 1\n"
	require.NoError(t, os.WriteFile(filepath.Join(folder, "java"), []byte(script), 0o700))
	t.Setenv("PATH", folder+string(os.PathListSeparator)+os.Getenv("PATH"))
	_, _, err := dynamolocal.Start(t.Context())
	require.ErrorContains(t, err, "exited at once")
	require.ErrorContains(t, err, "no memory left")
}
