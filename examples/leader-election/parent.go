package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/dynalock/dynalock/election"
	"github.com/dynalock/dynalock/examples/internal/terminal"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// redrawEvery is how often a terminal shows what has changed.
const redrawEvery = 100 * time.Millisecond

// parent starts the candidates and tells what becomes of them. It is no part of
// the election, but for observing it.
type parent struct {
	settings settings
	screen   *terminal.Screen
	children map[int]*child // by their process ids
	exits    chan exit
	// leader is the last leader that was seen, nil before the first.
	leader *election.Leader
	// died is when it was seen to have died, zero while it lives.
	died time.Time
}

// child is a candidate's process.
type child struct {
	*exec.Cmd
	stop func() error
}

// exit is the end of a process.
type exit struct {
	pid int
	err error
}

// observed is a state of the election, or why there is none.
type observed struct {
	leader *election.Leader
	err    error
}

func newParent(s settings, screen *terminal.Screen) *parent {
	return &parent{settings: s, screen: screen, children: map[int]*child{}, exits: make(chan exit)}
}

// startAndWatch starts the candidates and observes the election until ctx ends
// or, with -crash, until a second one leads.
func startAndWatch(ctx context.Context, store kv.Store, s settings) error {
	p := newParent(s, terminal.Stdout())
	defer p.stopAll()
	p.say("%d candidates for %q. A leader that dies is succeeded about %s later.", s.candidates, s.name, s.ttl)
	for i := range s.candidates {
		if err := p.start(fmt.Sprint("candidate-", i+1)); err != nil {
			return err
		}
	}
	client, err := lease.New(store, lease.WithTTL(s.ttl)) // it only observes: no session, nothing to close
	if err != nil {
		return err
	}
	e, err := election.New(client, s.name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	states := make(chan observed)
	go func() {
		defer close(states)
		for leader, err := range e.Observe(ctx) {
			select {
			case states <- observed{leader, err}:
			case <-ctx.Done():
			}
		}
	}()
	defer func() {
		cancel()
		for range states { // until it has ended
		}
	}()
	return p.watch(ctx, states)
}

// watch tells of leaders and deaths. With -crash it kills the first leader, and
// the next one ends it.
func (p *parent) watch(ctx context.Context, states <-chan observed) error {
	redraw := time.NewTicker(redrawEvery)
	defer redraw.Stop()
	defer p.screen.Draw(nil)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-redraw.C:
			p.screen.Draw(p.wait())
		case e := <-p.exits:
			p.exited(e)
			if len(p.children) == 0 {
				return errors.New("all candidates have ended")
			}
		case o := <-states:
			switch {
			case ctx.Err() != nil:
				return nil
			case o.err != nil:
				fmt.Fprintln(os.Stderr, "leader-election:", o.err)
			default:
				if over, err := p.see(o.leader); over || err != nil {
					return err
				}
			}
		}
	}
}

// see tells of a state of the election. over: there is nothing more to show.
func (p *parent) see(l *election.Leader) (over bool, err error) {
	if l.Vacant() {
		p.say("nobody leads")
		return false, nil
	}
	before := p.leader
	p.leader = l
	if !p.died.IsZero() && l.Token > before.Token {
		p.say("%s leads %.1fs after the crash, with token %d after %d",
			l.Member.Owner, time.Since(p.died).Seconds(), l.Token, before.Token)
		p.died = time.Time{}
		if p.settings.crash {
			return true, nil
		}
	}
	if !p.settings.crash {
		p.say("%s leads; try kill -9 %s", l.Member.Owner, l.Value)
		return false, nil
	}
	victim := p.children[pid(l.Value)]
	switch {
	case before != nil: // it was killed, and has not ended yet
		return false, nil
	case victim == nil:
		return false, fmt.Errorf("%s leads, which is not one of ours to kill: give -crash a store or -name of its own",
			l.Member.Owner)
	}
	return false, victim.Process.Kill()
}

// exited tells of the end of a candidate.
func (p *parent) exited(e exit) {
	delete(p.children, e.pid)
	switch {
	case p.leader == nil || pid(p.leader.Value) != e.pid:
		p.say("process %d has ended, and did not lead: %v", e.pid, e.err)
	default:
		p.died = time.Now()
		how := fmt.Sprintf("has ended (%v)", e.err)
		if p.settings.crash {
			how = "was killed"
		}
		p.say("%s with token %d %s: the others wait, for about %s",
			p.leader.Member.Owner, p.leader.Token, how, p.settings.ttl)
	}
}

// wait is what a terminal shows while a dead leader's lease lasts.
func (p *parent) wait() []string {
	if p.died.IsZero() {
		return nil
	}
	text := fmt.Sprintf("  the others wait until the lease of %s ends: ", p.leader.Member.Owner)
	if left := p.settings.ttl - time.Since(p.died); left > 0 {
		return []string{text + fmt.Sprintf("about %.1fs more", left.Seconds())}
	}
	return []string{text + "any moment now"}
}

func (p *parent) say(format string, args ...any) { p.screen.Line(fmt.Sprintf(format, args...), 4) }

// pid is the process id that a candidate campaigns with, 0 if it is none.
func pid(value []byte) int {
	n, _ := strconv.Atoi(string(value)) // another program's leader may say anything
	return n
}

// start starts a candidate. Its process ends when its standard input does, so
// with this one, however that ends.
func (p *parent) start(name string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	s := p.settings
	cmd := exec.Command(self, candidateFlag, name, "-store", s.store, "-name", s.name, "-ttl", s.ttl.String())
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	p.children[cmd.Process.Pid] = &child{cmd, stdin.Close}
	go func() {
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			p.say("%s", lines.Text())
		}
		_, _ = io.Copy(io.Discard, stdout) // after a line that is too long
		p.exits <- exit{cmd.Process.Pid, cmd.Wait()}
	}()
	return nil
}

// stopAll lets the candidates resign, and waits for them.
func (p *parent) stopAll() {
	for _, c := range p.children {
		_ = c.stop() // it may have exited
	}
	for len(p.children) > 0 {
		e := <-p.exits
		delete(p.children, e.pid)
		if e.err != nil && !strings.Contains(e.err.Error(), os.Kill.String()) {
			p.say("process %d: %v", e.pid, e.err)
		}
	}
}
