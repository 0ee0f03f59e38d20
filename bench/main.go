// Bench measures dynalock and writes what it found as a page with plots.
//
//	make bench                          everything, for some minutes; writes docs/figures.md and docs/figures/
//	cd bench && go run . -quick -out DIR    the same in seconds, to see that it works; its figures mean nothing
//	cd bench && go run . -postgres -out DIR    only what is measured on PostgreSQL
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
	postgres := flag.Bool("postgres", false, "only what is measured on PostgreSQL")
	note := flag.String("note", "", "what the reader should know of the machine at the time")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	all := everything
	if *postgres {
		all = measurements{alone: []measurement{onPostgres}, together: []measurement{handOverOnPostgres}}
	}
	if err := run(ctx, all, *quick, *out, *note); err != nil {
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

// measurements are those of a page. What mostly waits runs together, after what
// needs the machine for itself.
type measurements struct{ alone, together []measurement }

var everything = measurements{
	alone:    []measurement{requests, cycles, onPostgres, inMemory, hotKey, lostAnswers, footprint, planner},
	together: []measurement{handOver, handOverOnPostgres, failover, manyLeases},
}

// run measures and writes.
func run(ctx context.Context, all measurements, quick bool, out, note string) error {
	r, err := newRig(ctx, quick)
	if err != nil {
		return err
	}
	defer r.stop()
	began := time.Now()
	var sections []section
	for _, measure := range all.alone {
		s, err := measure(ctx, r)
		if err != nil {
			return fmt.Errorf("%s: %w", s.title, err)
		}
		fmt.Printf("%6.1fs  %s\n", time.Since(began).Seconds(), s.title)
		sections = append(sections, s)
	}
	results, errs := make([]section, len(all.together)), make([]error, len(all.together))
	var side sync.WaitGroup
	for i, measure := range all.together {
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
