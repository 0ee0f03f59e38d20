package sim_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// weather is how bad the network and the machines of a run are. Each run has its own: some
// have no fault at all but the races, some everything at once.
type weather struct {
	// The probabilities of a request's fates.
	lost, lostAnswer, late, double, throttle, broken float64
	lateness                                         time.Duration // of requests that land late
	slowest                                          time.Duration
	slow                                             float64 // how many requests may take that long
	// widened are the classes of requests that take longer, to widen the
	// windows between what came before and comes after.
	widened map[string]widening
	// The mean times between these, per node; 0: none.
	partitions, outages, freezes, steps, endings time.Duration
	// stopMonotonic: freezes stop the monotonic clock; then no clock steps
	// backward (protocol, section 7).
	stopMonotonic bool
	// sweeps: tombstones are removed after a while, where no clock is so wrong
	// that a version could fall for it.
	sweeps bool
	// hostile: what is widened takes longer than an attempt may.
	hostile bool
	// crash is how many of a node's endings are crashes.
	crash float64
	// offset bounds how wrong wall clocks are.
	offset time.Duration
}

type widening struct{ there, back time.Duration }

func newWeather(rng *rand.Rand) weather {
	some := func(p, most float64) float64 {
		if rng.Float64() < p {
			return rng.Float64() * most
		}
		return 0
	}
	often := func(p float64, least, most time.Duration) time.Duration {
		if rng.Float64() < p {
			return latency(rng, least, most)
		}
		return 0
	}
	y := weather{
		lost: some(0.6, 0.12), lostAnswer: some(0.6, 0.15), late: some(0.6, 0.10), double: some(0.4, 0.08),
		throttle: some(0.3, 0.10), broken: some(0.3, 0.08),
		lateness: 5 * time.Second, slowest: 700 * time.Millisecond, slow: some(0.5, 0.10),
		partitions: often(0.5, 8*time.Second, 60*time.Second), outages: often(0.3, 15*time.Second, 60*time.Second),
		freezes: often(0.6, 5*time.Second, 40*time.Second), steps: often(0.4, 5*time.Second, 40*time.Second),
		endings:       often(0.8, 5*time.Second, 40*time.Second),
		stopMonotonic: rng.IntN(2) == 0, crash: rng.Float64(), offset: 5 * time.Second,
		widened: map[string]widening{},
	}
	switch rng.IntN(8) {
	case 0:
		y.offset = time.Hour
	case 1, 2:
		y.sweeps, y.steps = true, 0
	case 3: // rolling restarts
		y.endings, y.crash = latency(rng, time.Second, 6*time.Second), 0
	}
	classes := []string{"get session", "put session", "delete session", "get lease", "put lease", "delete lease",
		"query *"}
	widest := 400 * time.Millisecond
	if y.hostile = rng.IntN(3) == 0; y.hostile {
		widest = 2 * time.Second
	}
	for range rng.IntN(4) {
		y.widened[classes[rng.IntN(len(classes))]] = widening{latency(rng, 0, widest), latency(rng, 0, widest)}
	}
	return y
}

// newMix draws how often a run chooses each workload: some runs do a few things
// only, so that these meet each other.
func newMix(rng, more *rand.Rand) []int {
	mix := make([]int, len(workloads))
	few := rng.IntN(2) == 0
	total := 0
	for i, l := range workloads {
		if l.later {
			if more.IntN(4) == 0 {
				mix[i] = 1 + more.IntN(2*l.weight)
			}
			continue
		}
		if !few || rng.IntN(3) == 0 {
			mix[i] = 1 + rng.IntN(2*l.weight)
		}
		total += mix[i]
	}
	if total == 0 {
		mix[0] = 1
	}
	return mix
}

// runs reports whether a workload is among those of the run.
func (w *world) runs(name string) bool {
	i := slices.IndexFunc(workloads, func(l workload) bool { return l.name == name })
	if i < 0 {
		panic("sim: no workload is called " + name)
	}
	return w.mix[i] > 0
}

// latency is that of one direction.
func (y *weather) latency(rng *rand.Rand) time.Duration {
	if rng.Float64() < y.slow {
		return latency(rng, time.Millisecond, y.slowest)
	}
	return latency(rng, time.Millisecond, 30*time.Millisecond)
}

func classOf(r request) string {
	prefix, _, _ := strings.Cut(r.row, "/")
	return r.op + " " + prefix
}
