// Bench measures dynalock and writes what it found as a page with plots.
//
//	make bench                          everything, for some minutes; writes docs/figures.md and docs/figures/
//	cd bench && go run . -quick -out DIR    the same in seconds, to see that it works; its figures mean nothing
//	cd bench && go run . -only offered,storm    these measurements, by the names of their functions; the rest of the page stays
//
// Each figure has a file of its own, which begins with what is measured and how.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

func main() {
	quick := flag.Bool("quick", false, "as little of everything as there can be")
	out := flag.String("out", "../docs", "`folder` for figures.md and figures/")
	note := flag.String("note", "", "what the reader should know of the machine at the time")
	only := flag.String("only", "", "measure these `functions`, and replace their sections of the page")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	do := func() error { return run(ctx, *quick, *out, *note) }
	if *only != "" {
		do = func() error { return runOnly(ctx, *quick, *out, strings.Split(*only, ",")) }
	}
	if err := do(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// section is a part of the page.
type section struct {
	title, method string
	table         [][]string // the first row is its heading
	plots         []plot
}

// measurement makes a section.
type measurement func(ctx context.Context, r *rig) (section, error)

// named is a measurement and what -only calls it.
type named struct {
	name string
	measurement
}

// alone need the machine for themselves. waiting mostly wait, so they run side by
// side.
var (
	alone = []named{
		{"requests", requests}, {"cycles", cycles}, {"onPostgres", onPostgres}, {"inMemory", inMemory}, {"hotKey", hotKey},
		{"lostAnswers", lostAnswers}, {"connections", connections}, {"footprint", footprint}, {"planner", planner},
		{"reads", reads}, {"offered", offered}, {"storm", storm},
	}
	waiting = []named{
		{"handOver", handOver}, {"handOverOnPostgres", handOverOnPostgres}, {"failover", failover}, {"manyLeases", manyLeases},
	}
)

// run measures and writes.
func run(ctx context.Context, quick bool, out, note string) error {
	r, err := newRig(ctx, quick)
	if err != nil {
		return err
	}
	defer r.stop()
	began := time.Now()
	var sections []section
	for _, n := range alone {
		s, err := n.measurement(ctx, r)
		if err != nil {
			return fmt.Errorf("%s: %w", s.title, err)
		}
		fmt.Printf("%6.1fs  %s\n", time.Since(began).Seconds(), s.title)
		sections = append(sections, s)
	}
	results, errs := make([]section, len(waiting)), make([]error, len(waiting))
	var side sync.WaitGroup
	for i, n := range waiting {
		side.Go(func() {
			results[i], errs[i] = n.measurement(ctx, r)
			fmt.Printf("%6.1fs  %s\n", time.Since(began).Seconds(), results[i].title)
		})
	}
	side.Wait()
	for i, err := range errs {
		if err != nil {
			return fmt.Errorf("%s: %w", results[i].title, err)
		}
	}
	return write(out, note, time.Since(began), append(sections, results...))
}

// runOnly measures what is named, one after the other, and replaces that in the page.
func runOnly(ctx context.Context, quick bool, out string, names []string) error {
	r, err := newRig(ctx, quick)
	if err != nil {
		return err
	}
	defer r.stop()
	for _, name := range names {
		all := slices.Concat(alone, waiting)
		i := slices.IndexFunc(all, func(n named) bool { return n.name == name })
		if i < 0 {
			return fmt.Errorf("-only %s: there is no such measurement", name)
		}
		s, err := all[i].measurement(ctx, r)
		if err == nil {
			s.method += fmt.Sprintf("\nMeasured anew on %s.", time.Now().UTC().Format(time.DateOnly))
			err = replace(out, s)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// machine describes where this runs.
func machine() string {
	model := "an unknown processor"
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%s/%s, %s, %d cores, %s", runtime.GOOS, runtime.GOARCH, model, runtime.NumCPU(), runtime.Version())
}
