package sim_test

import (
	"context"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dynalock/dynalock/internal/dynamomem"
)

// world is one run: a server, the nodes around it, and what the checks know of them.
type world struct {
	seed    uint64
	began   time.Time
	weather weather
	trouble trouble
	keys    []string
	ttls    []time.Duration
	mix     []int // how often each of the workloads is chosen
	budget  int   // of store calls, for the part with faults
	server  *dynamomem.Server

	// instants are those at which something fires: no two things do at once, so
	// that goroutines wake in an order of the seed's.
	timing   sync.Mutex
	instants map[int64]struct{}

	mu       sync.Mutex // taken before those of the lease layer and of the machines
	nodes    []*node
	rows     map[string]*row
	slots    map[string]*slot         // of jobs that run once, by key
	worked   map[string]time.Duration // when a handler was last called, by partition
	grants   map[string][]*grant      // by key
	greatest map[string]uint64        // token granted, by key
	kept     map[string]*keptKey      // that were released before their min-hold was over
	lasted   time.Duration
	fences   map[string]uint64 // greatest token that the resource of a key has accepted
	shared   []*shared         // grants of the lock of readers and writers
	bars     bars              // of its resource
	waiting  map[string]int    // acquires in flight, by node and key
	names    map[string]string // of session rows, without their random ids
	calls    int
	tally    map[string]int
	events   []event
	digest   uint64 // of all events, whatever the order of those of one instant, until it is frozen
	frozen   bool
	failures []failure
}

// event is a line of the trace.
type event struct {
	at    time.Duration
	node  string
	what  string
	row   string
	value uint64
}

func (e event) String() string {
	return fmt.Sprintf("%14.6f %-6s %-24s %-22s %d", e.at.Seconds(), e.node, e.what, e.row, e.value)
}

// failure is a broken rule.
type failure struct {
	rule, what string
	at         time.Duration
}

func (f failure) String() string { return fmt.Sprintf("%s at %v: %s", f.rule, f.at, f.what) }

// shards of the nodes' stores: 4 in a third of all storms, else 1.
func (w *world) shards() int {
	if w.seed%3 == 0 {
		return 4
	}
	return 1
}

func newWorld(seed uint64) *world {
	w := &world{
		seed: seed, began: time.Now(), server: dynamomem.New(),
		instants: map[int64]struct{}{}, rows: map[string]*row{}, slots: map[string]*slot{},
		worked: map[string]time.Duration{}, grants: map[string][]*grant{}, greatest: map[string]uint64{},
		fences: map[string]uint64{}, kept: map[string]*keptKey{}, waiting: map[string]int{}, names: map[string]string{},
		tally: map[string]int{},
	}
	w.server.CreateTable("table", "id", "name")
	rng := w.rng("world")
	w.weather = newWeather(rng)
	w.mix = newMix(rng, w.rng("more"))
	w.trouble = newTrouble(w.rng("trouble"))
	w.budget = 400 + rng.IntN(1600)
	for i := range 1 + rng.IntN(3) {
		w.keys = append(w.keys, fmt.Sprintf("key%d", i))
	}
	for range 2 + rng.IntN(3) {
		w.ttls = append(w.ttls, []time.Duration{3 * time.Second, 3 * time.Second, 5 * time.Second,
			8 * time.Second}[rng.IntN(4)])
	}
	return w
}

// after calls f at an instant of its own, d from now.
func (w *world) after(d time.Duration, f func()) *time.Timer {
	w.timing.Lock()
	now := time.Now()
	at := now.Add(max(d, 1)).UnixNano()
	for {
		if _, taken := w.instants[at]; !taken {
			break
		}
		at++
	}
	w.instants[at] = struct{}{}
	w.timing.Unlock()
	return time.AfterFunc(time.Duration(at-now.UnixNano()), f)
}

// sleep waits for d of true time. It reports whether ctx has not ended.
func (w *world) sleep(ctx context.Context, d time.Duration) bool {
	woken := make(chan struct{})
	t := w.after(d, func() { close(woken) })
	defer t.Stop()
	select {
	case <-woken:
		return true
	case <-ctx.Done():
		return false
	}
}

func (w *world) elapsed() time.Duration { return time.Since(w.began) }

// record adds a line to the trace.
func (w *world) record(n *node, what, row string, value uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.recordLocked(n, what, row, value)
}

func (w *world) recordLocked(n *node, what, row string, value uint64) {
	e := event{at: w.elapsed(), what: what, row: w.aliasLocked(row), value: value}
	if n != nil {
		e.node = n.name
	}
	w.tally[what]++
	w.events = append(w.events, e)
	h := fnv.New64a()
	_, _ = h.Write(strconv.AppendInt([]byte(e.node+" "+e.what+" "+e.row+" "), e.at.Microseconds(), 10))
	if !w.frozen {
		w.digest += h.Sum64()
	}
}

// alias names a row without random ids: they differ between two runs of a seed.
func (w *world) alias(row string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.aliasLocked(row)
}

func (w *world) aliasLocked(row string) string {
	if !strings.HasPrefix(row, "session/") {
		return sharedAlias(row)
	}
	if name, ok := w.names[row]; ok {
		return name
	}
	return "session/?"
}

// nameLocked names the session row that a node makes.
func (w *world) nameLocked(row string, n *node) {
	if _, named := w.names[row]; !named && strings.HasPrefix(row, "session/") {
		n.sessions++
		w.names[row] = fmt.Sprintf("session/%s/%d", n.name, n.sessions)
	}
}

// fail notes a broken rule.
func (w *world) fail(rule, format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failLocked(rule, format, args...)
}

func (w *world) failLocked(rule, format string, args ...any) {
	if len(w.failures) >= 10 {
		return // more of the same
	}
	w.failures = append(w.failures, failure{rule, fmt.Sprintf(format, args...), w.elapsed()})
	w.recordLocked(nil, "BROKEN "+rule, "", 0)
}

// spent reports whether the run has used up its store calls, or has failed.
func (w *world) spent() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.calls >= w.budget || len(w.failures) > 0
}
