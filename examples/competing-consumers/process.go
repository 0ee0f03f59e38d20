package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/dynalock/dynalock/examples/internal/stores"
	"github.com/dynalock/dynalock/kv"
)

// member is a worker as the parent sees it. Its last event is workerExited.
type member struct {
	// stop asks it to end cleanly, kill ends it at once.
	stop, kill func()
}

// workerFlag comes before a worker's name on the command line of its process.
const workerFlag = "-worker"

// startProcess starts a worker process. Closing its standard input stops it, so
// it stops too when the parent dies, however that does.
func startProcess(name string, job Job, events chan<- Event) (*member, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, workerFlag, name)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = json.NewEncoder(stdin).Encode(job) // it fails if the worker has died, which Wait reports
		forward(stdout, events)
		exited := Event{Event: workerExited, Worker: name}
		if err := cmd.Wait(); err != nil {
			exited.Error = err.Error()
		}
		exited.At = instant()
		events <- exited
	}()
	return &member{
		stop: func() { _ = stdin.Close() },
		kill: func() { _ = cmd.Process.Kill() },
	}, nil
}

// forward passes the events in r on, until its end.
func forward(r io.Reader, events chan<- Event) {
	decoder := json.NewDecoder(r)
	for {
		var e Event
		if decoder.Decode(&e) != nil {
			break
		}
		events <- e
	}
	_, _ = io.Copy(io.Discard, r) // after a line that was cut short, or no event
}

// startGoroutine starts a worker in this process, for a store that no other process sees.
func startGoroutine(name string, job Job, store kv.Store, events chan<- Event) *member {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		err := runWorker(ctx, name, job, store, logger(), func(e Event) { events <- e })
		exited := Event{Event: workerExited, Worker: name, At: instant()}
		if err != nil {
			exited.Error = err.Error()
		}
		events <- exited
	}()
	return &member{stop: cancel, kill: cancel}
}

// workerMain is a worker process: its job comes on the first line of standard
// input, its events go to standard output. It works until all is done, standard
// input ends or SIGTERM comes. A terminal's ^C is the parent's business.
func workerMain(name string) int {
	signal.Ignore(syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var job Job
	if err := json.NewDecoder(os.Stdin).Decode(&job); err != nil {
		return 1 // stopped before it began
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	store, closeStore, err := stores.Open(ctx, job.Store, false)
	switch {
	case ctx.Err() != nil && err != nil:
		return 1 // stopped, too
	case err != nil:
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return 1
	}
	events := json.NewEncoder(os.Stdout)
	err = runWorker(ctx, name, job, store, logger(), func(e Event) { _ = events.Encode(e) })
	if closeErr := closeStore(); err != nil || closeErr != nil {
		return 1 // the event "finished" has said why
	}
	return 0
}

func logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
}
