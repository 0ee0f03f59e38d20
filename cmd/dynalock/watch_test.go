//go:build unix

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/dynamolocal"
)

// patience is for what takes seconds on a machine that does nothing else.
const patience = 2 * time.Minute

// states runs ls --watch, and returns the states of key as they change.
func states(t *testing.T, store, key string) <-chan string {
	t.Helper()
	cmd := command(t, store, "ls", "--watch=100ms", "-o", "jsonl")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	changes := make(chan string, 100)
	go func() {
		defer close(changes)
		last := ""
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var row lockRow
			if json.Unmarshal(lines.Bytes(), &row) == nil && row.Key == key && row.State != last {
				last = row.State
				changes <- last
			}
		}
	}()
	return changes
}

func next(t *testing.T, changes <-chan string) string {
	t.Helper()
	select {
	case state := <-changes:
		return state
	case <-time.After(patience):
		require.Fail(t, "no change")
	}
	return ""
}

// A holder that is frozen is overdue on ls --watch before anybody else has its lock.
func TestAFrozenHolderIsOverdueBeforeOthersTakeItsLock(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short")
	}
	store := "sqlite:" + filepath.Join(t.TempDir(), "locks.db")
	holder := command(t, store, "-q", "--ttl", "6s", "--owner", "holder", "run", "demo", "--", "sleep", "600")
	require.NoError(t, holder.Start())
	defer func() {
		_ = holder.Process.Signal(syscall.SIGCONT)
		_ = holder.Process.Signal(syscall.SIGTERM)
		_ = holder.Wait()
	}()
	changes := states(t, store, "demo")
	require.Equal(t, "live", next(t, changes))
	contender := command(t, store, "-q", "run", "demo", "--", "true")
	require.NoError(t, contender.Start())
	taken := make(chan time.Time, 1)
	go func() {
		if contender.Wait() == nil {
			taken <- time.Now()
		}
	}()
	require.NoError(t, holder.Process.Signal(syscall.SIGSTOP))
	require.Equal(t, "overdue", next(t, changes))
	overdue := time.Now()
	select {
	case at := <-taken:
		t.Logf("taken %v after it was shown as overdue", at.Sub(overdue))
		require.True(t, at.After(overdue))
	case <-time.After(patience):
		require.Fail(t, "nobody has taken the lock")
	}
}

func TestATableOfDynastoreIsImported(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short")
	}
	store := localStore(t, dynamolocal.Endpoint(t)) + "&partition=" + newPartition()
	from, old := strings.TrimPrefix(localStore(t, dynamolocal.Endpoint(t)), "dynamodb:"), newPartition()
	client, table, _, err := dynamoDB(context.Background(), from)
	require.NoError(t, err)
	for key, value := range map[string]string{"color": "blue", "size": "17"} {
		_, err := client.PutItem(t.Context(), &dynamodb.PutItemInput{
			TableName: aws.String(table), Item: map[string]types.AttributeValue{
				"id": &types.AttributeValueMemberS{Value: old}, "name": &types.AttributeValueMemberS{Value: key},
				"version": &types.AttributeValueMemberN{Value: "3"}, "payload": &types.AttributeValueMemberS{Value: value},
			},
		})
		require.NoError(t, err)
	}
	table, query, _ := strings.Cut(from, "?")
	source := "dynastore:" + table + "/" + old + "?" + query
	output, err := command(t, store, "kv", "import", source, "--text").CombinedOutput()
	require.NoError(t, err, "%s", output)
	require.Contains(t, string(output), "2 copied, 0 were there")
	output, err = command(t, store, "kv", "get", "color").CombinedOutput()
	require.NoError(t, err, "%s", output)
	require.Equal(t, "blue", string(output))
	output, err = command(t, store, "kv", "import", source, "--text").CombinedOutput()
	require.NoError(t, err, "%s", output)
	require.Contains(t, string(output), "0 copied, 2 were there")
}

// servePage starts web and returns its address.
func servePage(t *testing.T, store string, arguments ...string) (server *exec.Cmd, address string) {
	t.Helper()
	server = command(t, store, append([]string{"web", "--listen", "127.0.0.1:0"}, arguments...)...)
	out, err := server.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, server.Start())
	address, err = bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	return server, strings.TrimSpace(address)
}

// get asks for an address, and returns the answer's status and text.
func get(t *testing.T, address string, change ...func(*http.Request)) (status int, text string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, http.NoBody)
	require.NoError(t, err)
	for _, c := range change {
		c(request)
	}
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, string(content)
}

