//go:build unix

package chaos_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	_ "modernc.org/sqlite"

	"github.com/dynalock/dynalock/internal/dynamolocal"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/dynamokv"
	"github.com/dynalock/dynalock/kv/sqlkv"
	"github.com/dynalock/dynalock/lease"
)

// What a worker needs to know, in its environment.
const (
	envResource = "DYNALOCK_CHAOS_RESOURCE" // the directory of the resource
	envLog      = "DYNALOCK_CHAOS_LOG"      // the directory of the logs
	envFile     = "DYNALOCK_CHAOS_FILE"     // the SQLite file, or
	envEndpoint = "DYNALOCK_CHAOS_ENDPOINT" // DynamoDB's endpoint and
	envTable    = "DYNALOCK_CHAOS_TABLE"    // table
)

const (
	ttl  = lease.MinTTL
	poll = 250 * time.Millisecond
	// longestHold is how long a worker holds a key at most.
	longestHold = time.Second
	// window is what lies at most between a check and the act that relies on it.
	window = 40 * time.Millisecond
)

// keys are what everybody contends for.
var keys = []string{"a", "b", "c"}

// What an event tells.
const (
	acquired = "acquired" // Held was true after Acquire
	late     = "late"     // it was false: the process was kept from finding out in time
	held     = "held"     // Held was true at an instant that is not before At
	notHeld  = "not held" // it was false
	released = "released" // Release is about to be called
	failed   = "failed"   // Acquire, Release or the resource returned an error
)

// event is what a worker says that happened, or what it found.
type event struct {
	At    time.Duration
	PID   int
	What  string
	Key   string
	Token uint64
	Err   string
}

// worker is what runs in each process.
type worker struct {
	client   *lease.Client
	resource resource
	mu       sync.Mutex
	log      *os.File
}

// work contends for all the keys until SIGTERM, or until whoever started it is gone.
func work() error {
	go func() { // stdin is a pipe that nobody writes to
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(3)
	}()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	store, closeStore, err := openStore(ctx)
	if err != nil {
		return err
	}
	client, err := lease.New(store, lease.WithTTL(ttl), lease.WithPoll(poll/5, poll))
	if err != nil {
		return err
	}
	name := os.Getenv(envLog) + "/" + strconv.Itoa(os.Getpid())
	log, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	w := &worker{client: client, resource: resource(os.Getenv(envResource)), log: log}
	var all sync.WaitGroup
	for _, key := range keys {
		all.Go(func() { w.contend(ctx, key) })
	}
	all.Wait()
	ctx = context.WithoutCancel(ctx)
	return errors.Join(client.Close(ctx), closeStore(), log.Close())
}

func openStore(ctx context.Context) (kv.Store, func() error, error) {
	if endpoint := os.Getenv(envEndpoint); endpoint != "" {
		if os.Getenv(envPostgres) != "" {
			return openPostgres(endpoint)
		}
		store, err := dynamokv.New(localClient(endpoint), os.Getenv(envTable))
		return store, func() error { return nil }, err
	}
	db, err := sql.Open("sqlite", os.Getenv(envFile))
	if err != nil {
		return nil, nil, err
	}
	store, err := sqlkv.Open(ctx, db)
	if err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	return store, func() error { return errors.Join(store.Close(), db.Close()) }, nil
}

func localClient(endpoint string) *dynamodb.Client {
	return dynamodb.New(dynamodb.Options{
		BaseEndpoint: aws.String(endpoint), Region: dynamolocal.Region,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: dynamolocal.AccessKey, SecretAccessKey: dynamolocal.SecretKey}, nil
		}),
	})
}

// say logs an event, in one write, so that it survives kill -9 whole or not at all.
func (w *worker) say(e event) {
	e.PID = os.Getpid()
	line, err := json.Marshal(e)
	if err != nil {
		panic(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, err := w.log.Write(append(line, '\n')); err != nil {
		panic(err)
	}
}

func (w *worker) contend(ctx context.Context, key string) {
	for ctx.Err() == nil {
		l, err := w.client.Acquire(ctx, key)
		if err != nil {
			w.say(event{At: machineTime(), What: failed, Key: key, Err: err.Error()})
			pause(window)
			continue
		}
		if w.check(l, acquired, late) {
			w.hold(ctx, l)
		}
		w.say(event{At: machineTime(), What: released, Key: key, Token: l.Token()})
		if err := l.Release(ctx); err != nil {
			w.say(event{At: machineTime(), What: failed, Key: key, Token: l.Token(), Err: err.Error()})
		}
		for range 3 {
			w.check(l, held, notHeld)
			pause(window)
		}
	}
}

// hold uses the resource until it has held the key for long enough, or has lost
// it. Mostly it acts on what it saw a while ago.
func (w *worker) hold(ctx context.Context, l *lease.Lease) {
	until := machineTime() + rand.N(longestHold)
	for w.check(l, held, notHeld) && machineTime() < until && ctx.Err() == nil {
		pause(window)
		if _, err := w.resource.write(l.Key(), l.Token()); err != nil {
			w.say(event{At: machineTime(), What: failed, Key: l.Key(), Err: err.Error()})
		}
	}
}

// check says whether l is held. The time is read before: if Held is true later, it was true then.
func (w *worker) check(l *lease.Lease, yes, no string) bool {
	e := event{At: machineTime(), Key: l.Key(), Token: l.Token(), What: no}
	ok := l.Held()
	if ok {
		e.What = yes
	}
	w.say(e)
	return ok
}

// pause sleeps for up to d.
func pause(d time.Duration) { time.Sleep(rand.N(d)) }
