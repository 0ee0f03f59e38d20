//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/term"
)

// passedOn are the signals that the command's process group gets.
var passedOn = []os.Signal{
	syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH,
}

// ends reports whether a signal ends a command that still waits.
func ends(s syscall.Signal) bool {
	switch s {
	case syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH:
		return false
	}
	return true
}

// groupPoll is how often a group whose command has ended is looked at.
const groupPoll = 20 * time.Millisecond

// child is the command while it runs.
type child struct {
	cmd *exec.Cmd
	// group: it has a process group of its own. Else it shares the terminal's.
	group bool
	ended chan error
}

// supervise runs command until it has ended, and what is in its process group.
// When ctx ends it ends them, in time: the time to kill counts once, from there,
// whatever of the group has ended meanwhile. A signal that came before starts
// nothing. It returns the command's status.
func (c *cli) supervise(
	ctx context.Context, f *runFlags, command, environment []string, signals <-chan os.Signal,
) (status int, err error) {
	select {
	case s := <-signals:
		if number, ok := s.(syscall.Signal); ok && ends(number) {
			return statusSignal + int(number), nil
		}
	default:
	}
	p := &child{
		cmd: &exec.Cmd{Path: command[0], Args: command[1:], Env: environment, Stdin: c.in, Stdout: os.Stdout,
			Stderr: os.Stderr},
		group: !term.IsTerminal(int(c.in.Fd())), ended: make(chan error, 1),
	}
	p.cmd.SysProcAttr = attributes(p.group)
	if err := p.start(); err != nil {
		return 0, err
	}
	lost, kill := ctx.Done(), (<-chan time.Time)(nil)
	var look <-chan time.Time // at the group, once the command has ended
	for {
		select {
		case err := <-p.ended:
			if status, err = statusOfChild(err); err != nil || p.isEmpty() {
				return status, err
			}
			tick := time.NewTicker(groupPoll)
			defer tick.Stop()
			look = tick.C
		case <-look:
			if p.isEmpty() || f.onLost == "warn" && lost == nil {
				return status, nil
			}
		case s := <-signals:
			p.pass(s.(syscall.Signal)) //nolint:forcetypeassert // Notify sends no others here
		case <-lost:
			lost = nil
			c.tellLoss(f, context.Cause(ctx))
			kill = p.stop(f)
		case <-kill:
			p.signal(syscall.SIGKILL)
			kill = time.After(groupPoll) // what was just forked, too
		}
	}
}

func (c *cli) tellLoss(f *runFlags, cause error) {
	does := map[string]string{"term": "it is told to stop", "kill": "it is killed",
		"warn": "it goes on, others may have the lock"}
	_, _ = fmt.Fprintf(c.err, "dynalock: %v while the command runs: %s\n", cause, does[f.onLost])
}

// stop begins to end the command, and returns when to kill it.
func (p *child) stop(f *runFlags) <-chan time.Time {
	switch f.onLost {
	case "warn":
		return nil
	case "kill":
		return time.After(0)
	}
	p.signal(syscall.SIGTERM)
	p.signal(syscall.SIGCONT) // one that is stopped would not hear it
	return time.After(f.killAfter)
}

// start starts the command on a thread that lives until it has ended: on Linux
// the child dies with that thread.
func (p *child) start() error {
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.ended <- p.cmd.Wait()
		}
	}()
	return <-started
}

// pass passes a signal on. On a terminal the command has got what keys send by
// itself.
func (p *child) pass(s syscall.Signal) {
	if !p.group && (s == syscall.SIGINT || s == syscall.SIGQUIT || s == syscall.SIGWINCH) {
		return
	}
	p.signal(s)
}

// signal sends s to the command's process group, or to the command alone.
func (p *child) signal(s syscall.Signal) {
	pid := p.cmd.Process.Pid
	if p.group {
		pid = -pid
	}
	_ = syscall.Kill(pid, s) // what has ended needs none
}

// isEmpty reports whether nothing is left in the process group of a command that
// has ended. Where this process is init, it is the one to bury what is left there.
func (p *child) isEmpty() bool {
	if !p.group {
		return true
	}
	for {
		pid, err := syscall.Wait4(-p.cmd.Process.Pid, nil, syscall.WNOHANG, nil)
		if pid <= 0 && !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	return errors.Is(syscall.Kill(-p.cmd.Process.Pid, 0), syscall.ESRCH)
}

// statusOfChild is the status of a command from the error of its end.
func statusOfChild(err error) (int, error) {
	var ended *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case !errors.As(err, &ended):
		return 0, err
	}
	if wait, ok := ended.Sys().(syscall.WaitStatus); ok && wait.Signaled() {
		return statusSignal + int(wait.Signal()), nil
	}
	return ended.ExitCode(), nil
}

// closeOnExec keeps a file that this process was started with from the command.
func closeOnExec(fd int) { syscall.CloseOnExec(fd) }
