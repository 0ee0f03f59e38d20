package kvtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
)

// Outcome is what an Operation's caller was told.
type Outcome int

// The three outcomes of S4. Reads are Applied.
const (
	Applied Outcome = iota + 1
	// Refused: a conflict. Nothing was written.
	Refused
	// Unknown: the write may take effect at any time after its call, or never.
	Unknown
)

// Never is when an operation of unknown outcome returns.
const Never = time.Duration(math.MaxInt64)

// Operation is one entry of a history: an operation on one key, and what its
// caller learned. It took effect, if at all, at one instant from Called to
// Returned; a history for which no choice of such instants explains everything
// that was seen is not linearizable.
type Operation struct {
	// Client numbers the goroutine. The operations of one follow each other.
	Client int
	// Op is the method, one of Get, List (of the key as the prefix), Put,
	// Delete, AtomicPut and AtomicDelete.
	Op  string
	Key string
	// Value is what was to be written. No two operations write the same.
	Value string
	// Previous is the version of the pair that an atomic operation depends on, 0: none (a create).
	Previous uint64
	// Called and Returned are instants of one monotonic clock. Returned is
	// Never if Outcome is Unknown.
	Called, Returned time.Duration
	Outcome          Outcome
	// Seen is the value of the pair that was returned by a read or an
	// AtomicPut, or that stood in the way; "" is none. Version is that pair's
	// or, of an Unknown write, the one that it gives if it is applied; 0 is
	// none or not told.
	Seen    string
	Version uint64
}

// Recording says how Record makes a history. Zero fields have defaults: 5
// clients, 60 operations of each, 3 keys.
type Recording struct {
	Seed                      uint64
	Clients, Operations, Keys int
	// Prefix begins the keys.
	Prefix string
	// Conditional leaves out Put and Delete, which take effect more than once
	// where requests are repeated (S3).
	Conditional bool
	// Ignore tells the errors of operations that had no effect and are to be
	// left out, such as a fault that the caller has injected into a read. nil:
	// none. Others than conflicts, unknown outcomes and these end the
	// recording.
	Ignore func(error) bool
}

// Record runs clients that do random things to a few keys, by turns on each of
// the stores, and returns what they did and saw in the order of the calls. What
// they do is determined by the seed and by what they see.
func Record(ctx context.Context, r Recording, stores ...kv.Store) ([]Operation, error) {
	r.Clients, r.Operations, r.Keys = cmp.Or(r.Clients, 5), cmp.Or(r.Operations, 60), cmp.Or(r.Keys, 3)
	start := clock.System.Now()
	histories, errs := make([][]Operation, r.Clients), make([]error, r.Clients)
	var wg sync.WaitGroup
	for n := range r.Clients {
		c := &client{
			Recording: r, number: n, store: stores[n%len(stores)], start: start,
			random: rand.New(rand.NewPCG(r.Seed, uint64(n))), known: make(map[string]*kv.KVPair),
		}
		wg.Go(func() { histories[n], errs[n] = c.run(ctx) })
	}
	wg.Wait()
	history := slices.Concat(histories...)
	slices.SortStableFunc(history, func(a, b Operation) int { return cmp.Compare(a.Called, b.Called) })
	return history, errors.Join(errs...)
}

// client is one goroutine of a recording.
type client struct {
	Recording
	number int
	store  kv.Store
	start  clock.Reading
	random *rand.Rand
	known  map[string]*kv.KVPair // what atomic operations depend on: the last pair seen, perhaps no more there
}

func (c *client) run(ctx context.Context) (history []Operation, err error) {
	for i := range c.Operations {
		op := c.next(i)
		op.Called = clock.System.Now().MonotonicSince(c.start)
		pair, err := c.perform(ctx, op)
		op.Returned = clock.System.Now().MonotonicSince(c.start)
		if op.learn(pair, err) {
			history = append(history, op)
		} else if c.Ignore == nil || !c.Ignore(err) {
			return history, fmt.Errorf("%s %q: %w", op.Op, op.Key, err)
		}
		if pair != nil {
			c.known[op.Key] = pair
		} else if conflict, ok := errors.AsType[*kv.ConflictError](err); ok && conflict.Current != nil {
			c.known[op.Key] = conflict.Current
		}
	}
	return history, nil
}

// next chooses the i-th operation.
func (c *client) next(i int) Operation {
	ops := []string{"Get", "List", "AtomicPut", "AtomicPut", "AtomicPut", "AtomicDelete", "Put", "Delete"}
	if c.Conditional {
		ops = ops[:6]
	}
	op := Operation{Client: c.number, Op: ops[c.random.IntN(len(ops))],
		Key: fmt.Sprint(c.Prefix, "k", c.random.IntN(c.Keys))}
	previous := c.known[op.Key]
	switch {
	case op.Op == "AtomicDelete" && previous == nil:
		op.Op = "Get"
	case op.Op == "AtomicDelete" || op.Op == "AtomicPut" && previous != nil && c.random.IntN(3) > 0:
		op.Previous = previous.Version
	}
	if op.Op == "Put" || op.Op == "AtomicPut" {
		op.Value = fmt.Sprint(c.number, "-", i)
	}
	return op
}

// perform runs op and returns the pair that it read or wrote.
func (c *client) perform(ctx context.Context, op Operation) (*kv.KVPair, error) {
	var previous *kv.KVPair
	if op.Previous > 0 {
		previous = c.known[op.Key]
	}
	switch op.Op {
	case "Put":
		return nil, c.store.Put(ctx, op.Key, kv.WithString(op.Value))
	case "Delete":
		return nil, c.store.Delete(ctx, op.Key)
	case "AtomicPut":
		return c.store.AtomicPut(ctx, op.Key, kv.WithString(op.Value), kv.WithPrevious(previous))
	case "AtomicDelete":
		return nil, c.store.AtomicDelete(ctx, op.Key, previous)
	case "List":
		pairs, err := c.store.List(ctx, op.Key)
		if len(pairs) == 0 {
			return nil, err
		}
		return pairs[0], err
	default:
		pair, err := c.store.Get(ctx, op.Key)
		if errors.Is(err, kv.ErrKeyNotFound) {
			return nil, nil
		}
		return pair, err
	}
}

// learn enters what the caller was told. It returns false for an error that is no outcome.
func (op *Operation) learn(pair *kv.KVPair, err error) bool {
	if conflict, ok := errors.AsType[*kv.ConflictError](err); ok {
		op.Outcome, pair = Refused, conflict.Current
	} else if unknown, ok := errors.AsType[*kv.UncertainError](err); ok {
		op.Outcome, op.Returned, op.Version = Unknown, Never, unknown.Version
		return true
	} else if err != nil {
		return false
	} else {
		op.Outcome = Applied
	}
	if pair != nil {
		op.Seen, op.Version = pair.String(), pair.Version
	}
	return true
}

var historyScenarios = []scenario{{"IsLinearizable", testHistory}}

func testHistory(t *testing.T, e *env) {
	if e.harness.CheckHistory == nil {
		t.Skip("kvtest: the harness has no CheckHistory")
	}
	for seed := range uint64(3) {
		history, err := Record(e.ctx, Recording{Seed: seed, Prefix: e.key(fmt.Sprint(seed, "/"))}, e.store, e.other)
		require.NoError(t, err)
		e.harness.CheckHistory(t, history)
	}
}
