// Bench measures dynalock and writes what it found as a page with plots.
//
//	make bench                          everything, for some minutes; writes docs/figures.md and docs/figures/
//	cd bench && go run . -quick -out DIR    the same in seconds, to see that it works; its figures mean nothing
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
	"strings"
	"sync"
	"time"
)

func main() {
	quick := flag.Bool("quick", false, "as little of everything as there can be")
	out := flag.String("out", "../docs", "`folder` for figures.md and figures/")
	note := flag.String("note", "", "what the reader should know of the machine at the time")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *quick, *out, *note); err != nil {
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

// run measures and writes. What mostly waits runs side by side, after what
// needs the machine for itself.
func run(ctx context.Context, quick bool, out, note string) error {
	r, err := newRig(ctx, quick)
	if err != nil {
		return err
	}
	defer r.stop()
	began := time.Now()
	var sections []section
	for _, measure := range []measurement{requests, cycles, onPostgres, inMemory, hotKey, lostAnswers, footprint,
		planner} {
		s, err := measure(ctx, r)
		if err != nil {
			return fmt.Errorf("%s: %w", s.title, err)
		}
		fmt.Printf("%6.1fs  %s\n", time.Since(began).Seconds(), s.title)
		sections = append(sections, s)
	}
	waiting := []measurement{handOver, handOverOnPostgres, failover, manyLeases}
	results, errs := make([]section, len(waiting)), make([]error, len(waiting))
	var side sync.WaitGroup
	for i, measure := range waiting {
		side.Go(func() {
			results[i], errs[i] = measure(ctx, r)
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
