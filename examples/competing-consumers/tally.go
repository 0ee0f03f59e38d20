package main

import (
	"cmp"
	"maps"
	"slices"
)

// tally adds up what the workers report, and judges it. It is not safe for concurrent use.
type tally struct {
	// accepted has the tokens of the results that were accepted in this run, by entry.
	accepted map[string][]uint64
	// holds has the times during which workers believed that they had an entry's lock.
	holds map[string][]hold
	// open finds the hold that a worker is in.
	open      map[string]openHold
	takeovers int
	workers   map[string]int
	requests  map[string]map[string]int // by worker, and of offer
	finished  map[string]bool
	killed    map[string]bool
	// errors are the first few that were reported.
	errors []string
}

// hold is one holding of a lock, from and to as instant reads them.
type hold struct {
	from, to int64
}

type openHold struct {
	entry string
	from  int64
}

func newTally() *tally {
	return &tally{
		accepted: make(map[string][]uint64), holds: make(map[string][]hold), open: make(map[string]openHold),
		workers: make(map[string]int), requests: make(map[string]map[string]int),
		finished: make(map[string]bool), killed: make(map[string]bool),
	}
}

// add books one event.
func (t *tally) add(e Event) {
	if e.Requests != nil {
		t.requests[e.Worker] = e.Requests
	}
	if e.Error != "" && e.Event != workerKilled && len(t.errors) < 3 {
		t.errors = append(t.errors, e.Worker+": "+oneLine(e.Error))
	}
	switch e.Event {
	case entryAcquired:
		t.open[e.Worker] = openHold{e.Entry, e.At}
		if e.Takeover {
			t.takeovers++
		}
	case entryDone:
		t.accepted[e.Entry] = append(t.accepted[e.Entry], e.Token)
		t.workers[e.Worker]++
	case entryReleased, entryLost, workerKilled, workerDied:
		if o, ok := t.open[e.Worker]; ok {
			to := e.At
			if e.Until != 0 {
				to = min(to, e.Until)
			}
			t.holds[o.entry] = append(t.holds[o.entry], hold{o.from, to})
			delete(t.open, e.Worker)
		}
	case workerFinished:
		t.finished[e.Worker] = true
	}
}

// duplicates counts second accepted results of an entry, and holders that
// overlapped. final are the results in the store at the end: one that is not of
// our workers, where ours had one accepted, is a second one.
func (t *tally) duplicates(final map[string]Result) int {
	n := 0
	for entry, tokens := range t.accepted {
		n += len(tokens) - 1
		if result, ok := final[entry]; ok && !slices.Contains(tokens, result.Token) {
			n++
		}
	}
	for _, holds := range t.holds {
		n += overlaps(holds)
	}
	return n
}

// overlaps counts the holds that began before an earlier one had ended.
func overlaps(holds []hold) int {
	n, end := 0, int64(0)
	sorted := slices.SortedFunc(slices.Values(holds), func(a, b hold) int { return cmp.Compare(a.from, b.from) })
	for i, h := range sorted {
		if i > 0 && h.from < end {
			n++
		}
		end = max(end, h.to)
	}
	return n
}

// totalRequests returns the store requests by kind. A killed worker's count is
// that of its last "acquired".
func (t *tally) totalRequests() map[string]int {
	total := make(map[string]int)
	for _, counts := range t.requests {
		for kind, n := range counts {
			total[kind] += n
		}
	}
	return total
}

// entriesByWorker returns how many of the results each worker has, with those
// of another process that joined, and 0 for workers of ours that have none.
func (t *tally) entriesByWorker(final map[string]Result) map[string]int {
	counts := maps.Clone(t.workers)
	for name := range counts {
		counts[name] = 0
	}
	for _, result := range final {
		counts[result.Worker]++
	}
	return counts
}
