package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
)

const (
	// grace is how long workers may take to stop before they are killed.
	grace = 10 * time.Second
	// crashAfter is how long the victim of -crash sits on its entry while the others work.
	crashAfter = 300 * time.Millisecond
)

// coordinator starts the workers, hears what they report and ends them. It is
// no part of the locking: the workers compete through the store alone, and need
// no coordinator in real life. It is not safe for concurrent use.
type coordinator struct {
	settings settings
	store    kv.Store
	job      Job
	tally    *tally
	report   *report

	events  chan Event
	members map[string]*member
	live    int
	// waiting are the workers that start once the victim of -crash is in the
	// middle of its entry. victim is its name.
	waiting []string
	victim  string
}

func newCoordinator(s settings, store kv.Store, job Job, t *tally, r *report) *coordinator {
	return &coordinator{
		settings: s, store: store, job: job, tally: t, report: r,
		events: make(chan Event, 64), members: make(map[string]*member),
	}
}

// run returns when all workers have ended. When ctx ends it stops them.
func (c *coordinator) run(ctx context.Context) {
	names := c.names()
	if c.settings.crash {
		c.victim, c.waiting = names[0], names[1:]
		c.start(c.victim)
	} else {
		c.waiting = names
		c.startWaiting()
	}
	stopped := ctx.Done()
	overdue, crash := clock.System.NewTimer(grace), clock.System.NewTimer(crashAfter)
	overdue.Stop()
	crash.Stop()
	for c.live > 0 {
		select {
		case e := <-c.events:
			c.handle(e)
			if e.Event == workerPaused && e.Worker == c.victim {
				crash.Reset(crashAfter)
			}
		case <-crash.C():
			c.tally.killed[c.victim] = true
			c.members[c.victim].kill()
		case <-stopped:
			stopped, c.waiting = nil, nil
			c.each(func(m *member) { m.stop() })
			overdue.Reset(grace)
		case <-overdue.C():
			c.each(func(m *member) { m.kill() })
		}
	}
}

// names returns a name for each worker that no other process has: another may
// have joined on the same store.
func (c *coordinator) names() []string {
	process := fmt.Sprint(os.Getpid())
	if host, err := os.Hostname(); err == nil && strings.HasPrefix(c.settings.store, "dynamodb:") {
		process = host + "-" + process
	}
	names := make([]string, c.settings.workers)
	for i := range names {
		names[i] = fmt.Sprintf("worker-%d@%s", i+1, process)
	}
	return names
}

// start starts one worker. If it cannot be started it counts as one that has died.
func (c *coordinator) start(name string) {
	job := c.job
	if name == c.victim {
		job.PauseAt = min(2, len(job.Entries))
	}
	c.tally.workers[name] = 0
	c.live++
	if c.settings.store == "memory" {
		c.members[name] = startGoroutine(name, job, c.store, c.events)
		return
	}
	m, err := startProcess(name, job, c.events)
	if err != nil {
		c.handle(Event{Event: workerExited, At: instant(), Worker: name, Error: err.Error()})
		return
	}
	c.members[name] = m
}

func (c *coordinator) startWaiting() {
	for _, name := range c.waiting {
		c.start(name)
	}
	c.waiting = nil
}

func (c *coordinator) each(f func(*member)) {
	for _, m := range c.members {
		f(m)
	}
}

// handle books one event and shows it.
func (c *coordinator) handle(e Event) {
	if e.Event == workerExited {
		c.live--
		delete(c.members, e.Worker)
		switch {
		case c.tally.killed[e.Worker]:
			e.Event = workerKilled
		case !c.tally.finished[e.Worker]:
			e.Event = workerDied
		}
	}
	c.tally.add(e)
	c.report.event(e)
	if e.Worker == c.victim && (e.Event == workerPaused || e.Event == workerExited || e.Event == workerDied) {
		c.startWaiting()
	}
}

// survey reads all results that the store has of entries, and hashes their
// files again. wrong are the results whose digest is not the file's.
func survey(ctx context.Context, stored kv.Store, dir string, entries []string) (right, wrong map[string]Result, err error) {
	pairs, err := stored.List(ctx, "")
	if err != nil {
		return nil, nil, err
	}
	results := make(map[string]Result, len(pairs))
	for _, pair := range pairs {
		var result Result
		if err := pair.Decode(&result); err != nil {
			return nil, nil, err
		}
		results[pair.Key] = result
	}
	right, wrong = make(map[string]Result), make(map[string]Result)
	for _, entry := range entries {
		result, ok := results[entry]
		if !ok {
			continue
		}
		sum, err := digest(ctx, dir, entry)
		switch {
		case ctx.Err() != nil:
			return nil, nil, errors.Join(err, context.Cause(ctx))
		case err != nil || sum != result.Digest: // a file that is gone or unreadable has no right result
			wrong[entry] = result
		default:
			right[entry] = result
		}
	}
	return right, wrong, nil
}
