package sim_test

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// seeds reads the environment: SIM_SEEDS is how many new seeds to run,
// SIM_FIRST the first of them, 0: one of the day's.
func seeds(t *testing.T) (first uint64, count int) {
	count = 15 // CI runs a hundred, and 2,000 without the race detector
	if testing.Short() {
		count = 5
	}
	for name, set := range map[string]func(uint64){
		"SIM_SEEDS": func(n uint64) { count = int(n) },
		"SIM_FIRST": func(n uint64) { first = n },
	} {
		if text := os.Getenv(name); text != "" {
			n, err := strconv.ParseUint(text, 10, 64)
			require.NoError(t, err, name)
			set(n)
		}
	}
	if os.Getenv("SIM_FIRST") == "" {
		first = uint64(time.Now().UnixNano()) % 1e9
	}
	return first, count
}

// kept reads testdata/seeds: one seed per line, and what it has found.
func kept(t *testing.T) (seeds []uint64) {
	file, err := os.Open("testdata/seeds")
	require.NoError(t, err)
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		text, _, _ := strings.Cut(lines.Text(), "#")
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		seed, err := strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
		seeds = append(seeds, seed)
	}
	return seeds
}

// selected reports whether to run a seed: SIM_WITH names a workload that must be
// among those of its storm.
func selected(seed uint64) bool {
	name := os.Getenv("SIM_WITH")
	return name == "" || newWorld(seed).runs(name)
}

// TestSimulation runs the seeds that have found something, and then new ones.
// `make sim SEEDS=n` runs more.
func TestSimulation(t *testing.T) {
	t.Parallel()
	for _, seed := range kept(t) {
		t.Run(fmt.Sprint("kept=", seed), func(t *testing.T) {
			t.Parallel()
			w := simulate(t, seed)
			report(t, w)
			replay(t, w)
		})
	}
	first, count := seeds(t)
	for seed := first; count > 0; seed++ {
		if !selected(seed) {
			continue
		}
		count--
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			t.Parallel()
			report(t, simulate(t, seed))
		})
	}
}

// replay runs a seed until a trace comes out that has been seen before. That is
// the second one, unless two goroutines of one instant have overtaken each
// other; eight different ones mean that something else than the seed has an
// influence. The members of a pool do so much in one instant that runs with
// them differ more often than not. At which of several keys a client begins, and in which
// order readers are listed, is up to random ids. So those are left out.
func replay(t *testing.T, w *world) {
	if w.runs("pool") || w.runs("any") || w.runs("share") {
		return
	}
	digests := map[uint64]bool{w.digest: true}
	for range 7 {
		again := simulate(t, w.seed)
		if digests[again.digest] {
			return
		}
		digests[again.digest] = true
	}
	t.Errorf("seed %d gave eight different runs", w.seed)
}

// report prints what went wrong in a run, and how to run it again.
func report(t *testing.T, w *world) {
	verbose := os.Getenv("SIM_TRACE") != ""
	if len(w.failures) == 0 && !verbose {
		return
	}
	events := w.events
	if len(events) > 120 && !verbose {
		events = events[len(events)-120:]
	}
	for _, e := range events {
		t.Log(e)
	}
	t.Log(w.summary())
	for _, f := range w.failures {
		t.Errorf("%v", f)
	}
	if len(w.failures) > 0 {
		t.Logf("again: cd tests && SIM_SEEDS=1 SIM_FIRST=%d SIM_TRACE=1 go test ./sim -run TestSimulation", w.seed)
	}
}
