package tests_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
)

// call is an operation on one key. Every value that is written is a new one.
type call struct {
	op, key, value string
	previous       uint64
}

// answer is what an operation said: whether it was applied, and the pair that it returned or that stood in its way.
type answer struct {
	applied bool
	value   string // "": none is live
	version uint64 // 0: not told
}

// register is a key's state in the model. A blind write's version is not known until somebody reads it.
type register struct {
	value         string
	version, last uint64
}

// see checks what an operation was shown, and learns the version.
func (r register) see(a answer) (bool, register) {
	if a.value != r.value {
		return false, r
	}
	if a.value == "" {
		return true, r
	}
	if r.version == 0 {
		return a.version > r.last, register{r.value, a.version, a.version}
	}
	return a.version == r.version, r
}

// has reports whether the live pair may have the version.
func (r register) has(version uint64) bool {
	return r.value != "" && (r.version == version || r.version == 0 && version > r.last)
}

func step(state, input, output any) (bool, any) {
	r, in, out := state.(register), input.(call), output.(answer)
	next := register{in.value, out.version, max(r.last, out.version)}
	grows := out.version > r.last
	switch {
	case in.op == "put" || in.op == "delete":
		return true, register{value: in.value, last: r.last}
	case in.op == "get" || !out.applied:
		ok, seen := r.see(out)
		lost := in.op == "get" || in.op == "create" && out.value != "" || in.op != "create" && out.version != in.previous
		return ok && lost, seen
	case in.op == "create":
		return r.value == "" && grows, next
	case in.op == "swap":
		return r.has(in.previous) && grows && out.version > in.previous, next
	default: // remove
		return r.has(in.previous), register{last: max(r.last, in.previous)}
	}
}

var model = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[string][]porcupine.Operation{}
		for _, op := range history {
			key := op.Input.(call).key
			byKey[key] = append(byKey[key], op)
		}
		var parts [][]porcupine.Operation
		for _, part := range byKey {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() any { return register{} },
	Step: step,
}

// perform runs c and returns its answer, and the pair that it learned of.
func perform(ctx context.Context, store kv.Store, c call, previous *kv.KVPair) (answer, *kv.KVPair, error) {
	var pair *kv.KVPair
	var err error
	switch c.op {
	case "put":
		return answer{applied: true}, nil, store.Put(ctx, c.key, kv.WithString(c.value))
	case "delete":
		return answer{applied: true}, nil, store.Delete(ctx, c.key)
	case "get":
		pair, err = store.Get(ctx, c.key)
		if errors.Is(err, kv.ErrKeyNotFound) {
			return answer{}, nil, nil
		}
	case "create":
		pair, err = store.AtomicPut(ctx, c.key, kv.WithString(c.value))
	case "swap":
		pair, err = store.AtomicPut(ctx, c.key, kv.WithString(c.value), kv.WithPrevious(previous))
	case "remove":
		err = store.AtomicDelete(ctx, c.key, previous)
	}
	a := answer{applied: err == nil}
	if conflict, ok := errors.AsType[*kv.ConflictError](err); ok {
		pair, err = conflict.Current, nil
	}
	if pair != nil {
		a.value, a.version = pair.String(), pair.Version
	}
	return a, pair, err
}

const (
	clients    = 5
	operations = 60
)

// history runs clients that do random things to three keys, by turns on each of the stores.
func history(t *testing.T, stores ...kv.Store) []porcupine.Operation {
	var mu sync.Mutex
	var all []porcupine.Operation
	start := clock.System.Now()
	since := func() int64 { return int64(clock.System.Now().MonotonicSince(start)) }
	var wg sync.WaitGroup
	for client := range clients {
		random := rand.New(rand.NewPCG(uint64(client), 7))
		known := map[string]*kv.KVPair{}
		wg.Go(func() {
			for i := range operations {
				c := call{op: []string{"get", "create", "swap", "swap", "remove", "put", "delete"}[random.IntN(7)], key: fmt.Sprint("k", random.IntN(3))}
				previous := known[c.key]
				if previous == nil && (c.op == "swap" || c.op == "remove") {
					c.op = "get"
				} else if previous != nil {
					c.previous = previous.Version
				}
				if c.op == "put" || c.op == "create" || c.op == "swap" {
					c.value = fmt.Sprint(client, "-", i)
				}
				called := since()
				a, pair, err := perform(t.Context(), stores[client%len(stores)], c, previous)
				returned := since()
				if err != nil {
					t.Errorf("%+v: %v", c, err)
					return
				}
				if pair != nil {
					known[c.key] = pair
				}
				mu.Lock()
				all = append(all, porcupine.Operation{ClientId: client, Input: c, Call: called, Output: a, Return: returned})
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return all
}

func TestHistoriesAreLinearizable(t *testing.T) {
	t.Parallel()
	for name, stores := range map[string]func(t *testing.T) []kv.Store{
		"memkv": func(*testing.T) []kv.Store { return []kv.Store{memkv.New()} },
		"sqlkv": func(t *testing.T) []kv.Store {
			file := filepath.Join(t.TempDir(), "kv.db")
			return []kv.Store{openFile(t, file), openFile(t, file)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for range 5 {
				require.Equal(t, porcupine.Ok, porcupine.CheckOperationsTimeout(model, history(t, stores(t)...), 10*time.Second))
			}
		})
	}
}
