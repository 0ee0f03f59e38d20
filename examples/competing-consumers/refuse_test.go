package main_test

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// requireRefused requires status 2, within 5 seconds, with one line that holds want.
func requireRefused(t *testing.T, p *program, want string) {
	t.Helper()
	began := time.Now()
	_, status := p.end(t)
	took := time.Since(began)
	require.Equal(t, 2, status)
	require.Equal(t, 1, strings.Count(p.stderr.String(), "\n"), p.stderr.String())
	require.Contains(t, p.stderr.String(), want)
	require.Less(t, took, 5*time.Second)
	t.Logf("after %v: %s", took, &p.stderr)
}

func TestWhatCannotBeginIsRefused(t *testing.T) {
	t.Parallel()
	region := []string{"AWS_REGION=eu-west-1", "AWS_EC2_METADATA_DISABLED=true"}
	for name, c := range map[string]struct {
		env  []string
		args []string
		want string
	}{
		"missing folder":      {nil, []string{"-input", "nowhere"}, "nowhere: give one with -input"},
		"empty folder":        {nil, []string{"-input", t.TempDir()}, "no files"},
		"unknown store":       {nil, []string{"-store", "redis:x"}, `unknown store "redis:x"`},
		"no such path":        {nil, []string{"-store", "sqlite:no/such/folder/x.db"}, "no folder no/such/folder"},
		"not a store":         {nil, []string{"-store", "sqlite:main.go"}, "sqlite:main.go"},
		"crash in memory":     {nil, []string{"-store", "memory", "-crash"}, "-crash"},
		"crash of all":        {nil, []string{"-workers", "1", "-crash"}, "-workers 2"},
		"no workers":          {nil, []string{"-workers", "0"}, "-workers 0"},
		"short ttl":           {nil, []string{"-ttl", "1s"}, "-ttl 1s"},
		"unknown flag":        {nil, []string{"-color"}, "-color"},
		"argument":            {nil, []string{"."}, "-input"},
		"no Region":           {nil, []string{"-store", "dynamodb:x"}, "AWS_REGION"},
		"no credentials":      {region, []string{"-store", "dynamodb:x"}, "AWS credentials"},
		"unknown AWS profile": {append(region, "AWS_PROFILE=nobody"), []string{"-store", "dynamodb:x"}, "AWS_PROFILE"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			temporary := t.TempDir()
			requireRefused(t, start(t, append(c.env, "TMPDIR="+temporary), c.args...), c.want)
			requireEmpty(t, temporary)
		})
	}
}

// silent returns the address of a server that accepts connections and never says a word.
func silent(t *testing.T) string {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	return "http://" + listener.Addr().String()
}

func TestASilentMetadataServiceIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	env := []string{"AWS_REGION=eu-west-1", "AWS_EC2_METADATA_SERVICE_ENDPOINT=" + silent(t)}
	requireRefused(t, start(t, env, "-store", "dynamodb:x"), "AWS credentials")
}

func TestASilentDynamoDBIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	env := []string{"AWS_REGION=eu-west-1", "AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=x",
		"AWS_ENDPOINT_URL_DYNAMODB=" + silent(t)}
	requireRefused(t, start(t, env, "-store", "dynamodb:x"), "cannot be read")
}

func TestTheStoreOfARefusedRunIsNotMade(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	requireRefused(t, start(t, nil, "-input", t.TempDir(), "-store", "sqlite:"+filepath.Join(folder, "x.db")), "no files")
	requireEmpty(t, folder)
}
