package dynamokv_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/dynamomem"
	"github.com/dynalock/dynalock/kv"
)

// wireFault is what becomes of one attempt. What the driver can know of it is that it may have been applied, unless it
// was throttled.
type wireFault struct {
	name    string
	fault   dynamomem.Fault
	applied bool // at once
}

// landing is when a late request lands: behind all attempts of an operation that is settled by its next one or two.
const landing = 5 * time.Minute

var wireFaults = []wireFault{
	{"cut before", dynamomem.Lost(dynamomem.ErrCut), false},
	{"cut after", dynamomem.LostAnswer(dynamomem.ErrCut), true},
	{"EOF", dynamomem.LostAnswer(io.ErrUnexpectedEOF), true},
	{"doubled", dynamomem.Duplicate(io.EOF), true},
	{"500 before", dynamomem.Refused(500, "InternalServerError"), false},
	{"500 after", dynamomem.RefusedAfter(500, "InternalServerError"), true},
	{"throttle", dynamomem.Refused(400, "ThrottlingException"), false},
	{"hang", dynamomem.Hang, false},
	{"late", dynamomem.Late(clock.System, landing, dynamomem.ErrCut), false},
}

// wireOperation is an operation of the driver that costs one request when nothing goes wrong.
type wireOperation struct {
	name string
	run  func(ctx context.Context, s kv.Store, previous *kv.KVPair) error
	// read: nothing is ever uncertain; conditional: another writer matters.
	read, conditional bool
	want              string // the value that it leaves, "" for none
}

var wireOperations = func() []wireOperation {
	ops := []wireOperation{
		{name: "get", read: true, want: "old", run: func(ctx context.Context, s kv.Store, _ *kv.KVPair) error {
			_, err := s.Get(ctx, "key")
			return err
		}},
		{name: "list", read: true, want: "old", run: func(ctx context.Context, s kv.Store, _ *kv.KVPair) error {
			_, err := s.List(ctx, "")
			return err
		}},
	}
	for _, c := range writeCases {
		op := wireOperation{name: c.name, run: c.write, want: "new", conditional: c.name != "put" && c.name != "blind delete"}
		if c.name == "delete" || c.name == "blind delete" {
			op.want = ""
		}
		ops = append(ops, op)
	}
	return ops
}()

// sequel is what happens after the attempt with the fault.
type sequel struct {
	name string
	// next is the fault of all later attempts, nil for none; it is called before each of them.
	next func(t *testing.T, server *dynamomem.Server, n int) dynamomem.Fault
	// want is the outcome: a sentinel, nil for success, or errPlain for an error that matches none.
	want func(op wireOperation, f wireFault) error
	// endless: attempts go on until the budget is spent.
	endless bool
}

var errPlain = errors.New("matches no sentinel")

// unless says how an operation ends that is not applied for sure, or else that it is uncertain.
func unless(op wireOperation, f wireFault, settled error) error {
	if op.read || f.name == "throttle" {
		return settled
	}
	return kv.ErrUncertain
}

var sequels = []sequel{
	{
		name: "all well",
		next: func(*testing.T, *dynamomem.Server, int) dynamomem.Fault { return dynamomem.None },
		want: func(wireOperation, wireFault) error { return nil },
	},
	{
		name: "refused",
		next: func(*testing.T, *dynamomem.Server, int) dynamomem.Fault {
			return dynamomem.Refused(400, "AccessDeniedException")
		},
		want: func(op wireOperation, f wireFault) error { return unless(op, f, errPlain) },
	},
	{
		name: "throttled for good", endless: true,
		next: func(*testing.T, *dynamomem.Server, int) dynamomem.Fault {
			return dynamomem.Refused(400, "ThrottlingException")
		},
		want: func(op wireOperation, f wireFault) error { return unless(op, f, kv.ErrThrottled) },
	},
	{
		name: "another writer",
		next: func(t *testing.T, server *dynamomem.Server, n int) dynamomem.Fault {
			if n == 1 {
				other, _ := memStore(t, server)
				require.NoError(t, other.Put(t.Context(), "key", kv.WithString("theirs")))
			}
			return dynamomem.None
		},
		want: func(op wireOperation, f wireFault) error {
			switch {
			case !op.conditional:
				return nil
			case op.name == "create":
				return unless(op, f, kv.ErrKeyExists)
			case f.applied: // theirs took the version behind ours
				return kv.ErrUncertain
			default: // theirs took ours
				return kv.ErrKeyModified
			}
		},
	},
}

// TestTheWireMatrix throttles the attempts before the n-th, does to the n-th what a fault says, and then lets a sequel happen.
func TestTheWireMatrix(t *testing.T) {
	t.Parallel()
	for _, s := range sequels {
		for _, f := range wireFaults {
			for _, op := range wireOperations {
				for nth := 1; nth <= 3; nth++ {
					t.Run(fmt.Sprintf("%s/%s/%s/%d", s.name, f.name, op.name, nth), func(t *testing.T) {
						t.Parallel()
						synctest.Test(t, func(t *testing.T) { runWireCase(t, s, f, op, nth) })
					})
				}
			}
		}
	}
}

func runWireCase(t *testing.T, s sequel, f wireFault, op wireOperation, nth int) {
	server := newMem()
	store, client := memStore(t, server)
	var previous *kv.KVPair
	if op.name != "create" {
		previous = create(t, store)
		time.Sleep(time.Minute)
	}
	client.Inject(func(ctx context.Context, c dynamomem.Call, apply dynamomem.Apply) (any, error) {
		switch {
		case c.Number < nth:
			return dynamomem.Refused(400, "ThrottlingException")(ctx, c, apply)
		case c.Number == nth:
			return f.fault(ctx, c, apply)
		default:
			return s.next(t, server, c.Number-nth)(ctx, c, apply)
		}
	})
	start := time.Now()
	err := op.run(t.Context(), store, previous)
	want := s.want(op, f)
	switch {
	case want == nil:
		require.NoError(t, err)
	case errors.Is(want, errPlain):
		requireOnly(t, err, nil)
	default:
		requireOnly(t, err, want)
	}
	if s.endless {
		require.Equal(t, 10*time.Second, time.Since(start))
		require.Greater(t, client.Requests(), nth+1)
	} else {
		require.Equal(t, nth+1, client.Requests())
		require.Less(t, time.Since(start), 2*time.Second)
	}
	client.Wait() // what is late lands
	requireLeft(t, server, s, f, op, want)
}

// requireLeft requires that the row is what the outcome allows, when all has landed.
func requireLeft(t *testing.T, server *dynamomem.Server, s sequel, f wireFault, op wireOperation, outcome error) {
	t.Helper()
	old := "old"
	if op.name == "create" {
		old = ""
	}
	allowed := []string{op.want}
	switch {
	case s.name == "another writer" && outcome == nil && !op.read: // two blind writes, in either order
	case s.name == "another writer":
		allowed = []string{"theirs"}
	case outcome == nil:
	case !f.applied && f.name != "late":
		allowed = []string{old}
	}
	reader, _ := memStore(t, server)
	got := ""
	p, err := reader.Get(t.Context(), "key")
	if err == nil {
		got = p.String()
	} else {
		require.ErrorIs(t, err, kv.ErrKeyNotFound)
	}
	require.Contains(t, allowed, got)
}
