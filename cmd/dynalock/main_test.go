package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/dynamolocal"
	"github.com/dynalock/dynalock/internal/postgreslocal"
)

// asCommand makes the test binary the command.
const asCommand = "DYNALOCK_TEST_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		os.Exit(Main())
	}
	testscript.Main(stopping{m}, map[string]func(){"dynalock": func() { os.Exit(Main()) }})
}

// stopping stops DynamoDB Local and PostgreSQL after the tests.
type stopping struct{ m *testing.M }

func (s stopping) Run() int {
	defer dynamolocal.Stop()
	defer postgreslocal.Stop()
	return s.m.Run()
}

func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("DYNALOCK_STORE", "sqlite:"+e.WorkDir+"/locks.db")
			return nil
		},
	})
}

func TestScriptsOnDynamoDBLocal(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short")
	}
	store := localStore(t, dynamolocal.Endpoint(t))
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			setCredentials(e.Setenv)
			e.Setenv("DYNALOCK_STORE", store+"&partition="+newPartition())
			return nil
		},
	})
}

func TestAStoreWithShardsIsNamedByItsURL(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short")
	}
	store := localStore(t, dynamolocal.Endpoint(t)) + "&partition=" + newPartition()
	out, err := command(t, store+"&shards=4", "--timeout", "2m", "kv", "put", "color", "blue").CombinedOutput()
	require.NoError(t, err, "%s", out)
	out, err = command(t, store+"&shards=4", "--timeout", "2m", "kv", "get", "color").CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Equal(t, "blue", string(out))
	for query, want := range map[string]string{"": "WithShards(4)", "&shards=many": "want a number", "&shards=0": "1 to 256"} {
		out, err = command(t, store+query, "--timeout", "2m", "kv", "get", "color").CombinedOutput()
		require.Error(t, err)
		require.Contains(t, string(out), want)
	}
}
