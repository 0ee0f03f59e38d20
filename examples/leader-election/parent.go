package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/dynalock/dynalock/election"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// child is a candidate's process.
type child struct {
	*exec.Cmd
	stop   func() error
	exited chan error
}

// startAndWatch starts the candidates and observes the election until ctx ends
// or, with -crash, until a second one leads.
func startAndWatch(ctx context.Context, store kv.Store, s settings) error {
	children := map[int]*child{}
	defer stopAll(children)
	for i := range s.candidates {
		c, err := startCandidate(s, fmt.Sprint("candidate-", i+1))
		if err != nil {
			return err
		}
		children[c.Process.Pid] = c
	}
	client, err := lease.New(store, lease.WithTTL(s.ttl)) // it only observes: no session, nothing to close
	if err != nil {
		return err
	}
	e, err := election.New(client, s.name)
	if err != nil {
		return err
	}
	return watch(ctx, e, children, s.crash)
}

// watch tells of leaders. The first is killed if crash says so, and the next one ends it.
func watch(ctx context.Context, e *election.Election, children map[int]*child, crash bool) error {
	var killed time.Time
	var token uint64
	for leader, err := range e.Observe(ctx) {
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			fmt.Fprintln(os.Stderr, "leader-election:", err)
		case leader.Vacant():
			fmt.Println("nobody leads")
		case !killed.IsZero() && leader.Token > token:
			fmt.Printf("%s leads %.1fs after the crash, with token %d after %d\n", leader.Member.Owner, time.Since(killed).Seconds(), leader.Token, token)
			return nil
		case !crash:
			fmt.Printf("%s leads; try kill -9 %s\n", leader.Member.Owner, leader.Value)
		case killed.IsZero():
			victim := children[pid(leader.Value)]
			if victim == nil {
				return fmt.Errorf("%s leads, which is not one of ours to kill: give -crash a store or -name of its own", leader.Member.Owner)
			}
			if err := victim.Process.Kill(); err != nil {
				return err
			}
			<-victim.exited
			killed, token = time.Now(), leader.Token
			delete(children, victim.Process.Pid)
			fmt.Printf("%s with token %d was killed\n", leader.Member.Owner, token)
		}
	}
	return nil
}

// pid is the process id that a candidate campaigns with, 0 if it is none.
func pid(value []byte) int {
	n, _ := strconv.Atoi(string(value)) // another program's leader may say anything
	return n
}

// startCandidate starts a process that ends when its standard input does, so
// with this one, however that ends.
func startCandidate(s settings, name string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "-candidate", name, "-store", s.store, "-name", s.name, "-ttl", s.ttl.String())
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &child{cmd, stdin.Close, make(chan error, 1)}
	go func() { c.exited <- cmd.Wait() }()
	return c, nil
}

// stopAll lets the candidates resign, and waits for them.
func stopAll(children map[int]*child) {
	for _, c := range children {
		_ = c.stop() // it may have exited
	}
	for id, c := range children {
		if err := <-c.exited; err != nil {
			fmt.Printf("process %d: %v\n", id, err) // killed by whoever watches
		}
	}
}
