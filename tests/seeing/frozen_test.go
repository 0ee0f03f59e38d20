//go:build unix

package seeing_test

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"

	"github.com/dynalock/dynalock/internal/proctest"
	"github.com/dynalock/dynalock/kv/sqlkv"
	"github.com/dynalock/dynalock/lease"
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

// openClient makes a client that is never closed: its process ends.
func openClient(file, owner string) (*lease.Client, error) {
	db, err := sql.Open("sqlite", file)
	if err != nil {
		return nil, err
	}
	store, err := sqlkv.Open(context.Background(), db)
	if err != nil {
		return nil, err
	}
	return lease.New(store, lease.WithOwner(owner))
}

// A process that is stopped, as by a debugger or a hypervisor, says nothing of it.
func TestAStoppedHolderIsOverdueOnThePageBeforeItsLockIsTaken(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a TTL of real time: left out by -short")
	}
	file := filepath.Join(t.TempDir(), "seeing.db")
	page, err := openClient(file, "page")
	require.NoError(t, err)
	contender, err := openClient(file, "contender")
	require.NoError(t, err)

	holder := exec.Command(os.Args[0])
	holder.Env = append(os.Environ(), holderFile+"="+file)
	out, _, err := proctest.Pipe(t, holder, "holder")
	require.NoError(t, err)
	require.NoError(t, holder.Start())
	defer func() {
		_ = holder.Process.Kill()
		_ = holder.Wait()
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "held\n", line)

	handler := web.Handler(page)
	shows := func(state string) bool {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/locks", nil))
		return strings.Contains(w.Body.String(), `class="state `+state+`"`)
	}
	until := func(state string) {
		t.Helper()
		require.Eventually(t, func() bool { return shows(state) }, 2*time.Minute, 100*time.Millisecond, state)
	}
	until("live")
	require.NoError(t, holder.Process.Signal(syscall.SIGSTOP))
	began := time.Now()
	taken := make(chan error, 1)
	go func() {
		_, err := contender.Acquire(context.Background(), "key")
		taken <- err
	}()
	until("overdue")
	shown := time.Since(began)
	require.Empty(t, taken, "the key was taken before the page said that its holder is overdue")
	require.NoError(t, <-taken)
	t.Logf("stopped; overdue on the page after %v, its lock taken after %v",
		shown.Round(time.Second/10), time.Since(began).Round(time.Second/10))
	until("live")
}
