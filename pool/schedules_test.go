package pool_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/pool"
)

// Operators' calls on one partition, against each other, in every order of
// their calls of the store: what a call that returned nil promises was true
// when its last call of the store had been answered.

// rowState is what the row of partition "x" says.
type rowState struct{ there, removed, paused bool }

func (s rowState) String() string {
	if !s.there {
		return "absent"
	}
	return fmt.Sprintf("there, removed: %t, paused: %t", s.removed, s.paused)
}

func stateOf(store kv.Store) rowState {
	pair, err := store.Get(context.Background(), "lease/pool/p/x")
	if err != nil {
		return rowState{}
	}
	var row struct{ Note []byte }
	var note struct{ Removed, Paused bool }
	if err := json.Unmarshal(pair.Bytes(), &row); err != nil {
		panic(err)
	}
	if len(row.Note) > 0 {
		if err := json.Unmarshal(row.Note, &note); err != nil {
			panic(err)
		}
	}
	return rowState{true, note.Removed, note.Paused}
}

// poolCall is one operator's call, and the state that it brings about.
type poolCall struct {
	name    string
	call    func(context.Context, *pool.Pool) error
	brought func(rowState) bool
}

var (
	addX = poolCall{
		"Add", func(ctx context.Context, p *pool.Pool) error { return p.Add(ctx, "x") },
		func(s rowState) bool { return s.there && !s.removed },
	}
	syncX = poolCall{
		"Sync", func(ctx context.Context, p *pool.Pool) error { return p.Sync(ctx, "x") },
		func(s rowState) bool { return s.there && !s.removed },
	}
	syncNone = poolCall{
		"Sync of none", func(ctx context.Context, p *pool.Pool) error { return p.Sync(ctx) },
		func(s rowState) bool { return !s.there },
	}
	removeX = poolCall{
		"Remove", func(ctx context.Context, p *pool.Pool) error { return p.Remove(ctx, "x") },
		func(s rowState) bool { return !s.there },
	}
	pauseX = poolCall{
		"Pause", func(ctx context.Context, p *pool.Pool) error { return p.Pause(ctx, "x") },
		func(s rowState) bool { return !s.there || s.paused },
	}
	resumeX = poolCall{
		"Resume", func(ctx context.Context, p *pool.Pool) error { return p.Resume(ctx, "x") },
		func(s rowState) bool { return !s.there || !s.paused },
	}
)

// caller is one call under way.
type caller struct {
	poolCall
	mu      sync.Mutex
	waiting bool // at the gate, before a call of the store
	write   bool // which is a write
	pass    chan string
	err     error
	// left is the state that its last call of the store left.
	left rowState
}

// hook lets each call of the store wait for its turn, and lose its request or
// its answer.
func (c *caller) hook(ctx context.Context, call kv.Call, next func(context.Context) error) error {
	c.mu.Lock()
	c.waiting, c.write = true, call.Op == "AtomicPut" || call.Op == "AtomicDelete"
	c.mu.Unlock()
	switch <-c.pass {
	case "request lost":
		return &kv.UncertainError{Key: call.Key, Err: errLost}
	case "answer lost":
		_ = next(ctx)
		return &kv.UncertainError{Key: call.Key, Err: errLost}
	default:
		return next(ctx)
	}
}

// chooser makes the choices of one schedule: those it was given, then the
// first each time.
type chooser struct{ given, chosen, Of []int }

func (c *chooser) choose(n int) int {
	i := 0
	if len(c.chosen) < len(c.given) {
		i = c.given[len(c.chosen)] % n
	}
	c.chosen, c.Of = append(c.chosen, i), append(c.Of, n)
	return i
}

// next returns the choices of the next schedule, nil if there is none.
func (c *chooser) next() []int {
	for i := len(c.chosen) - 1; i >= 0; i-- {
		if c.chosen[i]+1 < c.Of[i] {
			return append(c.chosen[:i:i], c.chosen[i]+1)
		}
	}
	return nil
}

