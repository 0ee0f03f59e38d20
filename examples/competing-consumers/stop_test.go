package main_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/examples/internal/stores"
	"github.com/dynalock/dynalock/internal/proctest"
	"github.com/dynalock/dynalock/lease"
)

// workersOf returns the pids of the live worker processes of a parent, by the
// parent's pid in their names.
func workersOf(t *testing.T, parent int) []int {
	t.Helper()
	return processes(t, fmt.Sprintf("@%d", parent))
}

// processes returns the pids of the live worker processes whose names end in suffix.
func processes(t *testing.T, suffix string) (pids []int) {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	require.NotEmpty(t, lines, "this test finds processes in /proc: run it on Linux")
	for _, path := range lines {
		text, err := os.ReadFile(path)
		if err == nil && bytes.Contains(text, []byte("\x00-worker\x00")) && bytes.HasSuffix(text, []byte(suffix+"\x00")) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			require.NoError(t, err)
			pids = append(pids, pid)
		}
	}
	return pids
}

// startAtWork returns a run on store whose three workers are in the middle of entries.
func startAtWork(t *testing.T, temporary, store string) *program {
	t.Helper()
	p := start(t, []string{"TMPDIR=" + temporary}, "-input", files(t, 30), "-store", store, "-work", "30s")
	for range 3 {
		p.await(t, "acquired")
	}
	require.Len(t, workersOf(t, p.Process.Pid), 3)
	return p
}

func TestASignalStopsCleanly(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			temporary := t.TempDir()
			p := startAtWork(t, temporary, "sqlite")
			require.NoError(t, p.Process.Signal(sig))
			summary, status := p.end(t)
			require.Equal(t, 128+int(sig), status)
			require.Equal(t, "summary", summary.Event)
			require.False(t, summary.Complete)
			require.Equal(t, 1, strings.Count(p.stderr.String(), "\n"), p.stderr.String())
			require.Empty(t, workersOf(t, p.Process.Pid))
			requireEmpty(t, temporary)
		})
	}
}

func TestASignalWhileWorkersStartStopsCleanly(t *testing.T) {
	t.Parallel()
	temporary := t.TempDir()
	p := start(t, []string{"TMPDIR=" + temporary}, "-input", files(t, 30), "-work", "30s", "-workers", "8")
	p.await(t, "started") // and the others are about to
	require.NoError(t, p.Process.Signal(syscall.SIGTERM))
	_, status := p.end(t)
	require.Equal(t, 128+int(syscall.SIGTERM), status)
	require.Equal(t, 1, strings.Count(p.stderr.String(), "\n"), p.stderr.String())
	require.Empty(t, workersOf(t, p.Process.Pid))
	requireEmpty(t, temporary)
}

func TestAReaderThatGoesAwayStopsTheRun(t *testing.T) {
	t.Parallel()
	temporary := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	shell := exec.CommandContext(ctx, "sh", "-c", `"$0" -json -input "$1" -work 1s | head -n 1`, binary, files(t, 30))
	shell.Env = append(os.Environ(), "TMPDIR="+temporary)
	words := proctest.Watch(t, shell, "sh")
	require.NoError(t, shell.Run())
	require.Contains(t, words.String(), "started")
	require.Eventually(t, func() bool {
		left, err := os.ReadDir(temporary)
		return err == nil && len(left) == 0
	}, limit, 10*time.Millisecond)
}

// leftover returns the sessions and the held locks in a store file.
func leftover(t *testing.T, file string) (keys []string) {
	t.Helper()
	store, closeStore, err := stores.Open(t.Context(), "sqlite:"+file, false)
	require.NoError(t, err)
	defer func() { require.NoError(t, closeStore()) }()
	leases, err := lease.New(store)
	require.NoError(t, err)
	for member, err := range leases.Members(t.Context()) {
		require.NoError(t, err)
		keys = append(keys, member.Session)
	}
	for holder, err := range leases.Holders(t.Context(), "") {
		require.NoError(t, err)
		keys = append(keys, holder.Key)
	}
	return keys
}

func TestAStopLeavesNoLockAndNoSession(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "store.db")
	p := startAtWork(t, t.TempDir(), "sqlite:"+file)
	require.NotEmpty(t, leftover(t, file))
	require.NoError(t, p.Process.Signal(syscall.SIGTERM))
	p.end(t)
	require.Empty(t, leftover(t, file))
}

func TestWorkersEndWhenTheirParentIsKilled(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "store.db")
	p := startAtWork(t, t.TempDir(), "sqlite:"+file)
	require.NoError(t, p.Process.Kill())
	p.end(t)
	require.Eventually(t, func() bool { return len(workersOf(t, p.Process.Pid)) == 0 }, limit, 10*time.Millisecond)
	require.Empty(t, leftover(t, file))
}

func TestWorkersLeaveInterruptsToTheParent(t *testing.T) {
	t.Parallel()
	p := start(t, nil, "-input", files(t, 10), "-work", "300ms")
	p.await(t, "acquired")
	p.await(t, "acquired")
	for _, pid := range workersOf(t, p.Process.Pid) {
		require.NoError(t, syscall.Kill(pid, syscall.SIGINT))
	}
	p.complete(t, 10)
}

func TestAWorkerThatIsKilledFromOutsideIsReplaced(t *testing.T) {
	t.Parallel()
	p := start(t, nil, "-input", files(t, 12), "-ttl", "3s", "-work", "500ms")
	victim := p.await(t, "acquired")
	pids := processes(t, victim.Worker)
	require.Len(t, pids, 1)
	require.NoError(t, syscall.Kill(pids[0], syscall.SIGKILL))
	require.Equal(t, victim.Worker, p.await(t, "died").Worker)
	require.Positive(t, p.complete(t, 12).Takeovers)
}

// suspend suspends a worker, but not in the middle of a transaction on its
// store's file, in which nobody else could write until it goes on.
func suspend(t *testing.T, pid int, file string) {
	t.Helper()
	store, closeStore, err := stores.Open(t.Context(), "sqlite:"+file, false)
	require.NoError(t, err)
	defer func() { require.NoError(t, closeStore()) }()
	for range 5 {
		require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		err := store.Put(ctx, "suspended")
		cancel()
		if err == nil {
			return
		}
		require.NoError(t, syscall.Kill(pid, syscall.SIGCONT))
		time.Sleep(20 * time.Millisecond) // for it to get on
	}
	require.Fail(t, "the store is always locked")
}

func TestASuspendedWorkerNoticesThatItLostItsLock(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "store.db")
	p := start(t, nil, "-input", files(t, 6), "-store", "sqlite:"+file, "-ttl", "3s", "-work", "3s")
	victim := p.await(t, "acquired")
	pids := processes(t, victim.Worker)
	require.Len(t, pids, 1)
	suspend(t, pids[0], file)
	var taker line
	for taker.Entry != victim.Entry || taker.Worker == victim.Worker {
		taker = p.await(t, "acquired")
	}
	require.NoError(t, syscall.Kill(pids[0], syscall.SIGCONT))
	lost := p.await(t, "lost")
	require.Equal(t, victim.Worker, lost.Worker)
	require.Equal(t, victim.Entry, lost.Entry)
	p.complete(t, 6)
}
