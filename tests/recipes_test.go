package tests_test

import (
	"bufio"
	"cmp"
	"context"
	crand "crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/dynamolocal"
	"github.com/dynalock/dynalock/internal/proctest"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/dynamokv"
	"github.com/dynalock/dynalock/kv/sqlkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

// What a process of these tests needs to know: what to do, and where the store is,
// as sqlite:FILE or dynamodb:TABLE@ENDPOINT.
const (
	recipeMode  = "DYNALOCK_TEST_RECIPE"
	recipeStore = "DYNALOCK_TEST_RECIPE_STORE"
	// recipeTTL leaves attempts their full second where a dozen processes have one
	// busy machine between them.
	recipeTTL = 6 * time.Second
	// permits are those of the semaphore.
	permits = 5
)

// recipesFor is for how long the recipes are tested under faults: 10 s, or what
// DYNALOCK_TEST_RECIPES says.
func recipesFor(t *testing.T) time.Duration {
	t.Helper()
	text := cmp.Or(os.Getenv("DYNALOCK_TEST_RECIPES"), "10s")
	d, err := time.ParseDuration(text)
	require.NoError(t, err)
	return d
}

// wire counts the requests to DynamoDB, by what they ask for.
type wire struct {
	mu   sync.Mutex
	sent map[string]int
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	_, what, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	w.mu.Lock()
	if w.sent == nil {
		w.sent = map[string]int{}
	}
	w.sent[what]++
	w.mu.Unlock()
	return http.DefaultTransport.RoundTrip(r)
}

func (w *wire) take() map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	sent := w.sent
	w.sent = nil
	return sent
}

// openRecipeStore opens the store at where. It stays open until the process ends.
func openRecipeStore(ctx context.Context, where string, requests http.RoundTripper) (kv.Store, error) {
	if file, ok := strings.CutPrefix(where, "sqlite:"); ok {
		db, err := sql.Open("sqlite", file)
		if err != nil {
			return nil, err
		}
		return sqlkv.Open(ctx, db)
	}
	table, endpoint, _ := strings.Cut(strings.TrimPrefix(where, "dynamodb:"), "@")
	options := localClient(endpoint).Options()
	options.HTTPClient = &http.Client{Transport: requests}
	return dynamokv.New(dynamodb.New(options), table)
}

// recipeStores are those that the tests run on, each new, both at once. The
// tests come one after the other: each has a dozen processes.
func recipeStores(t *testing.T, test func(t *testing.T, where string)) {
	if testing.Short() {
		t.Skip("takes real time: left out by -short")
	}
	t.Run("sqlkv", func(t *testing.T) {
		t.Parallel()
		test(t, "sqlite:"+filepath.Join(t.TempDir(), "recipes.db"))
	})
	t.Run("dynamokv", func(t *testing.T) {
		t.Parallel()
		endpoint, table := dynamolocal.Endpoint(t), "recipes-"+crand.Text()
		require.NoError(t, dynamokv.EnsureTable(t.Context(), localClient(endpoint), table))
		test(t, "dynamodb:"+table+"@"+endpoint)
	})
}

// losing loses one answer in n of conditional writes, and one request in n.
func losing(store kv.Store, n int) kv.Store {
	return kv.Instrument(store, func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
		lost := &kv.UncertainError{Key: call.Key, Err: errors.New("lost")}
		write := call.Op == "AtomicPut" || call.Op == "AtomicDelete"
		if write && rand.IntN(n) == 0 {
			return lost
		}
		err := next(ctx)
		if write && err == nil && rand.IntN(n) == 0 {
			return lost
		}
		return err
	})
}

// recipeEvent is what a process says.
type recipeEvent struct {
	PID      int
	Key      string
	Token    uint64
	From, To time.Duration // machineTime; To is when it was last seen to be held
	Ended    bool          // false: it is held from now on
	Value    string
	Computed bool
	Acts     []uint64 // places in the order of what the resource has served
}

