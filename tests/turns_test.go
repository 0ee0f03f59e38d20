package tests_test

import (
	"context"
	crand "crypto/rand"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/dynamolocal"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/dynamokv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
)

// turnsFor is how long two clients compete: ten seconds, or what
// DYNALOCK_TEST_TURNS says.
func turnsFor(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("DYNALOCK_TEST_TURNS")
	if text == "" {
		return 10 * time.Second
	}
	d, err := time.ParseDuration(text)
	require.NoError(t, err)
	return d
}

// takeTurns has each client acquire one key, hold it and release it, again
// and again without a pause, and returns how often each has had it and the
// longest wait.
func takeTurns(t *testing.T, clients []*lease.Client, hold, lasts time.Duration) (turns []int, longest time.Duration) {
	t.Helper()
	turns = make([]int, len(clients))
	ctx, cancel := context.WithTimeout(t.Context(), lasts)
	defer cancel()
	waits := make([]time.Duration, len(clients))
	var group sync.WaitGroup
	for i, c := range clients {
		group.Go(func() {
			for {
				asked := time.Now()
				l, err := c.Acquire(ctx, "turns")
				waits[i] = max(waits[i], time.Since(asked))
				if err != nil {
					return
				}
				turns[i]++
				time.Sleep(hold)
				if err := l.Release(ctx); err != nil {
					t.Errorf("releasing: %v", err)
				}
			}
		})
	}
	group.Wait()
	for _, wait := range waits {
		longest = max(longest, wait)
	}
	return turns, longest
}

// eachTurnsStore calls test with clients of one store after another. The name tells the
// tests' keys apart.
func eachTurnsStore(
	t *testing.T, name string, count int, options []lease.Option, test func(t *testing.T, clients []*lease.Client),
) {
	t.Helper()
	file, memory, table := filepath.Join(t.TempDir(), "turns.db"), memkv.New(), turnsTable+name
	for store, open := range map[string]func(t *testing.T) kv.Store{
		"memkv": func(*testing.T) kv.Store { return memory },
		"sqlkv": func(t *testing.T) kv.Store { return openFile(t, file) },
		"dynamokv": func(t *testing.T) kv.Store {
			client := localClient(dynamolocal.Endpoint(t))
			require.NoError(t, dynamokv.EnsureTable(t.Context(), client, table))
			store, err := dynamokv.New(client, table)
			require.NoError(t, err)
			return store
		},
		"pgkv": func(t *testing.T) kv.Store { return openPg(t, sharedPostgres(t), table) },
	} {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			clients := make([]*lease.Client, count)
			for i := range clients {
				c, err := lease.New(open(t), options...)
				require.NoError(t, err)
				t.Cleanup(func() {
					ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
					defer cancel()
					require.NoError(t, c.Close(ctx))
				})
				clients[i] = c
			}
			test(t, clients)
		})
	}
}

// Two clients that lock, work and unlock in a loop both get on.
func TestTwoClientsInALoopShareAKey(t *testing.T) {
	if testing.Short() {
		t.Skip("takes real time: left out by -short")
	}
	t.Parallel()
	eachTurnsStore(t, "two", 2, nil, func(t *testing.T, clients []*lease.Client) {
		turns, longest := takeTurns(t, clients, 200*time.Millisecond, turnsFor(t))
		t.Logf("turns %v, longest wait %v", turns, longest)
		for i, n := range turns {
			require.Greater(t, 5*n, turns[0]+turns[1], "client %d of %v", i, turns)
		}
	})
}

// Six clients that want a key all the time, and queue up for it at once, have it one
// after the other (R20). Each begins its next wait when its turn is over, so that
// after the first round nobody can be two turns ahead.
func TestR20SixClientsInALoopHaveEqualTurns(t *testing.T) {
	if testing.Short() {
		t.Skip("takes real time: left out by -short")
	}
	t.Parallel()
	queueUp := []lease.Option{lease.WithTurnAfter(0)}
	eachTurnsStore(t, "six", 6, queueUp, func(t *testing.T, clients []*lease.Client) {
		turns, longest := takeTurns(t, clients, 100*time.Millisecond, turnsFor(t))
		t.Logf("turns %v, longest wait %v", turns, longest)
		require.Positive(t, slices.Min(turns), "turns %v", turns)
		require.LessOrEqual(t, slices.Max(turns)-slices.Min(turns), 2+slices.Min(turns)/2, "turns %v", turns)
	})
}

// turnsTable is the table, or namespace, that both clients of the test have.
var turnsTable = "turns-" + crand.Text()
