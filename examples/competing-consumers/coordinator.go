package main

import (
	"context"
	"errors"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
)

const (
	// grace is how long workers may take to stop before they are killed.
	grace = 10 * time.Second
	// crashAfter is how long the victim of -crash sits on its entry while the others work.
	crashAfter = 300 * time.Millisecond
	// redrawEvery is how often a terminal shows what has changed.
	redrawEvery = 100 * time.Millisecond
)

// coordinator starts the workers, hears what they report and ends them. It is
// no part of the locking: the workers compete through the store alone, and need
// no coordinator in real life. It is not safe for concurrent use.
type coordinator struct {
	settings settings
	store    kv.Store
	job      Job
	tally    *tally
	viewer   *viewer
	report   report

	events  chan Event
	members map[string]*member
	live    int
	// waiting are the workers that start once the victim of -crash is in the
	// middle of its entry. victim is its name.
	waiting []string
	victim  string
}

func newCoordinator(s settings, store kv.Store, job Job, t *tally, v *viewer, r report) *coordinator {
	c := &coordinator{
		settings: s, store: store, job: job, tally: t, viewer: v, report: r,
		events: make(chan Event, 64), members: make(map[string]*member),
	}
	c.waiting = s.names()
	if s.crash {
		c.victim, c.waiting = c.waiting[0], c.waiting[1:]
	}
	return c
}

// run returns when all workers have ended. When ctx ends it stops them.
func (c *coordinator) run(ctx context.Context) {
	if c.settings.crash {
		c.start(c.victim)
	} else {
		c.startWaiting()
	}
	stopped := ctx.Done()
	overdue, crash, redraw := clock.System.NewTimer(grace), clock.System.NewTimer(crashAfter),
		clock.System.NewTimer(redrawEvery)
	overdue.Stop()
	crash.Stop()
	var views <-chan view
	if !c.settings.json {
		var stop func()
		views, stop = c.viewer.watch(ctx)
		defer stop()
	}
	for c.live > 0 {
		select {
		case v := <-views:
			c.report.see(v)
		case <-redraw.C():
			c.report.tick()
			redraw.Reset(redrawEvery)
		case e := <-c.events:
			c.handle(ctx, e)
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
		go func() { c.events <- Event{Event: workerExited, At: instant(), Worker: name, Error: err.Error()} }()
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
func (c *coordinator) handle(ctx context.Context, e Event) {
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
	if e.Event == workerKilled || e.Event == workerDied {
		// If it cannot be found out, the story knows of fewer locks.
		d, _ := c.viewer.died(context.WithoutCancel(ctx), e.Worker, e.Event == workerKilled)
		c.report.died(d, e)
	}
	if e.Worker == c.victim && (e.Event == workerPaused || e.Event == workerExited || e.Event == workerDied) {
		c.startWaiting()
	}
}

// survey reads all results that the store has of entries, and hashes their
// files again. wrong are the results whose digest is not the file's.
func survey(ctx context.Context, stored kv.Store, dir string,
	entries []string) (right, wrong map[string]Result, err error) {
	results, err := decodeAll[Result](ctx, stored)
	if err != nil {
		return nil, nil, err
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
