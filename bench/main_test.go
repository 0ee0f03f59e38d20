package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAQuickRunWritesThePageAndItsPlots(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("needs DynamoDB Local: left out by -short")
	}
	out := t.TempDir()
	require.NoError(t, run(t.Context(), everything, true, out, ""))
	page, err := os.ReadFile(filepath.Join(out, "figures.md"))
	require.NoError(t, err)
	for _, title := range []string{"Requests per operation", "Lock cycles", "Lock cycles per second on PostgreSQL",
		"Hand-over", "Hand-over after a release, on PostgreSQL", "Failover", "Ten thousand", "Memory", "plan", "sixteen"} {
		require.Contains(t, string(page), title)
	}
	for _, plot := range []string{"cycles.svg", "handover.svg", "failover.svg"} {
		svg, err := os.ReadFile(filepath.Join(out, "figures", plot))
		require.NoError(t, err)
		require.Contains(t, string(svg), "</svg>")
		require.NotContains(t, string(svg), "NaN")
	}
}
