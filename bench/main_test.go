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
	require.NoError(t, run(t.Context(), true, out, ""))
	page, err := os.ReadFile(filepath.Join(out, "figures.md"))
	require.NoError(t, err)
	for _, title := range []string{"Requests per operation", "Lock cycles", "Lock cycles per second on PostgreSQL",

		"Hand-over", "Hand-over after a release, on PostgreSQL", "A read of SQLite",
		"Lock cycles offered", "A zone that dies", "Failover", "Ten thousand", "Memory", "plan", "sixteen", "Connections"} {
		require.Contains(t, string(page), title)
	}
	for _, plot := range []string{"cycles.svg", "handover.svg", "failover.svg", "throughput.svg"} {
		svg, err := os.ReadFile(filepath.Join(out, "figures", plot))
		require.NoError(t, err)
		require.Contains(t, string(svg), "</svg>")
		require.NotContains(t, string(svg), "NaN")
	}
}

func TestASectionIsReplacedInThePage(t *testing.T) {
	t.Parallel()
	out := t.TempDir()
	made := func(title, cell string) section {
		return section{title: title, method: "How.", table: [][]string{{"What"}, {cell}}}
	}
	require.NoError(t, write(out, "", 0, []section{made("One", "1"), made("Two", "2"), made("Three", "3")}))
	for _, s := range []section{made("Two", "22"), made("Three", "33"), made("Four", "4")} {
		require.NoError(t, replace(out, s))
	}
	got, err := os.ReadFile(filepath.Join(out, "figures.md"))
	require.NoError(t, err)
	require.NoError(t, write(out, "", 0, []section{made("One", "1"), made("Two", "22"), made("Three", "33"), made("Four", "4")}))
	want, err := os.ReadFile(filepath.Join(out, "figures.md"))
	require.NoError(t, err)
	require.Equal(t, string(want), string(got))
}
