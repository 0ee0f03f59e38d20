package tests_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	crand "crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
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
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/dynamokv"
	"github.com/dynalock/dynalock/kv/pgkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/pool"
)

// What a member of the pool in a process of its own needs to know.
const (
	poolTable    = "DYNALOCK_TEST_POOL_TABLE" // or, on PostgreSQL, the namespace
	poolEndpoint = "DYNALOCK_TEST_POOL_ENDPOINT"
)

// poolTTL leaves attempts their full second, heartbeats several, and Close three,
// where all processes have one busy machine between them.
const poolTTL = 9 * time.Second

// poolEvent is what a member says: a handler begins or ends, or how many
// requests it has sent so far.
type poolEvent struct {
	Event    string // begin, end, requests
	PID      int
	Key      string
	Token    uint64
	Requests int64
	At       time.Duration
}

// requestCounter counts the requests on the wire.
type requestCounter struct{ n atomic.Int64 }

func (c *requestCounter) RoundTrip(r *http.Request) (*http.Response, error) {
	c.n.Add(1)
	return http.DefaultTransport.RoundTrip(r)
}

// openPool makes a client and a pool on DynamoDB Local, whose requests are
// counted, or on the PostgreSQL at endpoint.
func openPool(table, endpoint string, handle pool.Handler) (*lease.Client, *pool.Pool, *requestCounter, error) {
	count := &requestCounter{}
	store, err := openPoolStore(table, endpoint, count)
	if err != nil {
		return nil, nil, nil, err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	client, err := lease.New(store, lease.WithTTL(poolTTL), lease.WithLogger(log))
	if err != nil {
		return nil, nil, nil, err
	}
	p, err := pool.New(client, "shards", handle)
	return client, p, count, err
}

func openPoolStore(table, endpoint string, count *requestCounter) (kv.Store, error) {
	if strings.HasPrefix(endpoint, "postgres:") {
		db, err := sql.Open("pgx", endpoint)
		if err != nil {
			return nil, err
		}
		return pgkv.New(db, pgkv.WithNamespace(table)) // both until the process ends
	}
	options := localClient(endpoint).Options()
	options.HTTPClient = &http.Client{Transport: count}
	return dynamokv.New(dynamodb.New(options), table)
}

// TestPoolMemberProcess is no test: it is a member of the pool, in a process
// that TestPoolOfProcesses starts, until SIGTERM.
func TestPoolMemberProcess(t *testing.T) {
	table := os.Getenv(poolTable)
	if table == "" {
		t.Skip("not started by TestPoolOfProcesses")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var mu sync.Mutex
	events := json.NewEncoder(os.Stdout)
	say := func(e poolEvent) {
		mu.Lock()
		defer mu.Unlock()
		e.PID, e.At = os.Getpid(), machineTime()
		_ = events.Encode(e) // the parent is gone: nothing matters any more
	}
	client, p, count, err := openPool(table, os.Getenv(poolEndpoint), func(ctx context.Context, l *pool.Work) error {
		say(poolEvent{Event: "begin", Key: l.Key(), Token: l.Token()})
		defer say(poolEvent{Event: "end", Key: l.Key(), Token: l.Token()})
		select {
		case <-l.Draining():
		case <-ctx.Done():
		}
		return nil
	})
	require.NoError(t, err)
	go func() {
		for range time.Tick(100 * time.Millisecond) {
			say(poolEvent{Event: "requests", Requests: count.n.Load()})
		}
	}()
	require.NoError(t, errors.Join(p.Run(ctx), client.Close(context.WithoutCancel(ctx))))
}

// poolRun is the parent's view of the members.
type poolRun struct {
	t     *testing.T
	env   []string
	mu    sync.Mutex
	has   map[int]map[string]bool
	sent  map[int]int64
	holds map[string][]hold
}

// hold is a handler's time with a partition; to is 0 while it goes on.
type hold struct {
	pid      int
	token    uint64
	from, to time.Duration
}

// poolProcess is a member in a process of its own. said is closed when all that it said is noted.
type poolProcess struct {
	*exec.Cmd
	said chan struct{}

	mu sync.Mutex
	// words are what it said that is no event: what go test and the logger
	// print.
	words bytes.Buffer
}

// Write notes what the process says on its standard error.
func (p *poolProcess) Write(words []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.words.Write(words)
}

// show prints the words if the test has failed.
func (p *poolProcess) show(t *testing.T) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t.Failed() {
		t.Logf("member %d, %v, said:\n%s", p.Process.Pid, p.ProcessState, p.words.Bytes())
	}
}

// end waits for the process.
func (p *poolProcess) end() error {
	<-p.said
	return p.Wait()
}

func (r *poolRun) start() *poolProcess {
	cmd := exec.CommandContext(r.t.Context(), os.Args[0], "-test.run=^TestPoolMemberProcess$")
	p := &poolProcess{Cmd: cmd, said: make(chan struct{})}
	cmd.Env, cmd.Stderr = append(os.Environ(), r.env...), p
	out, err := cmd.StdoutPipe()
	require.NoError(r.t, err)
	require.NoError(r.t, cmd.Start())
	r.t.Cleanup(func() {
		_ = cmd.Process.Kill() // it has ended unless the test failed
		<-p.said
		_ = cmd.Wait()
		p.show(r.t)
	})
	go func() {
		defer close(p.said)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var e poolEvent
			if json.Unmarshal(lines.Bytes(), &e) == nil {
				r.note(e)
				continue
			}
			_, _ = fmt.Fprintf(p, "%s\n", lines.Bytes())
		}
	}()
	return p
}