// TestRecipeProcess is no test: it is a process of the tests below.
func TestRecipeProcess(t *testing.T) {
	modes := map[string]func(context.Context, *lease.Client, func(recipeEvent)) error{
		"semaphore": holdPermits, "once": askForValues, "rwmutex": share,
	}
	mode, ok := modes[os.Getenv(recipeMode)]
	if !ok {
		t.Skip("not started by one of the tests of recipes")
	}
	store, err := openRecipeStore(t.Context(), os.Getenv(recipeStore), http.DefaultTransport)
	require.NoError(t, err)
	ttl := recipeTTL
	if os.Getenv(recipeMode) == "once" {
		store = losing(store, 25)
		ttl = 5 * time.Minute // nobody dies, and a busy machine must not abandon a slot
	}
	client, err := lease.New(store, lease.WithTTL(ttl))
	require.NoError(t, err)
	var mu sync.Mutex
	events := json.NewEncoder(os.Stdout)
	err = mode(t.Context(), client, func(e recipeEvent) {
		mu.Lock()
		defer mu.Unlock()
		e.PID = os.Getpid()
		_ = events.Encode(e) // the parent is gone: nothing matters any more
	})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_ = client.Close(ctx) // answers are lost
}

// holdPermits acquires permits until it is killed.
func holdPermits(ctx context.Context, client *lease.Client, say func(recipeEvent)) error {
	s := lock.NewSemaphore(client, "crawl", permits)
	for {
		l, err := s.Acquire(ctx)
		if err != nil {
			continue
		}
		e := recipeEvent{Key: l.Key(), Token: l.Token(), From: machineTime()}
		e.To = e.From
		say(e)
		for end := time.Now().Add(time.Duration(100+rand.IntN(200)) * time.Millisecond); time.Now().Before(end); {
			at := machineTime()
			if !l.Held() {
				break
			}
			e.To = at
			time.Sleep(5 * time.Millisecond)
		}
		e.Ended = true
		say(e)
		_ = l.Release(ctx)
	}
}

// values are those of askForValues.
const values = 10

// askForValues asks for all values, five callers at a time.
func askForValues(ctx context.Context, client *lease.Client, say func(recipeEvent)) error {
	once := lock.NewOnce(client, "webhook", lock.Wait())
	var callers sync.WaitGroup
	errs := make([]error, 5)
	for caller := range errs {
		callers.Go(func() {
			for _, i := range rand.Perm(values) {
				id := fmt.Sprint("id-", i)
				for {
					value, err := lock.OnceValue(ctx, once, id, func(context.Context, *lease.Lease) (string, error) {
						value := crand.Text()
						say(recipeEvent{Key: id, Value: value, Computed: true})
						return value, nil
					})
					if value != "" {
						say(recipeEvent{Key: id, Value: value})
					}
					if errors.Is(err, lock.ErrAbandoned) || errors.Is(err, lock.ErrFailed) {
						errs[caller] = err // it will not change any more
						return
					}
					if err == nil {
						break
					}
				}
			}
		})
	}
	callers.Wait()
	return errors.Join(errs...)
}

// recipeProcesses are those of one test, and what they have said.
type recipeProcesses struct {
	t    *testing.T
	env  []string
	mu   sync.Mutex
	said []recipeEvent
	died map[int]time.Duration // killed at, by pid
}

// process is one of them; said is closed when all that it said is noted.
type recipeProcess struct {
	*exec.Cmd
	said chan struct{}
}

func (r *recipeProcesses) start() *recipeProcess {
	cmd := exec.CommandContext(r.t.Context(), os.Args[0], "-test.run=^TestRecipeProcess$")
	cmd.Env = append(os.Environ(), r.env...)
	out, _, err := proctest.Pipe(r.t, cmd, "recipe")
	require.NoError(r.t, err)
	require.NoError(r.t, cmd.Start())
	p := &recipeProcess{Cmd: cmd, said: make(chan struct{})}
	go func() {
		defer close(p.said)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var e recipeEvent
			if json.Unmarshal(lines.Bytes(), &e) == nil {
				r.mu.Lock()
				r.said = append(r.said, e)
				r.mu.Unlock()
			}
		}
	}()
	r.t.Cleanup(func() { r.kill(p) })
	return p
}

// kill ends a process, if it has not ended, and waits for what it said.
func (r *recipeProcesses) kill(p *recipeProcess) {
	if p.ProcessState != nil {
		return
	}
	_ = p.Process.Kill()
	<-p.said
	_ = p.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.died[p.Process.Pid] = machineTime()
}

