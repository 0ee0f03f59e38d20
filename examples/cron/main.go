// Cron runs a command once per period, on however many machines cron starts it
// for the same schedule.
//
//	go run ./examples/cron -store sqlite:/tmp/demo.db -job report -period 1h -- echo sending the report
//	go run ./examples/cron -store dynamodb:TABLE -create-table -job report -period 24h -- ./report.sh
//
// The first to ask for a period runs the command; all others wait for its end
// and, however much later they ask, say how it went. Give each machine the same
// crontab line; the clocks may differ by up to half a period. The command finds
// the fencing token of its lock in DYNALOCK_TOKEN and gets SIGTERM when the
// lock is lost, and SIGKILL ten seconds after.
//
// The exit status is 0 if the period's command has succeeded, here or
// elsewhere, 1 if it failed or was abandoned by a process that died, and 2 if
// it could not begin. Start reading at slot.go.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/dynalock/dynalock/examples/internal/stores"
	"github.com/dynalock/dynalock/lease"
)

// Exit statuses.
const (
	statusDone   = 0
	statusFailed = 1
	statusUsage  = 2
)

// settings are the flags, and the command.
type settings struct {
	store       string
	createTable bool
	job         string
	period      time.Duration
	takeOver    bool
	ttl         time.Duration
	command     []string
}

func main() { os.Exit(run(os.Args[1:])) }

// run returns the exit status.
func run(args []string) int {
	var s settings
	flags := flag.NewFlagSet("cron", flag.ContinueOnError)
	flags.StringVar(&s.store, "store", "",
		"sqlite:PATH, postgres://USER@HOST/DATABASE, dynamodb:TABLE or, to try it, memory")
	flags.BoolVar(&s.createTable, "create-table", false, "make the table of DynamoDB or PostgreSQL if there is none")
	flags.StringVar(&s.job, "job", "", "`name` of the job, the same on all machines")
	flags.DurationVar(&s.period, "period", 0, "how often the job is scheduled; periods begin as lock.Slot says")
	flags.BoolVar(&s.takeOver, "takeover", false,
		"run the command again if the process that ran it died: only for what can be repeated")
	flags.DurationVar(&s.ttl, "ttl", lease.DefaultTTL,
		"time after which a process that died is known to be dead, 3s or more")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return statusDone
		}
		return statusUsage
	}
	s.command = flags.Args()
	if s.store == "" || s.job == "" || s.period <= 0 || len(s.command) == 0 {
		fmt.Fprintln(os.Stderr, "cron: give -store, -job, -period and, after --, the command: -h lists the flags")
		return statusUsage
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	status, err := open(ctx, s)
	if err != nil {
		fmt.Fprintln(os.Stderr, "cron:", err)
	}
	return status
}

// open makes what runSlot needs, and puts it away.
func open(ctx context.Context, s settings) (status int, err error) {
	store, closeStore, err := stores.Open(ctx, s.store, s.createTable)
	if err != nil {
		return statusUsage, err
	}
	defer func() { err = errors.Join(err, closeStore()) }()
	client, err := lease.New(store, lease.WithTTL(s.ttl))
	if err != nil {
		return statusUsage, err
	}
	defer func() { // ctx may have ended
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		err = errors.Join(err, client.Close(ctx))
	}()
	return runSlot(ctx, client, s)
}
