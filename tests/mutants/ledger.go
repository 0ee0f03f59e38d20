package main

import (
	"fmt"
	"strings"
)

// ledgerFile is where the ledger is kept, from the root.
const ledgerFile = "tests/mutants/LEDGER.md"

const ledgerHead = `# The ledger of planted bugs

` + "`make mutants`" + ` writes this page when it runs all of them and each is found. [README.md](README.md) says how.
A layer is one of those of [verification](../../docs/verification.md).

`

// ledger returns the table of what found each mutant.
func ledger(mutants []*mutant, results []result) string {
	var b strings.Builder
	b.WriteString("| mutant | rule | layer | found by |\n|---|---|---|---|\n")
	for i, m := range mutants {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", m.name, m.rule, m.layer, results[i].foundBy())
	}
	return b.String()
}