// storm kills some of the processes and stops others, with pauses of shortest
// to four times as long. It returns when those that it stopped have gone on.
func (r *recipeProcesses) storm(all []*recipeProcess, shortest time.Duration) {
	kills, stops := 0, 0
	var stopped sync.WaitGroup
	for end := time.Now().Add(recipesFor(r.t)); time.Now().Before(end); {
		time.Sleep(shortest + rand.N(3*shortest))
		i := rand.IntN(len(all))
		if rand.IntN(2) == 0 {
			r.kill(all[i])
			all[i] = r.start()
			kills++
			continue
		}
		p := all[i].Process
		if p.Signal(syscall.SIGSTOP) == nil {
			stops++
			pause := 500*time.Millisecond + rand.N(2*time.Second)
			if rand.IntN(2) == 0 {
				pause += recipeTTL * 3 / 2 // others have what it held
			}
			stopped.Go(func() {
				time.Sleep(pause)
				_ = p.Signal(syscall.SIGCONT)
			})
		}
	}
	stopped.Wait()
	r.t.Logf("%d kills, %d stops", kills, stops)
}

// requireGoesOn requires that what the dead had passes on: that there are enough
// holds that began after now, by key. A busy machine has a minute.
func (r *recipeProcesses) requireGoesOn(enough func(holds map[string]int) bool) {
	r.t.Helper()
	since := machineTime()
	var holds map[string]int
	require.Eventually(r.t, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		holds = map[string]int{}
		for _, e := range r.said {
			if e.Ended && e.From > since {
				holds[e.Key]++
			}
		}
		return enough(holds)
	}, time.Minute, 100*time.Millisecond, "it goes on at the end: %v", &holds)
}

func TestSemaphoreOfProcesses(t *testing.T) {
	recipeStores(t, func(t *testing.T, where string) {
		r := &recipeProcesses{
			t: t, env: []string{recipeMode + "=semaphore", recipeStore + "=" + where}, died: map[int]time.Duration{},
		}
		var all []*recipeProcess
		for range 12 {
			all = append(all, r.start())
		}
		r.storm(all, 500*time.Millisecond)
		r.requireGoesOn(func(holds map[string]int) bool { return len(holds) == permits })
		for _, p := range all {
			r.kill(p)
		}
		holds := r.holds()
		t.Logf("%d holds", len(holds))
		requireSemaphore(t, holds)
	})
}

// holds are the times in which a permit was trusted, in the order of their begin.
// The trust of one who was killed ends with him.
func (r *recipeProcesses) holds() []recipeEvent {
	r.mu.Lock()
	defer r.mu.Unlock()
	byToken := map[string]recipeEvent{}
	for _, e := range r.said {
		id := fmt.Sprint(e.PID, e.Key, e.Token)
		if _, ok := byToken[id]; !ok && !e.Ended {
			if at, ok := r.died[e.PID]; ok {
				e.To = at
			}
		}
		byToken[id] = e
	}
	var holds []recipeEvent
	for _, e := range byToken {
		holds = append(holds, e)
	}
	slices.SortFunc(holds, func(a, b recipeEvent) int { return cmp.Compare(a.From, b.From) })
	return holds
}

// idleAtMost is how long nobody may have what its holder lost: what I5 allows,
// with twenty seconds for a busy machine.
const idleAtMost = recipeTTL*(16+16/3+1)/16*103/100 + 20*time.Second

// requireSemaphore requires that never more than so many trusted a permit at once,
// that tokens of each key grow, and that no permit was lost for long.
func requireSemaphore(t *testing.T, holds []recipeEvent) {
	t.Helper()
	require.NotEmpty(t, holds)
	last := map[string]recipeEvent{}
	longest := time.Duration(0) // that a permit lay idle, while seven waited
	for i, e := range holds {
		at := 1
		for _, other := range holds[:i] {
			if other.To >= e.From {
				at++
			}
		}
		require.LessOrEqual(t, at, permits, "%d trusted permits at once", at)
		before, ok := last[e.Key]
		if ok {
			require.Greater(t, e.Token, before.Token, "tokens of %s", e.Key)
			require.Less(t, before.To, e.From, "two trusted %s", e.Key)
			longest = max(longest, e.From-before.To)
		}
		last[e.Key] = e
	}
	require.Len(t, last, permits, "every permit was used")
	t.Logf("a permit lay idle for %v at most", longest)
	require.Less(t, longest, idleAtMost, "a permit was lost")
}

