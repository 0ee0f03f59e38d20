package tests_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

// subsets are what the goroutines of TestMultiOfRandomSubsets share.
type subsets struct {
	t     *testing.T
	names []string
	users []atomic.Int32 // of each name
	// How often all were locked, somebody else had one of them, and something
	// went wrong.
	rounds, refused, failed atomic.Int32

	mu      sync.Mutex
	longest time.Duration // that a lock has taken
}

// lock locks up to eight of the names once.
func (s *subsets) lock(client *lease.Client) {
	subset := rand.Perm(len(s.names))[:1+rand.IntN(8)]
	var names []string
	for _, i := range subset {
		names = append(names, s.names[i])
	}
	m := lock.NewMulti(client, names)
	do := m.Do
	if rand.IntN(2) == 0 {
		do = m.TryDo
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	began := time.Now()
	defer func() {
		s.mu.Lock()
		s.longest = max(s.longest, time.Since(began))
		s.mu.Unlock()
	}()
	err := do(ctx, func(_ context.Context, l *lock.MultiLease) error {
		s.use(subset, l)
		return nil
	})
	switch {
	case ctx.Err() != nil:
		s.t.Errorf("a deadlock: %v were not locked within a minute: %v", names, err)
	case errors.Is(err, lease.ErrHeld):
		s.refused.Add(1)
	case err != nil:
		s.failed.Add(1)
	}
}

// use requires that all names are locked and that nobody else uses them.
func (s *subsets) use(subset []int, l *lock.MultiLease) {
	if len(l.Tokens()) != len(subset) {
		s.t.Errorf("%d of %d names are locked", len(l.Tokens()), len(subset))
	}
	for _, i := range subset {
		if s.users[i].Add(1) != 1 && l.Held() {
			s.t.Errorf("%s has two users", s.names[i])
		}
	}
	time.Sleep(rand.N(10 * time.Millisecond))
	for _, i := range subset {
		s.users[i].Add(-1)
	}
	s.rounds.Add(1)
}

// Eight goroutines of three clients lock random subsets of 50 names, while answers
// and requests are lost: no deadlock, and all or none.
func TestMultiOfRandomSubsets(t *testing.T) {
	recipeStores(t, func(t *testing.T, where string) {
		s := &subsets{t: t, users: make([]atomic.Int32, 50)}
		for i := range s.users {
			s.names = append(s.names, fmt.Sprintf("name-%02d", i))
		}
		var clients []*lease.Client
		for range 3 {
			store, err := openRecipeStore(t.Context(), where, http.DefaultTransport)
			require.NoError(t, err)
			c, err := lease.New(losing(store, 200), lease.WithTTL(recipeTTL))
			require.NoError(t, err)
			clients = append(clients, c)
			t.Cleanup(func() {
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				_ = c.Close(ctx) // answers are lost
			})
		}
		var all sync.WaitGroup
		end := time.Now().Add(recipesFor())
		for g := range 8 {
			all.Go(func() {
				for time.Now().Before(end) {
					s.lock(clients[g%3])
				}
			})
		}
		all.Wait()
		t.Logf("%d rounds, %d refused, %d failed, the longest of %v",
			s.rounds.Load(), s.refused.Load(), s.failed.Load(), s.longest)
		require.Positive(t, s.rounds.Load())
		requireNothingHeld(t, where)
	})
}

// requireNothingHeld requires that all that was locked is given back, by clients
// that are still open.
func requireNothingHeld(t *testing.T, where string) {
	t.Helper()
	store, err := openRecipeStore(t.Context(), where, http.DefaultTransport)
	require.NoError(t, err)
	observer, err := lease.New(store)
	require.NoError(t, err)
	defer func() { require.NoError(t, observer.Close(t.Context())) }()
	require.Eventually(t, func() bool {
		for range observer.Holders(t.Context(), "") {
			return false
		}
		return true
	}, time.Minute, time.Second, "names stay locked")
}