func TestThePageIsServedUntilItIsInterrupted(t *testing.T) {
	t.Parallel()
	store := "sqlite:" + filepath.Join(t.TempDir(), "locks.db")
	server, address := servePage(t, store)
	holder := command(t, store, "-q", "run", "demo/lock", "--", "sleep", "600")
	require.NoError(t, holder.Start())
	defer func() {
		_ = holder.Process.Signal(syscall.SIGTERM)
		_ = holder.Wait()
	}()
	require.Eventually(t, func() bool {
		status, text := get(t, address+"locks")
		return status == http.StatusOK && strings.Contains(text, "demo/lock")
	}, patience, 50*time.Millisecond)
	status, _ := get(t, address, func(r *http.Request) { r.Host = "elsewhere.example.com" })
	require.Equal(t, http.StatusMisdirectedRequest, status)

	// Other users of this machine reach the port, and do not know the address.
	u, err := url.Parse(address)
	require.NoError(t, err)
	require.Regexp(t, `^/[A-Z2-7]{26}/$`, u.Path)
	for _, path := range []string{"/", "/locks", "/assets/page.css", strings.ToLower(u.Path)} {
		status, text := get(t, "http://"+u.Host+path)
		require.Equal(t, http.StatusNotFound, status, path)
		require.NotContains(t, text, "demo/lock")
	}
	other, second := servePage(t, store)
	require.NotEqual(t, u.Path, second[strings.LastIndex(strings.TrimSuffix(second, "/"), "/"):], "made anew each time")
	for _, s := range []*exec.Cmd{server, other} {
		require.NoError(t, s.Process.Signal(syscall.SIGTERM))
		require.NoError(t, s.Wait(), "status 0")
	}
}

func TestThePageElsewhereSaysWhoLooks(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	store, file := "sqlite:"+filepath.Join(folder, "locks.db"), filepath.Join(folder, "users")
	for _, c := range []struct {
		users, want string
		arguments   []string
	}{
		{"", "want an address of this machine only", []string{"--listen", "0.0.0.0:0", "--actions"}},
		{"", "--auth-file: open", []string{"--auth-file", filepath.Join(folder, "missing")}},
		{"", "line 1: want USER:PASSWORD", []string{"--auth-file", file}},
		{"ann:secret\nbob:\n", "line 2: want USER:PASSWORD", []string{"--auth-file", file}},
		{"ann:secret\n", "want one of them", []string{"--auth-file", file, "--user-header", "X-User"}},
	} {
		require.NoError(t, os.WriteFile(file, []byte(c.users), 0o600))
		output, err := command(t, store, append([]string{"web"}, c.arguments...)...).CombinedOutput()
		require.ErrorContains(t, err, "exit status 64", "%s", output)
		require.Contains(t, string(output), c.want)
	}
	require.NoError(t, os.WriteFile(file, []byte("ann:secret\nbob:pass:word\n"), 0o600))
	server, address := servePage(t, store, "--auth-file", file)
	as := func(user, password string) func(*http.Request) {
		return func(r *http.Request) { r.SetBasicAuth(user, password) }
	}
	for _, change := range []func(*http.Request){func(*http.Request) {}, as("ann", "pass:word"), as("eve", ""), as("ann", "")} {
		status, _ := get(t, address, change)
		require.Equal(t, http.StatusUnauthorized, status)
	}
	for user, password := range map[string]string{"ann": "secret", "bob": "pass:word"} {
		status, text := get(t, address, as(user, password))
		require.Equal(t, http.StatusOK, status)
		require.Contains(t, text, "Overview")
	}
	proxied, address := servePage(t, store, "--user-header", "X-User")
	status, _ := get(t, address)
	require.Equal(t, http.StatusForbidden, status)
	status, _ = get(t, address, func(r *http.Request) { r.Header.Set("X-User", "ann") })
	require.Equal(t, http.StatusOK, status)
	for _, s := range []*exec.Cmd{server, proxied} {
		require.NoError(t, s.Process.Signal(syscall.SIGTERM))
		require.NoError(t, s.Wait(), "status 0")
	}
}

// A store that accepts connections and says nothing is out of reach, whatever is
// asked of it.
func TestASilentStoreIsOutOfReach(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = silent.Close() }()
	store := "dynamodb:table?endpoint=http://" + silent.Addr().String()
	for _, arguments := range [][]string{
		{"ls"}, {"show", "k"}, {"sessions"}, {"break", "k", "--yes"}, {"kv", "get", "k"}, {"kv", "put", "k", "v"},
		{"once", "ls"}, {"who", "e"}, {"pool", "ls", "p"}, {"run", "-n", "k", "--", "true"},
	} {
		t.Run(strings.Join(arguments, " "), func(t *testing.T) {
			t.Parallel()
			output, err := command(t, store, append([]string{"--timeout", "2s"}, arguments...)...).CombinedOutput()
			var ended *exec.ExitError
			require.ErrorAs(t, err, &ended, "%s", output)
			require.Equal(t, statusUnavailable, ended.ExitCode(), "%s", output)
		})
	}
}