func (r *poolRun) note(e poolEvent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.has[e.PID] == nil {
		r.has[e.PID] = map[string]bool{}
	}
	switch e.Event {
	case "begin":
		r.has[e.PID][e.Key] = true
		r.holds[e.Key] = append(r.holds[e.Key], hold{pid: e.PID, token: e.Token, from: e.At})
	case "end":
		delete(r.has[e.PID], e.Key)
		for i := range r.holds[e.Key] {
			if h := &r.holds[e.Key][i]; h.pid == e.PID && h.token == e.Token && h.to == 0 {
				h.to = e.At
			}
		}
	case "requests":
		r.sent[e.PID] = e.Requests
	}
}

// died ends what a killed member had.
func (r *poolRun) died(pid int, at time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.has, pid)
	for _, holds := range r.holds {
		for i := range holds {
			if holds[i].pid == pid && holds[i].to == 0 {
				holds[i].to = at
			}
		}
	}
}

// await waits until so many members have that many partitions each, and returns how long that took.
func (r *poolRun) await(members, each int, limit time.Duration) time.Duration {
	r.t.Helper()
	began := machineTime()
	var counts []int
	require.Eventually(r.t, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		counts = counts[:0]
		for _, has := range r.has {
			counts = append(counts, len(has))
		}
		return len(counts) == members && !slices.ContainsFunc(counts, func(n int) bool { return n != each })
	}, limit, 20*time.Millisecond, "%v", &counts)
	return machineTime() - began
}

// requests returns how many requests the members have sent.
func (r *poolRun) requests() (sum int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for pid := range r.has {
		sum += r.sent[pid]
	}
	return sum
}

func TestPoolOfProcesses(t *testing.T) {
	if testing.Short() {
		t.Skip("needs DynamoDB Local and a minute: left out by -short")
	}
	t.Parallel()
	table, endpoint := "pool-"+crand.Text(), dynamolocal.Endpoint(t)
	require.NoError(t, dynamokv.EnsureTable(t.Context(), localClient(endpoint), table))
	testPoolOfProcesses(t, table, endpoint, 150, true)
}

func TestPoolOfProcessesOnPostgres(t *testing.T) {
	t.Parallel()
	testPoolOfProcesses(t, crand.Text(), sharedPostgres(t), 60, false)
}

// testPoolOfProcesses starts three members, kills one, starts another and stops
// all. counts: their requests are counted.
func testPoolOfProcesses(t *testing.T, table, endpoint string, partitions int, counts bool) {
	t.Helper()
	const members = 3
	client, p, _, err := openPool(table, endpoint, func(context.Context, *pool.Work) error { return nil })
	require.NoError(t, err)
	names := make([]string, partitions)
	for i := range names {
		names[i] = fmt.Sprintf("shard-%03d", i)
	}
	require.NoError(t, p.Add(t.Context(), names...))
	require.NoError(t, client.Close(t.Context()))

	r := &poolRun{t: t, env: []string{poolTable + "=" + table, poolEndpoint + "=" + endpoint},
		has: map[int]map[string]bool{}, sent: map[int]int64{}, holds: map[string][]hold{}}
	running := make([]*poolProcess, members)
	for i := range running {
		running[i] = r.start()
	}
	t.Logf("%d partitions balanced over %d processes after %v", partitions, members,
		r.await(members, partitions/members, time.Minute))

	if counts {
		r.requireCost(members)
	}

	require.NoError(t, running[0].Process.Kill())
	_ = running[0].end() // it was killed
	r.died(running[0].Process.Pid, machineTime())
	t.Logf("its share retaken %v after kill -9", r.await(members-1, partitions/(members-1), time.Minute))
	running[0] = r.start()
	t.Logf("balanced %v after one joined", r.await(members, partitions/members, time.Minute))

	for _, p := range running {
		require.NoError(t, p.Process.Signal(syscall.SIGTERM))
	}
	for _, p := range running {
		require.NoError(t, p.end())
	}
	r.requireExclusion(partitions)
}

// requireCost requires that what the members send is what the formula says. A
// busy machine makes for repeated attempts, so that it looks up to five times.
func (r *poolRun) requireCost(members int) {
	const heartbeat, window = poolTTL / 3, 30 * time.Second
	formula := float64(time.Minute)/float64(heartbeat) + 2*float64(time.Minute)/float64(2*heartbeat)
	time.Sleep(5 * time.Second)
	var perMinute float64
	for range 5 {
		before := r.requests()
		time.Sleep(window)
		perMinute = float64(r.requests()-before) / window.Minutes() / float64(members)
		r.t.Logf("requests per minute and member: %.0f, by the formula %.0f (a heartbeat every %v, two listings every %v)",
			perMinute, formula, heartbeat, 2*heartbeat)
		if math.Abs(perMinute-formula) <= 0.15*formula {
			return
		}
	}
	require.InEpsilon(r.t, formula, perMinute, 0.15)
}

// requireExclusion requires that no two handlers of a partition overlapped, and
// that the later always had the greater token.
func (r *poolRun) requireExclusion(partitions int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	require.Len(r.t, r.holds, partitions)
	for key, holds := range r.holds {
		slices.SortFunc(holds, func(a, b hold) int { return cmp.Compare(a.token, b.token) })
		for i := range holds[1:] {
			require.NotZero(r.t, holds[i].to, "%s: %v", key, holds)
			require.LessOrEqual(r.t, holds[i].to, holds[i+1].from, "%s: %v", key, holds)
		}
	}
}
