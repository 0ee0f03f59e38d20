package tests_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/proctest"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/pool"
)

const (
	// poisonStore is the SQLite file of a process of TestPoolPoison.
	poisonStore = "DYNALOCK_TEST_POOL_POISON"
	// poisoned is the partition that kills its process, with this exit status.
	poisoned, poisonStatus = "job-07", 7
	poisonAttempts         = 3
)

// openPoison makes a client and a pool on the file.
func openPoison(t *testing.T, file string, handle pool.Handler) (*lease.Client, *pool.Pool) {
	t.Helper()
	store := openFile(t, file)
	client, err := lease.New(store, lease.WithTTL(6*time.Second))
	require.NoError(t, err)
	p, err := pool.New(client, "jobs", handle, pool.WithMaxAttempts(poisonAttempts))
	require.NoError(t, err)
	return client, p
}

// TestPoolPoisonProcess is no test: it is a process that TestPoolPoison starts.
func TestPoolPoisonProcess(t *testing.T) {
	file := os.Getenv(poisonStore)
	if file == "" {
		t.Skip("not started by TestPoolPoison")
	}
	client, p := openPoison(t, file, func(_ context.Context, w *pool.Work) error {
		if w.Name() == poisoned {
			os.Exit(poisonStatus)
		}
		return pool.ErrDone
	})
	require.NoError(t, errors.Join(p.Run(t.Context()), client.Close(t.Context())))
}

// A partition that ends its process is failed after as many attempts as it may
// have. The others are done, and Run returns.
func TestPoolPoison(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "store.db")
	client, p := openPoison(t, file, nil)
	const n = 20
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("job-%02d", i)
	}
	require.NoError(t, p.Add(t.Context(), names...))
	for i := range poisonAttempts + 1 {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestPoolPoisonProcess$")
		cmd.Env = append(os.Environ(), poisonStore+"="+file)
		proctest.Watch(t, cmd, fmt.Sprint("process ", i+1))
		err := cmd.Run()
		if i == poisonAttempts {
			require.NoError(t, err)
			break
		}
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit)
		require.Equal(t, poisonStatus, exit.ExitCode())
	}
	counts, err := p.Progress(t.Context())
	require.NoError(t, err)
	require.Equal(t, pool.Progress{Total: n, Done: n - 1, Failed: 1}, counts)
	for partition, err := range p.Partitions(t.Context()) {
		require.NoError(t, err)
		require.Equal(t, partition.Name == poisoned, partition.Failed, partition.Name)
		if partition.Failed {
			require.Equal(t, poisonAttempts, partition.Failures)
			require.Contains(t, partition.LastError, "died")
		}
	}
	require.NoError(t, client.Close(t.Context()))
}
