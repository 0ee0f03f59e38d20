package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/dynalock/dynalock/election"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// beat is how often the leader says what it would do.
const beat = time.Second

// campaign is a candidate until ctx ends: it leads whenever it is elected, and resigns at the end.
func campaign(ctx context.Context, store kv.Store, s settings, name string) error {
	owner := fmt.Sprintf("%s (pid %d)", name, os.Getpid())
	client, err := lease.New(store, lease.WithTTL(s.ttl), lease.WithOwner(owner))
	if err != nil {
		return err
	}
	e, err := election.New(client, s.name, election.WithValue([]byte(strconv.Itoa(os.Getpid()))))
	if err != nil {
		return err
	}
	fmt.Printf("%s campaigns\n", owner)
	defer tellOfOthers(ctx, e, owner)()
	err = e.Run(ctx, func(ctx context.Context, t *election.Term) error { return lead(ctx, owner, t) })
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = nil // it was stopped while it waited
	}
	return errors.Join(err, client.Close(context.WithoutCancel(ctx)))
}

// tellOfOthers says for whom a candidate waits, until stop is called. An
// election needs no such thing.
func tellOfOthers(ctx context.Context, e *election.Election, owner string) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var telling sync.WaitGroup
	telling.Go(func() {
		for leader, err := range e.Observe(ctx) {
			if err == nil && !leader.Vacant() && leader.Member.Owner != owner {
				fmt.Printf("%s waits for %s to resign or to die\n", owner, leader.Member.Owner)
			}
		}
	})
	return func() {
		cancel()
		telling.Wait()
	}
}

// lead is the leader's work: it does something now and then until ctx ends, and
// gives the token to whatever it changes.
func lead(ctx context.Context, owner string, t *election.Term) error {
	if t.TakenOver() {
		fmt.Printf("%s LEADS with token %d: the leader before had died\n", owner, t.Token())
	} else {
		fmt.Printf("%s LEADS with token %d\n", owner, t.Token())
	}
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			fmt.Printf("%s at work with token %d, leads for at least another %.1fs\n", owner, t.Token(), t.Remaining().Seconds())
		case <-ctx.Done():
			fmt.Printf("%s stops: %v\n", owner, context.Cause(ctx))
			return nil // now, and not before, Run resigns
		}
	}
}
