package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/dynalock/dynalock/election"
	"github.com/dynalock/dynalock/kv"
)

// state is what the job keeps: it outlives leaders, and shows how a resource refuses a deposed one.
type state struct {
	Rounds int `json:"rounds"`
	// Token is the fencing token of the leader that wrote it.
	Token uint64 `json:"token"`
}

const stateKey = "state/http-service"

// errDeposed: a later leader has written.
var errDeposed = errors.New("a later leader is at work")

// job is the leader's work: a round every now and then, until ctx ends.
func job(ctx context.Context, t *election.Term, store kv.Store, every time.Duration) error {
	fmt.Printf("leads with token %d\n", t.Token())
	defer fmt.Printf("stops leading with token %d\n", t.Token())
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := round(ctx, store, t.Token()); err != nil && ctx.Err() == nil {
			fmt.Println("a round failed:", err) // the next one may not
		}
	}
}

// round counts one round, unless a later leader has begun: whatever a leader
// changes should check its token like this.
func round(ctx context.Context, store kv.Store, token uint64) error {
	_, err := kv.Update(ctx, store, stateKey, func(current *kv.KVPair) ([]byte, error) {
		s, err := decode(current)
		if err != nil {
			return nil, err
		}
		if s.Token > token {
			return nil, fmt.Errorf("%w: its token is %d, ours %d", errDeposed, s.Token, token)
		}
		return json.Marshal(state{s.Rounds + 1, token})
	})
	return err
}

func readState(ctx context.Context, store kv.Store) (state, error) {
	pair, err := store.Get(ctx, stateKey)
	if err != nil && !errors.Is(err, kv.ErrKeyNotFound) {
		return state{}, err
	}
	return decode(pair)
}

func decode(pair *kv.KVPair) (s state, err error) {
	if pair != nil {
		err = pair.Decode(&s)
	}
	return s, err
}
