package main

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheLedgerNamesWhatFoundEachMutant(t *testing.T) {
	t.Parallel()
	mutants := []*mutant{
		{name: "a margin too small", rule: "R10, d", layer: "unit"},
		{name: "two holders", rule: "S2", layer: "sim"},
		{name: "a wrong error", rule: "R18", layer: "unit"},
	}
	results := []result{{found: "TestOne"}, {found: "TestTwo", more: 3}, {}}
	require.Equal(t, `| mutant | rule | layer | found by |
|---|---|---|---|
`+"| a margin too small | R10, d | unit | `TestOne` |\n| two holders | S2 | sim | `TestTwo` and 3 more |\n"+
		"| a wrong error | R18 | unit | **nothing** |\n", ledger(mutants, results))
}

func TestTheLedgerThatIsKeptIsOneThatWasWritten(t *testing.T) {
	t.Parallel()
	kept, err := os.ReadFile("LEDGER.md")
	require.NoError(t, err)
	table, found := strings.CutPrefix(string(kept), ledgerHead)
	require.True(t, found, "it begins in another way")
	require.True(t, strings.HasPrefix(table, ledger(nil, nil)))
	for line := range strings.Lines(table) {
		require.Regexp(t, `^\|([^|]+\|){4}\n$`, line)
	}
	require.NotContains(t, table, "**nothing**")
}
