// Competing-consumers shows a set of entries and several workers that compete
// for them: each entry is locked, worked on and unlocked, and when a worker
// dies the others take up its slack.
//
// The entries are the files of a folder, the work is hashing them. The workers
// are processes of their own that share nothing but a store:
//
//	go run ./examples/competing-consumers              three workers on the files under the current folder
//	go run ./examples/competing-consumers -crash       one of them is killed in the middle of an entry
//	go run ./examples/competing-consumers -store sqlite:/tmp/demo.db -work 200ms
//
// in two terminals: they share the work
//
//	go run ./examples/competing-consumers -store dynamodb:TABLE -create-table        anywhere
//
// The exit status is 0 only if every entry has exactly one accepted result, and
// the right one. It is 1 if not, 2 if the run could not begin, and 128 and the
// signal's number after a signal. Start reading at worker.go: that is the part
// that a program of your own would have.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/dynalock/dynalock/examples/internal/stores"
	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
)

// Exit statuses.
const (
	statusComplete = 0
	statusFailed   = 1
	statusUsage    = 2
	statusSignal   = 128 // and the signal's number
)

// settings are the flags.
type settings struct {
	input, name string
	store       string
	createTable bool
	workers     int
	ttl, work   time.Duration
	crash, json bool
}

func main() { os.Exit(run(os.Args[1:])) }

// run returns the exit status.
func run(args []string) int {
	if len(args) == 2 && args[0] == workerFlag {
		return workerMain(args[1])
	}
	s, err := parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return statusComplete
	case err != nil:
		return usage(err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	go func() { cancel(stopError{<-signals}) }()

	status, err := demonstrate(ctx, s)
	if stop, ok := errors.AsType[stopError](context.Cause(ctx)); ok {
		fmt.Fprintf(os.Stderr, "competing-consumers: stopped by signal %v\n", stop.signal)
		return stop.status()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "competing-consumers:", oneLine(err.Error()))
	}
	return status
}

// parse reads and checks the flags.
func parse(args []string) (settings, error) {
	var s settings
	flags := flag.NewFlagSet("competing-consumers", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&s.input, "input", ".", "`folder` whose files are shared out")
	flags.StringVar(&s.name, "name", "", "what the store calls the files, if not by the folder's path")
	flags.StringVar(&s.store, "store", "sqlite", stores.Usage)
	flags.BoolVar(&s.createTable, "create-table", false, "make the table of DynamoDB or PostgreSQL if there is none")
	flags.IntVar(&s.workers, "workers", 3, "`number` of workers")
	flags.DurationVar(&s.ttl, "ttl", 15*time.Second, "`time` after which a dead worker's locks end, 3s or more")
	flags.DurationVar(&s.work, "work", 0, "extra `time` for each file")
	flags.BoolVar(&s.crash, "crash", false, "kill one worker in the middle of a file")
	flags.BoolVar(&s.json, "json", false, "report as lines of JSON on standard output")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Println("Several workers share the files of a folder. Each file is locked, hashed and\n" +
				"unlocked. When a worker dies, the others do its share. Flags:")
			flags.SetOutput(os.Stdout)
			flags.PrintDefaults()
			return s, err
		}
		return s, fmt.Errorf("%w: -h lists the flags", err)
	}
	return s, s.check(flags.Args())
}

// check refuses what cannot work.
func (s settings) check(rest []string) error {
	_, err := lease.New(memkv.New(), lease.WithTTL(s.ttl)) // checks, and does nothing yet
	switch {
	case len(rest) > 0:
		return fmt.Errorf("unexpected argument %q: give a folder with -input", rest[0])
	case s.workers < 1:
		return fmt.Errorf("-workers %d: give 1 or more", s.workers)
	case s.work < 0:
		return fmt.Errorf("-work %v: give 0 or more", s.work)
	case err != nil:
		return fmt.Errorf("-ttl %v: %w", s.ttl, err)
	case s.crash && s.store == "memory":
		return errors.New("-crash kills a process, and with -store memory the workers are no processes: give another -store")
	case s.crash && s.workers < 2:
		return errors.New("-crash needs somebody to take over: give -workers 2 or more")
	}
	return nil
}

// names returns a name for each worker that no other process has: another may
// have joined on the same store.
func (s settings) names() []string {
	process := fmt.Sprint(os.Getpid())
	if host, err := os.Hostname(); err == nil && strings.HasPrefix(s.store, "dynamodb:") {
		process = host + "-" + process
	}
	names := make([]string, s.workers)
	for i := range names {
		names[i] = fmt.Sprintf("worker-%d@%s", i+1, process)
	}
	return names
}

// demonstrate makes the store and the entries ready, and runs.
func demonstrate(ctx context.Context, s settings) (status int, err error) {
	began := clock.System.Now()
	d, err := prepare(ctx, s)
	if err != nil {
		return statusUsage, err
	}
	defer func() {
		if closeErr := d.close(); closeErr != nil && err == nil {
			status, err = statusFailed, closeErr
		}
	}()
	d.run(ctx)
	summary, err := d.judge(ctx)
	summary.At, summary.Seconds = instant(), clock.System.Now().MonotonicSince(began).Seconds()
	d.report.summary(summary)
	if err == nil {
		err = d.verdict(summary)
	}
	if err != nil {
		return statusFailed, err
	}
	return statusComplete, nil
}

// usage says on one line why nothing was begun.
func usage(err error) int {
	fmt.Fprintln(os.Stderr, "competing-consumers:", oneLine(err.Error()))
	return statusUsage
}

// temporaryStore returns a store in a folder of its own, and what removes that.
func temporaryStore() (spec string, remove func() error, err error) {
	folder, err := os.MkdirTemp("", "competing-consumers-")
	if err != nil {
		return "", nil, fmt.Errorf("making a temporary store (give one with -store sqlite:PATH): %w", err)
	}
	return "sqlite:" + filepath.Join(folder, "store.db"), func() error { return os.RemoveAll(folder) }, nil
}

// stopError is the cause of a context that a signal has ended.
type stopError struct{ signal os.Signal }

// Error implements error.
func (e stopError) Error() string { return "stopped by signal " + e.signal.String() }

// status returns the exit status by which shells tell of a signal.
func (e stopError) status() int {
	if number, ok := e.signal.(syscall.Signal); ok {
		return statusSignal + int(number)
	}
	return statusFailed
}
