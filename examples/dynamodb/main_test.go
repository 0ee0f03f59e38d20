package main

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/proctest"
)

// What the README says: start DynamoDB Local, paste the line it prints, run the program.
func TestItRunsOnDynamoDBLocal(t *testing.T) {
	if testing.Short() {
		t.Skip("needs DynamoDB Local: left out by -short")
	}
	binary := filepath.Join(t.TempDir(), "dynamodb-local")
	out, err := exec.Command("go", "build", "-o", binary, "../dynamodb-local").CombinedOutput()
	require.NoError(t, err, string(out))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	local := exec.CommandContext(ctx, binary)
	stdout, _, err := proctest.Pipe(t, local, "dynamodb-local")
	require.NoError(t, err)
	require.NoError(t, local.Start())
	defer func() {
		require.NoError(t, local.Process.Signal(os.Interrupt))
		require.NoError(t, local.Wait())
	}()
	line := bufio.NewScanner(stdout)
	require.True(t, line.Scan())
	exports, found := strings.CutPrefix(line.Text(), "export ")
	require.True(t, found, line.Text())
	for variable := range strings.FieldsSeq(exports) {
		name, value, _ := strings.Cut(variable, "=")
		t.Setenv(name, value)
	}
	require.NoError(t, run(t.Context()))
}
