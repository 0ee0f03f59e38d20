// Leader-election shows processes that elect a leader: one leads and says its
// fencing token, the others wait; when the leader ends, well or by kill -9,
// another one leads.
//
//	go run ./examples/leader-election                three candidates; kill -9 the leader and watch
//	go run ./examples/leader-election -crash         the same by itself: it kills the leader and says how long nobody led
//	go run ./examples/leader-election -store sqlite:/tmp/demo.db -candidates 1
//
// in several terminals: one candidate in each
//
//	go run ./examples/leader-election -store dynamodb:TABLE -create-table          anywhere
//
// ^C stops it. The exit status is 0 if it was stopped so or by SIGTERM, or if
// -crash has seen another leader, 1 if something failed and 2 if it could not
// begin. Start reading at candidate.go: that is the part that a program of your
// own would have.
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
	"syscall"
	"time"

	"github.com/dynalock/dynalock/examples/internal/stores"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
)

// candidateFlag comes before a candidate's name on the command line of its
// process.
const candidateFlag = "-candidate"

// Exit statuses.
const (
	statusWell   = 0
	statusFailed = 1
	statusUsage  = 2
)

// settings are the flags.
type settings struct {
	store       string
	createTable bool
	name        string
	candidates  int
	ttl         time.Duration
	crash       bool
	candidate   string // in a process that another one has started: its name
}

func main() { os.Exit(run(os.Args[1:])) }

// run returns the exit status.
func run(args []string) int {
	s, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return statusWell
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "leader-election:", err)
		return statusUsage
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	status, err := demonstrate(ctx, s)
	if err != nil {
		fmt.Fprintln(os.Stderr, "leader-election:", err)
	}
	return status
}

// parse reads and checks the flags.
func parse(args []string) (settings, error) {
	var s settings
	if len(args) > 1 && args[0] == candidateFlag {
		s.candidate, args = args[1], args[2:]
	}
	flags := flag.NewFlagSet("leader-election", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&s.store, "store", "sqlite", stores.Usage)
	flags.BoolVar(&s.createTable, "create-table", false, "make the table of DynamoDB or PostgreSQL if there is none")
	flags.StringVar(&s.name, "name", "demo", "`name` of the election")
	flags.IntVar(&s.candidates, "candidates", 3, "`number` of candidates, each a process")
	flags.DurationVar(&s.ttl, "ttl", 5*time.Second, "`time` after which a dead leader is succeeded, 3s or more")
	flags.BoolVar(&s.crash, "crash", false, "kill the leader, wait for the next one and end")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Println("Processes elect a leader. When it ends, well or by kill -9, another one leads.\nFlags:")
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
		return fmt.Errorf("unexpected argument %q: all is set by flags, -h lists them", rest[0])
	case s.candidates < 1:
		return fmt.Errorf("-candidates %d: give 1 or more", s.candidates)
	case err != nil:
		return fmt.Errorf("-ttl %v: %w", s.ttl, err)
	case s.store == "memory" && s.candidates > 1:
		return errors.New("-store memory is seen by one process only: give -candidates 1 or another -store")
	case s.crash && s.candidates < 2:
		return errors.New("-crash needs somebody to take over: give -candidates 2 or more")
	}
	return nil
}

// demonstrate is one candidate, or starts several.
func demonstrate(ctx context.Context, s settings) (status int, err error) {
	if s.candidate == "" && s.store == "sqlite" {
		folder, err := os.MkdirTemp("", "leader-election-")
		if err != nil {
			return statusUsage, fmt.Errorf("making a temporary store (give one with -store sqlite:PATH): %w", err)
		}
		defer func() { _ = os.RemoveAll(folder) }()
		s.store = "sqlite:" + filepath.Join(folder, "store.db")
	}
	store, closeStore, err := stores.Open(ctx, s.store, s.createTable)
	if err != nil {
		return statusUsage, err
	}
	defer func() {
		if closeErr := closeStore(); closeErr != nil && err == nil {
			status, err = statusFailed, closeErr
		}
	}()
	switch {
	case s.candidate != "":
		ctx = untilInputEnds(ctx)
		err = campaign(ctx, store, s, s.candidate)
	case s.candidates == 1:
		host, _ := os.Hostname()
		err = campaign(ctx, store, s, host)
	default:
		err = startAndWatch(ctx, store, s)
	}
	if err != nil {
		return statusFailed, err
	}
	return statusWell, nil
}

// untilInputEnds returns a context that also ends when standard input does:
// when the parent is gone.
func untilInputEnds(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	return ctx
}
