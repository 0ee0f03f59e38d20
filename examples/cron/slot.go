package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

// killAfter is how long the command may take to stop once it got SIGTERM.
const killAfter = 10 * time.Second

// runSlot runs the command for the period that this was started for, if nobody
// else has, and returns the exit status.
func runSlot(ctx context.Context, client *lease.Client, s settings) (status int, err error) {
	// Without Wait nobody would ever find out that a claimer has died: that
	// takes watching it for its TTL, and a process that cron starts asks once
	// and is gone.
	options := []lock.OnceOption{lock.Wait()}
	if s.takeOver {
		options = append(options, lock.TakeOver())
	}
	once := lock.NewOnce(client, s.job, options...)
	// cron says when it started us, not what for: half a period later is the
	// same period for a clock that is early and one that is late.
	slot := lock.Slot(time.Now().Add(s.period/2), s.period)
	ran, err := once.Do(ctx, slot, func(ctx context.Context, l *lease.Lease) error { return execute(ctx, l, s.command) })
	switch {
	case err == nil && ran:
		fmt.Printf("%s of %s: done here\n", s.job, slot)
		return statusDone, nil
	case err == nil:
		fmt.Printf("%s of %s: done before\n", s.job, slot)
		return statusDone, nil
	}
	return statusFailed, fmt.Errorf("%s of %s: %w", s.job, slot, err)
}

// execute runs the command until ctx ends, which it does when the lock is lost.
func execute(ctx context.Context, l *lease.Lease, command []string) error {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), fmt.Sprintf("DYNALOCK_TOKEN=%d", l.Token()))
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = killAfter
	return cmd.Run()
}
