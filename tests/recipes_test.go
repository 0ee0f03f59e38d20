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
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
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
)

// What a process of these tests needs to know: what to do, and where the store is,
// as sqlite:FILE or dynamodb:TABLE@ENDPOINT.
const (
	recipeMode  = "DYNALOCK_TEST_RECIPE"
	recipeStore = "DYNALOCK_TEST_RECIPE_STORE"
	// recipeCallers is how many goroutines of a process ask for values.
	recipeCallers = "DYNALOCK_TEST_RECIPE_CALLERS"
	// recipeTTL leaves attempts their full second where a dozen processes have one
	// busy machine between them.
	recipeTTL = 6 * time.Second
	// recipeRecovery is within which time what a dead process held is had again
	// (I5): the TTL and a sixteenth, a third of it between two looks at the
	// session, 3 % for the clocks; and twenty seconds for a busy machine.
	recipeRecovery = (recipeTTL+recipeTTL/16+recipeTTL/3)*103/100 + 20*time.Second
)

// recipesFor is for how long the recipes are tested under faults: 10 s, or a
// minute with DYNALOCK_TEST_LONG=1.
func recipesFor() time.Duration {
	if long() {
		return time.Minute
	}
	return 10 * time.Second
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

// recipeStores are those that the tests run on, each new.
func recipeStores(t *testing.T, test func(t *testing.T, where string)) {
	if testing.Short() {
		t.Skip("takes real time: left out by -short")
	}
	t.Run("sqlkv", func(t *testing.T) { test(t, "sqlite:"+filepath.Join(t.TempDir(), "recipes.db")) })
	t.Run("dynamokv", func(t *testing.T) {
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
	Epoch    uint64
	From, To time.Duration // machineTime; To is when it was last seen to be held
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

// recipeProcesses are those of one test, and what they have said.
type recipeProcesses struct {
	t    *testing.T
	env  []string
	all  []*recipeProcess
	mu   sync.Mutex
	said []recipeEvent
}

// recipeProcess is one of them; said is closed when all that it said is noted.
type recipeProcess struct {
	*exec.Cmd
	said chan struct{}
}

// startRecipes starts n processes that do what mode says, on the store at where.
func startRecipes(t *testing.T, n int, mode, where string, env ...string) *recipeProcesses {
	r := &recipeProcesses{t: t, env: append(env, recipeMode+"="+mode, recipeStore+"="+where)}
	for range n {
		r.all = append(r.all, r.start())
	}
	return r
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
	r.t.Cleanup(p.kill)
	return p
}

// kill ends a process, if it has not ended, and waits for what it said.
func (p *recipeProcess) kill() {
	if p.ProcessState != nil {
		return
	}
	_ = p.Process.Kill()
	<-p.said
	_ = p.Wait()
}

// storm kills a process and starts another in its place, and stops one for a
// while, by turns, every so often for d. It ends when all that were stopped go on.
func (r *recipeProcesses) storm(d, every time.Duration) (kills, stops int) {
	var stopped sync.WaitGroup
	defer stopped.Wait()
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(every/2 + rand.N(every))
		i := rand.IntN(len(r.all))
		if kills <= stops {
			r.all[i].kill()
			r.all[i] = r.start()
			kills++
			continue
		}
		p := r.all[i].Process
		require.NoError(r.t, p.Signal(syscall.SIGSTOP))
		stops++
		stopped.Go(func() {
			time.Sleep(recipeTTL/12 + rand.N(recipeTTL*3/2)) // often for longer than the TTL
			_ = p.Signal(syscall.SIGCONT)                    // it may have been killed
		})
	}
	return kills, stops
}

// recover waits until what began since it was called is enough, for no longer than
// I5 allows, and ends the processes.
func (r *recipeProcesses) recover(enough func(since []recipeEvent) bool) {
	began := machineTime()
	require.Eventually(r.t, func() bool {
		return enough(slices.DeleteFunc(r.lastSaid(), func(e recipeEvent) bool { return e.From <= began }))
	}, recipeRecovery, 200*time.Millisecond, "I5: it does not go on after the storm")
	for _, p := range r.all {
		p.kill()
	}
}

// lastSaid is what was said last of each hold, in the order of their begin. Who
// was stopped and then killed has not trusted it until then.
func (r *recipeProcesses) lastSaid() []recipeEvent {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := map[string]recipeEvent{}
	for _, e := range r.said {
		last[fmt.Sprint(e.PID, e.Key, e.Token)] = e
	}
	return slices.SortedFunc(maps.Values(last), func(a, b recipeEvent) int { return cmp.Compare(a.From, b.From) })
}
