//go:build unix

package seeing_test

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"

	"github.com/dynalock/dynalock/internal/proctest"
	"github.com/dynalock/dynalock/kv/sqlkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/metrics"
	"github.com/dynalock/dynalock/web"
)

// holderFile is the environment variable that makes this program a process which
// holds a key, in the SQLite file that it names.
const holderFile = "DYNALOCK_TEST_SEEING_FILE"

func TestMain(m *testing.M) {
	file := os.Getenv(holderFile)
	if file == "" {
		os.Exit(m.Run())
	}
	if err := hold(file); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// hold holds a key until the process is killed.
func hold(file string) error {
	c, err := openClient(file, "holder")
	if err != nil {
		return err
	}
	if _, err := c.Acquire(context.Background(), "key"); err != nil {
		return err
	}
	fmt.Println("held")
	select {}
}

// openClient makes a client.
func openClient(file, owner string, options ...lease.Option) (*lease.Client, error) {
	db, err := sql.Open("sqlite", file)
	if err != nil {
		return nil, err
	}
	store, err := sqlkv.Open(context.Background(), db)
	if err != nil {
		return nil, err
	}
	return lease.New(store, append(options, lease.WithOwner(owner))...)
}

// watch runs ls --watch, and returns the latest state of the key.
func watch(t *testing.T, file string) func() string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "dynalock")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "../../cmd/dynalock")
	output, err := build.CombinedOutput()
	require.NoError(t, err, "%s", output)
	list := exec.Command(binary, "--store", "sqlite:"+file, "ls", "--watch=100ms", "-o", "jsonl")
	out, _, err := proctest.Pipe(t, list, "ls")
	require.NoError(t, err)
	require.NoError(t, list.Start())
	var latest atomic.Value
	latest.Store("")
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var row struct{ Key, State string }
			if json.Unmarshal(lines.Bytes(), &row) == nil && row.Key == "key" {
				latest.Store(row.State)
			}
		}
	}()
	t.Cleanup(func() {
		_ = list.Process.Signal(syscall.SIGTERM)
		<-ended
		_ = list.Wait()
	})
	return func() string { return latest.Load().(string) }
}

// startHolder starts the process that holds the key, and returns it when it does.
func startHolder(t *testing.T, file string) *os.Process {
	t.Helper()
	holder := exec.Command(os.Args[0])
	holder.Env = append(os.Environ(), holderFile+"="+file)
	out, _, err := proctest.Pipe(t, holder, "holder")
	require.NoError(t, err)
	require.NoError(t, holder.Start())
	t.Cleanup(func() {
		_ = holder.Process.Kill()
		_ = holder.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "held\n", line)
	return holder.Process
}

// body is what a handler answers.
func body(handler http.Handler, path string) string {
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Body.String()
}

// A process that is stopped, as by a debugger or a hypervisor, says nothing of it.
// The page, the command and the metrics of who waits for its lock do.
func TestAStoppedHolderIsOverdueWhereverPeopleLookBeforeItsLockIsTaken(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a TTL of real time: left out by -short")
	}
	file := filepath.Join(t.TempDir(), "seeing.db")
	viewer, err := openClient(file, "page")
	require.NoError(t, err)
	page := web.Handler(viewer)
	counts, err := metrics.New()
	require.NoError(t, err)
	contender, err := openClient(file, "contender", lease.WithObserver(counts.Observer()))
	require.NoError(t, err)
	holder := startHolder(t, file)

	listed := watch(t, file)
	places := map[string]func(state string) bool{
		"page": func(state string) bool { return strings.Contains(body(page, "/locks"), `class="state `+state+`"`) },
		"ls":   func(state string) bool { return listed() == state },
		"metric": func(state string) bool {
			count := map[string]string{"live": "0", "overdue": "1"}[state]
			return strings.Contains(body(counts, "/metrics"), "\ndynalock_sessions_overdue_total "+count+"\n")
		},
	}
	var began time.Time
	// until waits until all places show the state, and returns when each did.
	until := func(state string) string {
		t.Helper()
		shown := map[string]time.Duration{}
		require.Eventually(t, func() bool {
			for place, shows := range places {
				if _, ok := shown[place]; !ok && shows(state) {
					shown[place] = time.Since(began).Round(time.Second / 10)
				}
			}
			return len(shown) == len(places)
		}, 2*time.Minute, 50*time.Millisecond, state)
		return fmt.Sprint(shown)
	}
	until("live")
	taken := make(chan error, 1)
	var l *lease.Lease
	go func() {
		var err error
		l, err = contender.Acquire(context.Background(), "key")
		taken <- err
	}()
	require.NoError(t, holder.Signal(syscall.SIGSTOP))
	began = time.Now()
	shown := until("overdue")
	require.Empty(t, taken, "the lock was taken before everybody could see that its holder is overdue: %s", shown)
	require.NoError(t, <-taken)
	t.Logf("stopped; overdue after %s, its lock taken after %v", shown, time.Since(began).Round(time.Second/10))
	require.Contains(t, body(counts, "/metrics"), "\ndynalock_sessions_killed_total 1\n")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	require.NoError(t, l.Release(ctx))
	require.NoError(t, contender.Close(ctx))
	require.NoError(t, viewer.Close(ctx))
}
