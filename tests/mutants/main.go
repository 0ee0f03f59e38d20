// Command mutants plants bugs in the library, one at a time, and requires that
// the tests find each of them. It prints what found each. When it has run all
// of them, and each was found, it writes that to LEDGER.md. `make mutants` runs
// it.
//
// A bug is a text of the source and another that takes its place, in a *.mutant
// file beside this one:
//
//	mutant: what the library does wrong now
//	rule: R10
//	layer: unit
//	test: ./lease TestR10|TestI11
//	env: SIM_SEEDS=300
//	file: lease/observe.go
//	<<<
//	the text, which the file must have exactly once
//	===
//	the text that takes its place
//	>>>
//
// rule is what the bug breaks, layer what must find it, and test the package
// and the pattern of its tests; env may be left out, and there may be several
// files and texts. A bug counts as found when one of those tests fails and says
// so: a build that fails, a panic or a hang is not a find. The same tests must
// pass without any bug. The tree is not touched: the compiler reads the changed
// file in the place of the other one (go test -overlay).
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		stop()
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

// run is main with an error.
func run(ctx context.Context) error {
	root := flag.String("root", ".", "the folder of go.work")
	name := flag.String("run", "", "only the mutants whose names match")
	only := flag.String("layer", "", "only those that this layer must find")
	through := flag.String("through", "", "run them through another layer than their own: "+fmt.Sprint(layerNames()))
	sample := flag.Int("sample", 0, "only so many, drawn by lot")
	parallel := flag.Int("j", 2, "how many at a time")
	list := flag.Bool("list", false, "print them and run nothing")
	flag.Parse()

	dir, err := filepath.Abs(*root)
	if err != nil {
		return err
	}
	pattern, err := regexp.Compile(*name)
	if err != nil {
		return err
	}
	mutants, err := load(dir)
	if err != nil {
		return err
	}
	all := len(mutants)
	mutants = slices.DeleteFunc(mutants, func(m *mutant) bool {
		return !pattern.MatchString(m.name) || *only != "" && m.layer != *only
	})
	if *sample > 0 && *sample < len(mutants) {
		rand.Shuffle(len(mutants), func(i, j int) { mutants[i], mutants[j] = mutants[j], mutants[i] })
		mutants = mutants[:*sample]
	}
	if err := redirect(mutants, *through); err != nil {
		return err
	}
	if *list {
		for _, m := range mutants {
			fmt.Printf("%-11s %-8s %s\n", m.layer, m.rule, m.name)
		}
		return nil
	}
	table, err := hunt(ctx, dir, mutants, *parallel)
	if err != nil || len(mutants) < all || *through != "" {
		return err
	}
	return os.WriteFile(filepath.Join(dir, ledgerFile), []byte(ledgerHead+table), 0o644)
}

// hunt checks that the tests pass as they are, then runs the mutants, and
// prints and returns the table of the ledger. It is an error if one was not
// found.
func hunt(ctx context.Context, dir string, mutants []*mutant, parallel int) (table string, err error) {
	began := time.Now()
	if err := healthy(ctx, dir, mutants, parallel); err != nil {
		return "", err
	}
	results := make([]result, len(mutants))
	each(len(mutants), parallel, func(i int) {
		results[i] = mutants[i].run(ctx, dir)
		fmt.Fprintf(os.Stderr, "%3d/%d %-8s %3.0fs %s\n", i+1, len(mutants), results[i].verdict(), results[i].took.Seconds(),
			mutants[i].name)
	})
	table = ledger(mutants, results)
	fmt.Print(table)
	missed := 0
	for i, r := range results {
		if r.found == "" {
			missed++
			fmt.Fprintf(os.Stderr, "\n== not found: %s (%s): %v\n%s\n", mutants[i].name, mutants[i].rule, r.err, r.output)
		}
	}
	fmt.Fprintf(os.Stderr, "%d mutants, %d found, in %v\n", len(mutants), len(mutants)-missed,
		time.Since(began).Round(time.Second))
	if missed > 0 {
		return "", fmt.Errorf("%d of %d mutants were not found", missed, len(mutants))
	}
	return table, ctx.Err()
}

// each calls do for 0 to n-1, so many at a time.
func each(n, parallel int, do func(i int)) {
	slots := make(chan struct{}, max(parallel, 1))
	var wait sync.WaitGroup
	for i := range n {
		slots <- struct{}{}
		wait.Go(func() {
			defer func() { <-slots }()
			do(i)
		})
	}
	wait.Wait()
}
