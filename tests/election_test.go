package tests_test

import (
	"bufio"
	"context"
	crand "crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/election"
	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/dynamolocal"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/dynamokv"
	"github.com/dynalock/dynalock/lease"
)

const (
	electors = 5
	// electionPoll is the longest poll of a candidate.
	electionPoll = 250 * time.Millisecond
	// electionTTL leaves a resignation 10 s, which is long enough on a machine
	// at a load of 10 per processor. No vacancy may have to do with it.
	electionTTL = 30 * time.Second
	// What a child on DynamoDB Local needs to know.
	electionTable    = "DYNALOCK_TEST_ELECTION_TABLE"
	electionEndpoint = "DYNALOCK_TEST_ELECTION_ENDPOINT"
)

// leadership is what a child says of itself: when, on the clock of the machine,
// it has begun to lead or has stopped.
type leadership struct {
	Event string // leads, stopped
	PID   int
	Token uint64
	At    time.Duration
}

// machineTime is a clock that all processes of the machine share.
func machineTime() time.Duration {
	now := clock.System.Now()
	if now.Boot != 0 {
		return now.Boot
	}
	return time.Duration(now.Wall.UnixNano())
}

// elect is a process that campaigns until SIGTERM, and then resigns.
func elect(ctx context.Context, store kv.Store) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer stop()
	if table := os.Getenv(electionTable); table != "" {
		var err error
		if store, err = dynamokv.New(localClient(os.Getenv(electionEndpoint)), table); err != nil {
			return err
		}
	}
	client, err := lease.New(store, lease.WithTTL(electionTTL), lease.WithPoll(50*time.Millisecond, electionPoll))
	if err != nil {
		return err
	}
	e, err := election.New(client, "rolling")
	if err != nil {
		return err
	}
	events := json.NewEncoder(os.Stdout)
	err = e.Run(ctx, func(ctx context.Context, t *election.Term) error {
		say := func(event string) error {
			return events.Encode(leadership{event, os.Getpid(), t.Token(), machineTime()})
		}
		if err := say("leads"); err != nil {
			return err
		}
		<-ctx.Done()
		return say("stopped")
	})
	if errors.Is(err, context.Canceled) {
		err = nil // it was told to stop while it did not lead
	}
	return errors.Join(err, client.Close(context.WithoutCancel(ctx)))
}

func localClient(endpoint string) *dynamodb.Client {
	return dynamodb.New(dynamodb.Options{
		BaseEndpoint: aws.String(endpoint), Region: dynamolocal.Region,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: dynamolocal.AccessKey, SecretAccessKey: dynamolocal.SecretKey}, nil
		}),
	})
}

// elector is a running child.
type elector struct {
	*exec.Cmd
	exited chan error
}

// roll is a run of rolling restarts, on the file or the PostgreSQL that file names.
type roll struct {
	t      *testing.T
	file   string
	env    []string
	events chan leadership
	// running are the children by process id.
	running map[int]*elector
}

func (r *roll) start() {
	cmd, out := child(r.t, "elect", r.file, append(r.env, "GORACE=atexit_sleep_ms=0")...) // or each waits a second to exit
	e := &elector{cmd, make(chan error, 1)}
	r.running[cmd.Process.Pid] = e
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var l leadership
			if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
				r.t.Errorf("%s: %v", lines.Text(), err)
			}
			r.events <- l
		}
		e.exited <- cmd.Wait()
	}()
}

// next returns the next event of this kind; others come out of order, since
// each child has a pipe of its own.
func (r *roll) next(log *[]leadership, event string) leadership {
	r.t.Helper()
	for limit := time.After(2 * electionTTL); ; {
		select {
		case l := <-r.events:
			*log = append(*log, l)
			if l.Event == event {
				return l
			}
		case <-limit:
			require.Fail(r.t, "nobody "+event+" any more")
		}
	}
}

// stop asks a child to end, and returns where its exit is told.
func (r *roll) stop(pid int) <-chan error {
	e := r.running[pid]
	require.NotNil(r.t, e, "a leader that was stopped leads")
	delete(r.running, pid)
	require.NoError(r.t, e.Process.Signal(syscall.SIGTERM))
	return e.exited
}

func TestRollingRestartsOfALeaderOnSQLite(t *testing.T) {
	t.Parallel()
	testRollingRestarts(t, filepath.Join(t.TempDir(), "kv.db"))
}

func TestRollingRestartsOfALeaderOnPostgres(t *testing.T) {
	t.Parallel()
	testRollingRestarts(t, sharedPostgres(t), childNamespace+"="+crand.Text())
}

func TestRollingRestartsOfALeaderOnDynamoDB(t *testing.T) {
	t.Parallel()
	endpoint := dynamolocal.Endpoint(t)
	table := "rolling-" + crand.Text()
	require.NoError(t, dynamokv.EnsureTable(t.Context(), localClient(endpoint), table))
	testRollingRestarts(t, filepath.Join(t.TempDir(), "kv.db"), electionTable+"="+table,
		electionEndpoint+"="+endpoint)
}

// testRollingRestarts stops the leader 30 times, or 100 in a long run, with
// SIGTERM, and starts another process in its place.
func testRollingRestarts(t *testing.T, file string, env ...string) {
	t.Helper()
	if testing.Short() {
		t.Skip("long: left out by -short")
	}
	restarts := 30
	if long() {
		restarts = 100
	}
	r := &roll{
		t: t, file: file, env: env,
		events: make(chan leadership, 10*restarts), running: map[int]*elector{},
	}
	for range electors {
		r.start()
	}
	var log []leadership
	began := time.Now()
	leader := r.next(&log, "leads")
	for range restarts {
		stopped := leader.PID
		exited := r.stop(stopped)
		r.start()
		leader = r.next(&log, "leads")
		require.NoError(t, <-exited, "process %d: it resigned and closed its client", stopped)
	}
	took := time.Since(began)
	for pid := range r.running {
		<-r.stop(pid) // one that has hardly begun dies of the signal
	}
	for len(r.events) > 0 {
		log = append(log, <-r.events)
	}
	requireNoOverlap(t, restarts, log, took)
}

// requireNoOverlap checks, term by term in the order of their tokens, that each
// leader had stopped before the next one began.
func requireNoOverlap(t *testing.T, restarts int, log []leadership, took time.Duration) {
	t.Helper()
	begun, ended := map[uint64]leadership{}, map[uint64]leadership{}
	for _, l := range log {
		of := begun
		if l.Event == "stopped" {
			of = ended
		}
		require.NotContains(t, of, l.Token, "one leader per token")
		of[l.Token] = l
	}
	var vacancies []time.Duration
	var before leadership
	for i, token := range slices.Sorted(maps.Keys(begun)) {
		begin := begun[token]
		if i > 0 {
			vacancies = append(vacancies, begin.At-before.At)
			require.Greater(t, begin.At, before.At, "%d began with token %d before %d had stopped", begin.PID, token, before.PID)
		}
		before = ended[token]
		require.Equal(t, begin.PID, before.PID)
	}
	require.GreaterOrEqual(t, len(vacancies), restarts)
	slices.Sort(vacancies)
	median, most := vacancies[len(vacancies)/2], vacancies[len(vacancies)-1]
	t.Logf("%d restarts in %v; vacancies after a resignation: least %v, median %v, 95th percentile %v, most %v",
		restarts, took.Round(time.Millisecond), vacancies[0], median, vacancies[len(vacancies)*95/100], most)
	require.Less(t, median, 8*electionPoll, fmt.Sprint(vacancies))
	require.Less(t, most, electionTTL/2, fmt.Sprint(vacancies))
}
