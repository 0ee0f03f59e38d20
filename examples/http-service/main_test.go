package main_test

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/proctest"
)

// binary is the built program.
var binary string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		folder, err := os.MkdirTemp("", "http-service-test-")
		if err != nil {
			panic(err)
		}
		defer func() { _ = os.RemoveAll(folder) }()
		binary = filepath.Join(folder, "http-service")
		if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
			panic(string(out))
		}
		return m.Run()
	}())
}

// limit is far more than any run takes, on a machine that does much else.
const limit = 3 * time.Minute

// ttl is long enough to tell a resignation from a death, whose follower waits
// for more than that.
const ttl = 10 * time.Second

// instance is a running one.
type instance struct {
	*exec.Cmd
	url string
}

func start(t *testing.T, args ...string) *instance {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, binary, args...)
	out, _, err := proctest.Pipe(t, cmd, "http-service "+strings.Join(args, " "))
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(out)
	require.True(t, lines.Scan())
	_, url, found := strings.Cut(lines.Text(), " listens on ")
	require.True(t, found, lines.Text())
	go func() { _, _ = io.Copy(io.Discard, out) }()
	return &instance{cmd, url}
}

// get returns the status and the body, 0 when nobody answers.
func (i *instance) get(path string) (int, string) {
	response, err := http.Get(i.url + path)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = response.Body.Close() }()
	body, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(body)
}

func (i *instance) leads() bool {
	status, _ := i.get("/healthz?leader")
	return status == http.StatusOK
}

func eventually(t *testing.T, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, limit, 20*time.Millisecond)
}

func TestOneInstanceLeadsAndAnotherFollowsItWhetherItStopsOrDies(t *testing.T) {
	t.Parallel()
	args := []string{"-store", "sqlite:" + filepath.Join(t.TempDir(), "demo.db"), "-ttl", ttl.String(), "-every", "50ms"}
	first := start(t, args...)
	eventually(t, first.leads)
	second := start(t, args...)
	for _, i := range []*instance{first, second} { // both are well, and both say who leads
		status, body := i.get("/healthz")
		require.Equal(t, http.StatusOK, status, body)
		eventually(t, func() bool {
			_, body := i.get("/")
			return strings.Contains(body, "at "+strings.TrimPrefix(first.url, "http://")) && !strings.Contains(body, "rounds 0")
		})
	}
	require.False(t, second.leads())

	require.NoError(t, first.Process.Signal(syscall.SIGTERM))
	require.NoError(t, first.Wait(), "exit status 0")
	began := time.Now()
	eventually(t, second.leads)
	require.Less(t, time.Since(began), ttl/2, "a resignation is followed within a poll, not a TTL")

	third := start(t, args...)
	require.NoError(t, second.Process.Kill())
	_ = second.Wait()
	eventually(t, third.leads)
	require.NoError(t, third.Process.Signal(syscall.SIGTERM))
	require.NoError(t, third.Wait())
}
