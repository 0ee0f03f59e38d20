package tests_test

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/dynamolocal"
	"github.com/dynalock/dynalock/internal/dynamomem"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/dynamokv"
	"github.com/dynalock/dynalock/kv/kvtest"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/kv/pgkv"
)

// register is a key's state in the model. A blind write's version is not known
// until somebody reads it.
type register struct {
	value         string // "": none is live
	version, last uint64 // of the live pair, 0: not known; and the greatest that is known of the key
}

// see checks what an operation was shown, and learns the version.
func (r register) see(op kvtest.Operation) (register, bool) {
	switch {
	case op.Seen != r.value:
		return r, false
	case r.value == "":
		return r, true
	case r.version == 0:
		return register{r.value, op.Version, op.Version}, op.Version > r.last
	}
	return r, op.Version == r.version
}

// has reports whether the live pair may have the version.
func (r register) has(version uint64) bool {
	return r.value != "" && (r.version == version || r.version == 0 && version > r.last)
}

// apply returns the state behind op if it takes effect, and whether it can.
func (r register) apply(op kvtest.Operation) (register, bool) {
	last := max(r.last, op.Previous)
	switch op.Op {
	case "Put":
		return register{value: op.Value, last: r.last}, true
	case "Delete":
		return register{last: r.last}, true
	case "AtomicDelete":
		return register{last: last}, r.has(op.Previous)
	case "AtomicPut":
		matches := op.Previous > 0 && r.has(op.Previous) || op.Previous == 0 && r.value == ""
		grows := op.Version > last || op.Version == 0 && op.Outcome == kvtest.Unknown
		same := op.Seen == op.Value || op.Outcome == kvtest.Unknown
		return register{op.Value, op.Version, max(last, op.Version)}, matches && grows && same
	}
	return r.see(op)
}

// step returns the states in which op may have left r.
func step(state, input, _ any) []any {
	r, op := state.(register), input.(kvtest.Operation)
	next, can := r.apply(op)
	switch {
	case op.Outcome == kvtest.Unknown && can && next != r:
		return []any{r, next}
	case op.Outcome == kvtest.Unknown:
		return []any{r}
	case op.Outcome == kvtest.Refused:
		next, can = r.see(op)
		create := op.Op == "AtomicPut" && op.Previous == 0
		can = can && (create && op.Seen != "" || !create && (op.Seen == "" || op.Version != op.Previous))
	}
	if !can {
		return nil
	}
	return []any{next}
}

var model = (&porcupine.NondeterministicModel{
	Partition: func(history []porcupine.Operation) (parts [][]porcupine.Operation) {
		number := map[string]int{}
		for _, op := range history {
			key := op.Input.(kvtest.Operation).Key
			n, ok := number[key]
			if !ok {
				n, number[key], parts = len(parts), len(parts), append(parts, nil)
			}
			parts[n] = append(parts[n], op)
		}
		return parts
	},
	Init: func() []any { return []any{register{}} },
	Step: step,
}).ToModel()

// judge returns porcupine.Ok, Illegal or, when it has no verdict in time, Unknown.
func judge(history []kvtest.Operation, timeout time.Duration) porcupine.CheckResult {
	operations := make([]porcupine.Operation, len(history))
	for i, op := range history {
		operations[i] = porcupine.Operation{ClientId: op.Client, Input: op, Call: int64(op.Called),
			Return: int64(op.Returned)}
	}
	return porcupine.CheckOperationsTimeout(model, operations, timeout)
}

// requireLinearizable is the suite's checker. No verdict is a failure.
func requireLinearizable(t *testing.T, history []kvtest.Operation) {
	t.Helper()
	require.NotEmpty(t, history)
	result := judge(history, time.Minute)
	if result != porcupine.Ok {
		for _, op := range history {
			t.Logf("%+v", op)
		}
	}
	require.Equal(t, porcupine.Ok, result)
}

func newMemTable(t *testing.T, options ...dynamokv.Option) func(*testing.T) (*dynamokv.Store, *dynamomem.Client) {
	t.Helper()
	server := dynamomem.New()
	server.CreateTable("table", "id", "name")
	return func(t *testing.T) (*dynamokv.Store, *dynamomem.Client) {
		client := server.Client()
		t.Cleanup(client.Wait)
		store, err := dynamokv.New(client, "table", options...)
		require.NoError(t, err)
		return store, client
	}
}

// patientClock gives attempts a minute: one that a slow machine answers late is
// sent again, and then a blind write takes effect twice (S3).
type patientClock struct{ clock.Clock }

func (patientClock) WithTimeout(ctx context.Context, _ time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, time.Minute)
}

// openLocal opens two stores on a fresh table of DynamoDB Local.
func openLocal(t *testing.T, options ...dynamokv.Option) (stores [2]kv.Store) {
	t.Helper()
	client := dynamodb.New(dynamodb.Options{
		BaseEndpoint: aws.String(dynamolocal.Endpoint(t)), Region: dynamolocal.Region,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: dynamolocal.AccessKey, SecretAccessKey: dynamolocal.SecretKey}, nil
		}),
	})
	table := "linearizable-" + crand.Text() // the emulator may be shared by several processes
	require.NoError(t, dynamokv.EnsureTable(t.Context(), client, table))
	for i := range stores {
		store, err := dynamokv.New(client, table, append(options, dynamokv.WithClock(patientClock{clock.System}))...)
		require.NoError(t, err)
		stores[i] = store
	}
	return stores
}

