package main

import (
	"context"
	"crypto/rand"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/dynamolocal"
	"github.com/dynalock/dynalock/kv/dynamokv"
)

// setCredentials sets those of DynamoDB Local.
func setCredentials(set func(name, value string)) {
	set("AWS_ACCESS_KEY_ID", dynamolocal.AccessKey)
	set("AWS_SECRET_ACCESS_KEY", dynamolocal.SecretKey)
	set("AWS_REGION", dynamolocal.Region)
}

func newPartition() string { return rand.Text() }

// localTable is the one that all tests share, each with a partition of its own.
var localTable struct {
	once sync.Once
	name string
	err  error
}

// localStore is a store on DynamoDB Local, as seen through endpoint.
func localStore(t *testing.T, endpoint string) string {
	t.Helper()
	direct := dynamolocal.Endpoint(t)
	localTable.once.Do(func() {
		localTable.name = "cli-" + rand.Text()
		setCredentials(func(name, value string) { localTable.err = os.Setenv(name, value) })
		client, name, _, err := dynamoDB(context.Background(), localTable.name+"?endpoint="+direct)
		if localTable.err = err; err == nil {
			localTable.err = dynamokv.EnsureTable(context.Background(), client, name)
		}
	})
	require.NoError(t, localTable.err)
	return "dynamodb:" + localTable.name + "?endpoint=" + endpoint
}

// command makes one of the command, on a store.
func command(t *testing.T, store string, arguments ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), self, arguments...)
	cmd.Env = append(os.Environ(), asCommand+"=1", storeVariable+"="+store)
	setCredentials(func(name, value string) { cmd.Env = append(cmd.Env, name+"="+value) })
	return cmd
}

func median(values []time.Duration) time.Duration {
	slices.Sort(values)
	return values[len(values)/2]
}
