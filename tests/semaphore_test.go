package tests_test

import (
	"context"
	crand "crypto/rand"
	"fmt"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/dynamolocal"
	"github.com/dynalock/dynalock/kv/dynamokv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

// permits are those of the semaphore.
const permits = 5

// holdPermits acquires permits until it is killed. It says again and again until
// when it has trusted one.
func holdPermits(ctx context.Context, client *lease.Client, say func(recipeEvent)) error {
	s := lock.NewSemaphore(client, "crawl", permits)
	for {
		l, err := s.Acquire(ctx)
		if err != nil {
			continue
		}
		e := recipeEvent{Key: l.Key(), Token: l.Token(), From: machineTime()}
		for end := time.Now().Add(time.Duration(100+rand.IntN(200)) * time.Millisecond); time.Now().Before(end); {
			at := machineTime()
			if !l.Held() {
				break
			}
			e.To = at
			say(e)
			time.Sleep(20 * time.Millisecond)
		}
		_ = l.Release(ctx)
	}
}

func TestSemaphoreOfProcesses(t *testing.T) {
	recipeStores(t, func(t *testing.T, where string) {
		r := startRecipes(t, 12, "semaphore", where)
		kills, stops := r.storm(recipesFor(), 1500*time.Millisecond)
		r.recover(func(since []recipeEvent) bool {
			again := map[string]bool{}
			for _, e := range since {
				again[e.Key] = true
			}
			return len(again) == permits
		})
		holds := r.lastSaid()
		violations, idle := checkPermits(holds)
		t.Logf("%d kills, %d stops, %d holds, a permit lay idle for %v at most", kills, stops, len(holds), idle)
		require.Empty(t, violations)
		require.Less(t, idle, recipeRecovery, "a permit was lost")
	})
}

// checkPermits returns what must not be among holds of permits, in the order of
// their begin, and for how long one of them lay idle at most.
func checkPermits(holds []recipeEvent) (violations []string, idle time.Duration) {
	last := map[string]recipeEvent{}
	for i, e := range holds {
		at := 1
		for _, other := range holds[:i] {
			if other.To >= e.From {
				at++
			}
		}
		if at > permits {
			violations = append(violations, fmt.Sprintf("%d trust permits at once: %+v", at, e))
		}
		if before, ok := last[e.Key]; ok {
			if before.To >= e.From {
				violations = append(violations, fmt.Sprintf("two trust one permit: %+v, %+v", before, e))
			}
			if before.Token >= e.Token {
				violations = append(violations, fmt.Sprintf("the token does not grow: %+v, %+v", before, e))
			}
			idle = max(idle, e.From-before.To)
		}
		last[e.Key] = e
	}
	return violations, idle
}

// The check's own test.
func TestCheckPermits(t *testing.T) {
	hold := func(key string, token uint64, from, to time.Duration) recipeEvent {
		return recipeEvent{Key: key, Token: token, From: from, To: to}
	}
	var five []recipeEvent
	for i := range permits {
		five = append(five, hold(fmt.Sprint(i), 1, 0, 10))
	}
	for want, next := range map[string]recipeEvent{
		"":                          hold("0", 2, 15, 20),
		"6 trust permits at once":   hold("5", 1, 5, 20),
		"two trust one permit":      hold("0", 2, 10, 20),
		"the token does not grow":   hold("0", 1, 15, 20),
		"the token does not grow: ": hold("0", 0, 15, 20),
	} {
		violations, idle := checkPermits(append(five[:permits:permits], next))
		if want == "" {
			require.Empty(t, violations)
			require.EqualValues(t, 5, idle)
			continue
		}
		require.Contains(t, fmt.Sprint(violations), want)
	}
}

// What a refused try at a full semaphore sends: one write and one listing.
func TestSemaphoreOnTheWire(t *testing.T) {
	endpoint, table := dynamolocal.Endpoint(t), "wire-"+crand.Text()
	require.NoError(t, dynamokv.EnsureTable(t.Context(), localClient(endpoint), table))
	count := &wire{}
	open := func(requests http.RoundTripper) *lock.Semaphore {
		store, err := openRecipeStore(t.Context(), "dynamodb:"+table+"@"+endpoint, requests)
		require.NoError(t, err)
		client, err := lease.New(store, lease.WithTTL(time.Hour)) // no heartbeat comes between
		require.NoError(t, err)
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_ = client.Close(ctx) // it holds permits
		})
		return lock.NewSemaphore(client, "s", permits)
	}
	theirs, mine := open(http.DefaultTransport), open(count)
	for range permits {
		_, err := theirs.Acquire(t.Context())
		require.NoError(t, err)
	}
	_, err := mine.TryAcquire(t.Context())
	require.ErrorIs(t, err, lease.ErrHeld)
	require.Equal(t, map[string]int{"PutItem": 2, "GetItem": 3, "Query": 1}, count.take(),
		"the first: the layout, its session, the number of permits and the holder's session besides")
	for range 10 {
		_, err := mine.TryAcquire(t.Context())
		require.ErrorIs(t, err, lease.ErrHeld)
		require.Equal(t, map[string]int{"PutItem": 1, "Query": 1}, count.take())
	}
}
