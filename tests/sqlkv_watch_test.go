package tests_test

import (
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
)

func TestAWatchSeesWritesOfAnotherProcess(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "kv.db")
	store := openFile(t, file)
	var process *exec.Cmd
	for event, err := range kv.Watch(t.Context(), store, "", kv.WithWatchInterval(10*time.Millisecond)) {
		require.NoError(t, err)
		if event.Type == kv.EventSynced {
			process, _ = child(t, "increment", file)
		}
		if event.Pair != nil && event.Pair.String() == "100" {
			break
		}
	}
	require.NotNil(t, process)
	require.NoError(t, process.Wait())
}
