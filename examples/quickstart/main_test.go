package main

import (
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestItRunsAtOnce(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "run", ".").CombinedOutput()
	require.NoError(t, err, string(out))
	require.Regexp(t, `^locked, with fencing token \d+\n$`, string(out))
}