// runSchedule runs the calls, one call of the store after the other, and
// returns what went wrong, nil if nothing did. Up to faults writes lose their
// request or answer.
func runSchedule(t *testing.T, prepare func(*memkv.Store), calls []poolCall, faults int, choose func(n int) int) error {
	store := memkv.New()
	tool := func(s kv.Store) *pool.Pool {
		c, err := lease.New(s)
		require.NoError(t, err)
		p, err := pool.New(c, "p", nil)
		require.NoError(t, err)
		return p
	}
	prepare(store)
	states := []rowState{stateOf(store)}
	var log []string
	callers := make([]*caller, len(calls))
	for i, call := range calls {
		c := &caller{poolCall: call, pass: make(chan string)}
		callers[i] = c
		p := tool(kv.Instrument(store, c.hook))
		go func() {
			err := c.call(context.Background(), p)
			c.mu.Lock()
			defer c.mu.Unlock()
			c.err = err
		}()
	}
	for {
		time.Sleep(time.Minute) // longer than any pause: who goes on is at the gate
		synctest.Wait()
		var turns []*caller
		for _, c := range callers {
			c.mu.Lock()
			if c.waiting {
				turns = append(turns, c)
			}
			c.mu.Unlock()
		}
		if len(turns) == 0 {
			break
		}
		require.Less(t, len(log), 200, "the calls do not end")
		c := turns[choose(len(turns))]
		how := "sent"
		if c.write && faults > 0 {
			how = []string{"sent", "request lost", "answer lost"}[choose(3)]
		}
		if how != "sent" {
			faults--
		}
		c.mu.Lock()
		c.waiting = false
		c.mu.Unlock()
		c.pass <- how
		synctest.Wait()
		c.left = stateOf(store)
		states = append(states, c.left)
		log = append(log, fmt.Sprintf("%s, %s -> %v", c.name, how, c.left))
	}
	return judge(states, callers, log)
}

// judge looks for a promise that was not kept.
func judge(states []rowState, callers []*caller, log []string) error {
	for i, s := range states[1:] {
		if before := states[i]; before.there && !before.removed && !s.there {
			return fmt.Errorf("deleted although it was not to be removed: %q", log)
		}
	}
	for _, c := range callers {
		if c.err == nil && !c.brought(c.left) {
			return fmt.Errorf("%s is nil and not true: %q", c.name, log)
		}
		mayFail := c.name == "Remove" || c.name == "Pause" || c.name == "Sync of none"
		if c.err != nil && (!mayFail || !errors.Is(c.err, lease.ErrHeld)) {
			return fmt.Errorf("%s fails: %w\n%q", c.name, c.err, log)
		}
	}
	return nil
}

// partitionRow is the row of a partition that nobody has, with marks such as
// `,"done":true,"weight":5`. That it is done is in its value, the rest in its
// note.
func partitionRow(marks string) string {
	const done = `,"done":true`
	head := `{"f":1`
	if strings.Contains(marks, done) {
		head += done
	}
	row := map[string]any{"f": 2, "keep": true, "value": []byte(head + "}\n")}
	if marks = strings.Replace(marks, done, "", 1); marks != "" {
		row["note"] = []byte(`{"f":1` + marks + `}`)
	}
	text, err := json.Marshal(row)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// addMarked adds a partition to the pool, with marks as they stand in its row.
func (w *world) addMarked(name, marks string) {
	w.t.Helper()
	row := partitionRow(marks)
	_, err := w.store.AtomicPut(context.Background(), "lease/pool/p/"+name, kv.WithString(row))
	require.NoError(w.t, err)
}

// All orders of two calls, with a lost request or answer at any place; of three,
// 200 by lot, and all every night.
func TestPoolCallsThatReturnNilHaveDoneWhatTheySayInEveryOrder(t *testing.T) {
	t.Parallel()
	absent := func(*memkv.Store) {}
	row := func(mark string) func(*memkv.Store) {
		return func(s *memkv.Store) {
			w := &world{t: t, store: s}
			w.addMarked("x", mark)
		}
	}
	there, removed, paused := row(""), row(`,"removed":true`), row(`,"paused":true`)
	for _, test := range []struct {
		name    string
		prepare func(*memkv.Store)
		faults  int
		calls   []poolCall
	}{
		{"added and removed", there, 1, []poolCall{addX, removeX}},
		{"added while absent", absent, 2, []poolCall{addX, addX}},
		{"absent, added and removed", absent, 1, []poolCall{addX, removeX}},
		{"added while being removed", removed, 1, []poolCall{addX, removeX}},
		{"synced while being removed", removed, 1, []poolCall{syncX, removeX}},
		{"two syncs", there, 1, []poolCall{syncX, syncNone}},
		{"paused and resumed", there, 1, []poolCall{pauseX, resumeX}},
		{"paused, resumed and paused", paused, 0, []poolCall{pauseX, resumeX, pauseX}},
		{"paused, removed and added", removed, 0, []poolCall{pauseX, removeX, addX}},
		{"added and removed twice", removed, 0, []poolCall{addX, removeX, removeX}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				if len(test.calls) > 2 && !long() {
					for seed := range uint64(200) {
						random := rand.New(rand.NewPCG(seed, 0))
						require.NoError(t, runSchedule(t, test.prepare, test.calls, test.faults, random.IntN), "seed %d", seed)
					}
					return
				}
				n := 0
				for choices := []int{}; choices != nil; n++ {
					c := &chooser{given: choices}
					require.NoError(t, runSchedule(t, test.prepare, test.calls, test.faults, c.choose), "schedule %v", c.chosen)
					choices = c.next()
				}
				t.Logf("%d schedules", n)
			})
		})
	}
}
