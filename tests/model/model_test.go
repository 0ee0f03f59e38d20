// Package model has a formal model of the session protocol, for spin. Its test runs it.
package model_test

import (
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

// The model holds, and each of its broken variants does not.
func TestModel(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("long: left out by -short")
	}
	for _, tool := range []string{"spin", "gcc"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("the formal model was NOT checked: %s is missing: apt-get install %s", tool, tool)
		}
	}
	table, err := exec.CommandContext(t.Context(), "./check").CombinedOutput()
	t.Logf("\n%s", table)
	require.NoError(t, err)
}