func TestOnceValueOfProcesses(t *testing.T) {
	recipeStores(t, func(t *testing.T, where string) {
		r := &recipeProcesses{
			t: t, env: []string{recipeMode + "=once", recipeStore + "=" + where}, died: map[int]time.Duration{},
		}
		var all []*recipeProcess
		for range 10 { // of five callers each
			all = append(all, r.start())
		}
		for _, p := range all {
			<-p.said
			require.NoError(t, p.Wait())
		}
		of, computed, told := map[string]string{}, map[string]int{}, 0
		for _, e := range r.said {
			if e.Computed {
				computed[e.Key]++
			}
			require.Equal(t, cmp.Or(of[e.Key], e.Value), e.Value, e.Key)
			of[e.Key] = e.Value
			told++
		}
		require.Len(t, computed, values)
		for id, n := range computed {
			require.Equal(t, 1, n, id)
		}
		require.GreaterOrEqual(t, told, values+50*values, "every caller was told every value")
	})
}

// Eight goroutines of three clients lock random subsets of 50 names, while answers
// and requests are lost: no deadlock, and all or none.
func TestMultiOfRandomSubsets(t *testing.T) {
	recipeStores(t, func(t *testing.T, where string) {
		names := make([]string, 50)
		for i := range names {
			names[i] = fmt.Sprintf("name-%02d", i)
		}
		var clients []*lease.Client
		for range 3 {
			store, err := openRecipeStore(t.Context(), where, http.DefaultTransport)
			require.NoError(t, err)
			c, err := lease.New(losing(store, 200), lease.WithTTL(recipeTTL))
			require.NoError(t, err)
			clients = append(clients, c)
		}
		var users [50]atomic.Int32
		var rounds, refused, failed atomic.Int32
		end := time.Now().Add(recipesFor(t))
		ctx, cancel := context.WithDeadline(t.Context(), end.Add(time.Minute)) // on a busy machine
		defer cancel()
		var group sync.WaitGroup
		for g := range 8 {
			group.Go(func() {
				for time.Now().Before(end) || rounds.Load() <= 20 && ctx.Err() == nil {
					subset := rand.Perm(50)[:1+rand.IntN(8)]
					var mine []string
					for _, i := range subset {
						mine = append(mine, names[i])
					}
					m := lock.NewMulti(clients[g%3], mine)
					work := func(_ context.Context, l *lock.MultiLease) error {
						for _, i := range subset {
							if users[i].Add(1) != 1 && l.Held() {
								t.Errorf("%s has two users", names[i])
							}
						}
						time.Sleep(rand.N(10 * time.Millisecond))
						for _, i := range subset {
							users[i].Add(-1)
						}
						rounds.Add(1)
						return nil
					}
					do := m.Do
					if rand.IntN(2) == 0 {
						do = m.TryDo
					}
					switch err := do(ctx, work); {
					case errors.Is(err, lease.ErrHeld):
						refused.Add(1)
					case err != nil:
						failed.Add(1)
					}
				}
			})
		}
		group.Wait()
		t.Logf("%d rounds, %d refused, %d failed", rounds.Load(), refused.Load(), failed.Load())
		require.Greater(t, rounds.Load(), int32(20), "a deadlock")
		for _, c := range clients {
			closing, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			_ = c.Close(closing) // answers are lost
		}
		store, err := openRecipeStore(t.Context(), where, http.DefaultTransport)
		require.NoError(t, err)
		c, err := lease.New(store, lease.WithTTL(recipeTTL))
		require.NoError(t, err)
		defer func() { require.NoError(t, c.Close(t.Context())) }()
		all, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.NoError(t, lock.NewMulti(c, names).Do(all, func(context.Context, *lock.MultiLease) error { return nil }),
			"all are free at last")
	})
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