// openers make two handles on one fresh store of each kind. sqlkv gets its
// checker from its conformance test.
var openers = map[string]func(t *testing.T) [2]kv.Store{
	"memkv": func(*testing.T) [2]kv.Store {
		store := memkv.New()
		return [2]kv.Store{store, store}
	},
	"sqlkv": func(t *testing.T) [2]kv.Store {
		file := filepath.Join(t.TempDir(), "kv.db")
		return [2]kv.Store{openFile(t, file), openFile(t, file)}
	},
	"dynamokv": func(t *testing.T) [2]kv.Store {
		open := newMemTable(t)
		first, _ := open(t)
		second, _ := open(t)
		return [2]kv.Store{first, second}
	},
	"pgkv": func(t *testing.T) [2]kv.Store {
		dsn, namespace, patient := sharedPostgres(t), crand.Text(), pgkv.WithClock(patientClock{clock.System})
		return [2]kv.Store{openPg(t, dsn, namespace, patient), openPg(t, dsn, namespace, patient)}
	},
	"dynamokv on 4 shards": func(t *testing.T) [2]kv.Store {
		open := newMemTable(t, dynamokv.WithShards(4))
		first, _ := open(t)
		second, _ := open(t)
		return [2]kv.Store{first, second}
	},
	"DynamoDB Local": func(t *testing.T) [2]kv.Store {
		return openLocal(t)
	},
	"DynamoDB Local on 4 shards": func(t *testing.T) [2]kv.Store {
		return openLocal(t, dynamokv.WithShards(4))
	},
}

func TestHistoriesAreLinearizable(t *testing.T) {
	t.Parallel()
	for name, open := range openers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stores := open(t)
			for seed := range uint64(4) {
				history, err := kvtest.Record(t.Context(), kvtest.Recording{Seed: seed, Prefix: fmt.Sprint(seed, "/")},
					stores[:]...)
				require.NoError(t, err)
				requireLinearizable(t, history)
			}
		})
	}
}

// unknowns counts the operations of unknown outcome.
func unknowns(history []kvtest.Operation) (n int) {
	for _, op := range history {
		if op.Outcome == kvtest.Unknown {
			n++
		}
	}
	return n
}

// injected tells the errors of reads that failed and of writes that were not applied.
func injected(err error) bool {
	return errors.Is(err, kvtest.ErrInjected) || errors.Is(err, dynamomem.ErrCut) || errors.Is(err, kv.ErrThrottled)
}

func TestHistoriesWithLostRequestsAndAnswersAreLinearizable(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"memkv", "sqlkv", "dynamokv", "pgkv"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stores := openers[name](t)
			for i := range stores {
				stores[i] = kvtest.Faulty(stores[i],
					kvtest.Plan{Seed: uint64(i), LostRequest: 0.03, LostAnswer: 0.05, Throttle: 0.02})
			}
			for seed := range uint64(4) {
				history, err := kvtest.Record(t.Context(),
					kvtest.Recording{Seed: seed, Prefix: fmt.Sprint(seed, "/"), Ignore: injected}, stores[:]...)
				require.NoError(t, err)
				require.Positive(t, unknowns(history))
				requireLinearizable(t, history)
			}
		})
	}
}

// Below dynamokv requests are lost, doubled and late, and it tries again:
// conditional writes take effect once all the same.
func TestHistoriesOverABadWireAreLinearizable(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			open := newMemTable(t)
			stores := make([]kv.Store, 2)
			for i := range stores {
				store, client := open(t)
				client.Inject(badWire(seed + uint64(10*i)))
				stores[i] = store
			}
			history, err := kvtest.Record(t.Context(),
				kvtest.Recording{Seed: seed, Operations: 40, Conditional: true, Ignore: injected}, stores...)
			require.NoError(t, err)
			requireLinearizable(t, history)
		})
	}
}

// badWire spoils every fourth request.
func badWire(seed uint64) dynamomem.Fault {
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(seed, 1))
	faults := []dynamomem.Fault{
		dynamomem.Lost(dynamomem.ErrCut), dynamomem.LostAnswer(dynamomem.ErrCut), dynamomem.Duplicate(dynamomem.ErrCut),
		dynamomem.Late(clock.System, 20*time.Millisecond, dynamomem.ErrCut),
		dynamomem.RefusedAfter(500, "InternalServerError"),
	}
	return func(ctx context.Context, call dynamomem.Call, apply dynamomem.Apply) (any, error) {
		mu.Lock()
		n := random.IntN(4 * len(faults))
		mu.Unlock()
		if n < len(faults) {
			return faults[n](ctx, call, apply)
		}
		return apply()
	}
}
