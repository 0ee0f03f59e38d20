package dynamokv_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/dynamomem"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/dynamokv"
	"github.com/dynalock/dynalock/kv/kvtest"
)

// newMem makes a server with the table "table".
func newMem() *dynamomem.Server {
	server := dynamomem.New()
	server.CreateTable("table", "id", "name")
	return server
}

func memStore(t *testing.T, server *dynamomem.Server, options ...dynamokv.Option) (*dynamokv.Store, *dynamomem.Client) {
	t.Helper()
	client := server.Client()
	t.Cleanup(client.Wait) // also of a test that fails: a bubble must not be left with a request on its way
	s, err := dynamokv.New(client, "table", options...)
	require.NoError(t, err)
	dynamokv.SkipLayout(s) // its tests count requests
	return s, client
}

func TestContractInMemory(t *testing.T) {
	t.Parallel()
	server := newMem()
	open := func(t *testing.T) kv.Store {
		s, err := dynamokv.New(server.Client(), "table")
		require.NoError(t, err)
		return s
	}
	kvtest.Run(t, kvtest.Harness{
		Open:   open,
		Second: func(t *testing.T, _ kv.Store) kv.Store { return open(t) },
	})
}

func TestAMissingTableInMemory(t *testing.T) {
	t.Parallel()
	s, err := dynamokv.New(dynamomem.New().Client(), "table")
	require.NoError(t, err)
	require.ErrorIs(t, s.Put(t.Context(), "key"), dynamokv.ErrTableNotFound)
}

// steps is how many random operations a comparison of the server in memory with
// the emulator makes: n, or ten times as many with DYNALOCK_TEST_LONG=1, as CI
// does every night.
func steps(n int) int {
	if os.Getenv("DYNALOCK_TEST_LONG") != "" {
		return 10 * n
	}
	return n
}

// TestInMemoryAndEmulatorAgree sends the same operations to both, under one
// clock that only the test moves.
func TestInMemoryAndEmulatorAgree(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			clk := newMovedClock()
			want := &script{store: newRig(t, dynamokv.WithClock(clk)), random: rand.New(rand.NewPCG(seed, 1))}
			got := &script{store: newMemRig(t, dynamokv.WithClock(clk)), random: rand.New(rand.NewPCG(seed, 1))}
			for i := range steps(250) {
				clk.now = clk.now.Add(time.Second)
				require.Equal(t, want.step(t), got.step(t), "step %d", i)
			}
		})
	}
}

// movedClock has a wall clock that stands still. It is moved while nobody reads
// it. Its attempts are patient: a blind write that a slow machine answers late
// would be sent again, and count twice.
type movedClock struct {
	patientClock
	now time.Time
}

func newMovedClock() *movedClock {
	return &movedClock{patientClock{clock.System}, time.UnixMilli(1_800_000_000_000)}
}

func (c *movedClock) Now() clock.Reading {
	now := c.Clock.Now()
	now.Wall = c.now
	return now
}

// script is a random sequence of operations on one store.
type script struct {
	store  kv.Store
	random *rand.Rand
	pairs  []*kv.KVPair // what atomic operations go by
}

// step runs the next operation, and describes it and its result.
func (s *script) step(t *testing.T) string {
	ctx, r := t.Context(), s.random
	key := []string{"a", "a/1", "a/2", "b", "é"}[r.IntN(5)]
	options := s.options()
	previous := s.previous()
	switch op := r.IntN(8); op {
	case 0:
		return fmt.Sprintf("put %s: %s", key, outcome(s.store.Put(ctx, key, options...)))
	case 1:
		return fmt.Sprintf("delete %s: %s", key, outcome(s.store.Delete(ctx, key)))
	case 2, 3:
		p, err := s.store.AtomicPut(ctx, key, options...)
		return fmt.Sprintf("create %s: %s %s", key, s.pair(p), outcome(err))
	case 4:
		if previous == nil {
			return "nothing to swap"
		}
		p, err := s.store.AtomicPut(ctx, previous.Key, append(s.options(), kv.WithPrevious(previous))...)
		return fmt.Sprintf("swap %s: %s %s", previous.Key, s.pair(p), outcome(err))
	case 5:
		if previous == nil {
			return "nothing to delete"
		}
		return fmt.Sprintf("atomic delete %s: %s", previous.Key, outcome(s.store.AtomicDelete(ctx, previous.Key, previous)))
	case 6:
		p, err := s.store.Get(ctx, key)
		return fmt.Sprintf("get %s: %s %s", key, s.pair(p), outcome(err))
	default:
		return s.list(t)
	}
}

func (s *script) previous() *kv.KVPair {
	i := s.random.IntN(8)
	if i >= len(s.pairs) {
		return nil
	}
	return s.pairs[len(s.pairs)-1-i]
}

func (s *script) options() []kv.WriteOption {
	r := s.random
	options := []kv.WriteOption{kv.WithString(fmt.Sprint("value ", r.IntN(100)))}
	if r.IntN(3) == 0 {
		options = []kv.WriteOption{kv.WithBytes([]byte{0, byte(r.IntN(256))})}
	}
	if r.IntN(2) == 0 {
		options = append(options,
			kv.WithFields(kv.Fields{"n": r.IntN(1000) - 500, "f": r.Float64(), "s": "text", "b": []byte{1}}))
	}
	if r.IntN(2) == 0 {
		options = append(options, kv.WithTTL(time.Duration(1+r.IntN(20))*time.Second))
	}
	return options
}

// list lists by pages, and by List.
func (s *script) list(t *testing.T) string {
	prefix, limit := []string{"", "a", "a/", "z"}[s.random.IntN(4)], 1+s.random.IntN(3)
	options := []kv.ReadOption{}
	if s.random.IntN(2) == 0 {
		options = append(options, kv.Descending())
	}
	if s.random.IntN(2) == 0 {
		options = append(options, kv.WithoutValues())
	}
	all, err := s.store.List(t.Context(), prefix, options...)
	text := fmt.Sprintf("list %q: %s %s", prefix, s.pair(all...), outcome(err))
	for token := ""; ; {
		page, err := s.store.ListPage(t.Context(), prefix, append(options, kv.WithLimit(limit), kv.WithStartKey(token))...)
		if err != nil {
			return text + outcome(err)
		}
		text += fmt.Sprintf(" | %s %s", s.pair(page.Pairs...), page.Next)
		if token = page.Next; token == "" {
			return text
		}
	}
}

// pair describes pairs, and remembers them.
func (s *script) pair(pairs ...*kv.KVPair) string {
	text := ""
	for _, p := range pairs {
		if p == nil {
			text += "nil "
			continue
		}
		s.pairs = append(s.pairs, p)
		text += fmt.Sprintf("%s@%d=%q %v until %v ", p.Key, p.Version, p.Bytes(), p.Fields, p.Expires.UnixMilli())
	}
	return text
}

// outcome says which error it is, and which row was in the way.
func outcome(err error) string {
	var lost *kv.ConflictError
	if errors.As(err, &lost) {
		return fmt.Sprintf("conflict create=%t version=%d live=%t", lost.Create, lost.Version, lost.Current != nil)
	}
	return fmt.Sprint(err)
}
