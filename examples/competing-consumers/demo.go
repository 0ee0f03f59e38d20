package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dynalock/dynalock/examples/internal/stores"
	"github.com/dynalock/dynalock/kv"
)

// demo is a run: entries, store, workers, and what came of them.
type demo struct {
	*coordinator
	// close closes the store and removes it if it is a temporary one.
	close func() error
}

// prepare finds the entries, opens the store, looks which results it has
// already, and offers the entries to the workers. On an error no store is left
// open.
func prepare(ctx context.Context, s settings) (_ *demo, err error) {
	spec, remove := s.store, func() error { return nil }
	skip, err := stores.Files(spec)
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(s.input)
	if err != nil {
		return nil, err
	}
	entries, err := listEntries(dir, skip)
	if err != nil {
		return nil, err
	}
	if spec == "sqlite" {
		if spec, remove, err = temporaryStore(); err != nil {
			return nil, err
		}
	}
	store, closeStore, err := stores.Open(ctx, spec, s.createTable)
	if err != nil {
		return nil, errors.Join(err, remove())
	}
	closeAll := func() error { return errors.Join(closeStore(), remove()) }
	set := setName(s.name, dir)
	right, wrong, err := survey(ctx, resultsOf(store, set), dir, entries)
	requests := newRequestCounts()
	var r report = newJSONReport()
	if err == nil {
		if !s.json {
			r = beginStory(s, dir, entries, right)
		}
		err = offer(ctx, kv.Instrument(store, requests.hook), set, entries, right)
	}
	if err != nil {
		return nil, errors.Join(err, closeAll())
	}
	job := Job{Store: spec, Dir: dir, Set: set, Entries: entries, Stale: make(map[string]uint64), TTL: s.ttl, Work: s.work}
	for entry, result := range wrong {
		job.Stale[entry] = result.Token
	}
	viewer, err := newViewer(store, set)
	if err != nil {
		return nil, errors.Join(err, closeAll())
	}
	tally := newTally()
	tally.requests["offer"] = requests.snapshot()
	return &demo{newCoordinator(s, store, job, tally, viewer, r), closeAll}, nil
}

// judge compares the results in the store with the files, and says what came of
// the run. If it cannot, as after a stop, the summary goes by what the workers
// reported.
func (d *demo) judge(ctx context.Context) (Summary, error) {
	s := Summary{
		Event:     "summary",
		Entries:   len(d.job.Entries),
		Takeovers: d.tally.takeovers,
		Killed:    slices.AppendSeq([]string{}, maps.Keys(d.tally.killed)),
		Requests:  d.tally.totalRequests(),
	}
	right, wrong, err := survey(ctx, resultsOf(d.store, d.job.Set), d.job.Dir, d.job.Entries)
	if err != nil {
		s.Done, s.Duplicates, s.Workers = len(d.tally.accepted), d.tally.duplicates(nil), d.tally.workers
		return s, err
	}
	final := maps.Clone(right)
	maps.Copy(final, wrong)
	if seen, err := d.viewer.look(ctx); err == nil {
		s.deaths = seen.deaths
		for _, death := range s.deaths {
			s.takenOver += death.takenOver(final)
		}
	}
	s.Complete, s.Done, s.Wrong = len(right) == len(d.job.Entries), len(right), len(wrong)
	s.Duplicates, s.Workers = d.tally.duplicates(final), d.tally.entriesByWorker(final)
	return s, nil
}

// verdict returns nil if every entry has exactly one accepted result, and the right one.
func (d *demo) verdict(s Summary) error {
	switch {
	case !s.Complete:
		because := ""
		if len(d.tally.errors) > 0 {
			because = ": " + strings.Join(d.tally.errors, "; ")
		}
		return fmt.Errorf("%d of %d entries have a right result, %d have a wrong one%s", s.Done, s.Entries, s.Wrong, because)
	case s.Duplicates > 0:
		return fmt.Errorf("%d duplicates: the locks did not exclude", s.Duplicates)
	}
	return nil
}
