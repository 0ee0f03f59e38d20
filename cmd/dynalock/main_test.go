package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

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
