package dynamokv_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/dynamokv"
)

// TestTheWireMatrix throttles the attempts before the n-th, does to the n-th
// what a fault says, and then lets a sequel happen: on the server in memory.
func TestTheWireMatrix(t *testing.T) {
	t.Parallel()
	runMatrix(t, sequels, func(t *testing.T, c wireCase) {
		synctest.Test(t, func(t *testing.T) { c.run(t, newMemRig(t)) })
	})
}

// TestTheWireMatrixOnTheEmulator requires the same of DynamoDB Local, in real
// time: without the sequel that lasts for the whole budget.
func TestTheWireMatrixOnTheEmulator(t *testing.T) {
	t.Parallel()
	sharedTable(t)
	short := []sequel{}
	for _, s := range sequels {
		if !s.endless {
			short = append(short, s)
		}
	}
	runMatrix(t, short, func(t *testing.T, c wireCase) {
		c.run(t, newRig(t, dynamokv.WithClock(hastyClock{patientClock{clock.System}})))
	})
}

// hastyClock is a patientClock on which one waits for a tenth of the time between attempts.
type hastyClock struct{ patientClock }

func (c hastyClock) NewTimer(d time.Duration) clock.Timer { return c.Clock.NewTimer(d / 10) }

func runMatrix(t *testing.T, sequels []sequel, run func(*testing.T, wireCase)) {
	for _, s := range sequels {
		for _, f := range wireFaults {
			for _, op := range wireOperations {
				for nth := 1; nth <= 3; nth++ {
					t.Run(fmt.Sprintf("%s/%s/%s/%d", s.name, f.name, op.name, nth), func(t *testing.T) {
						t.Parallel()
						run(t, wireCase{s, f, op, nth})
					})
				}
			}
		}
	}
}

// wireCase is one field of the matrix.
type wireCase struct {
	sequel sequel
	fault  wireFault
	op     wireOperation
	nth    int
}

func (c wireCase) run(t *testing.T, r *rig) {
	var previous *kv.KVPair
	if c.op.name != "create" {
		previous = create(t, r.Store)
	}
	other := r.another(t)
	late := &landings{}
	r.wire.inject(func(n int, request *http.Request, send next) (*http.Response, error) {
		switch {
		case n < c.nth:
			return throttle(request), nil
		case n == c.nth:
			return c.fault.inject(late, request, send)
		default:
			return c.sequel.next(t, other, n-c.nth, request, send)
		}
	})
	start := time.Now()
	err := c.op.run(t.Context(), r, previous)
	want := c.sequel.want(c.op, c.fault)
	if want == nil {
		require.NoError(t, err)
	} else {
		requireOnly(t, err, want)
	}
	if c.sequel.endless {
		require.Equal(t, 10*time.Second, time.Since(start))
		require.Greater(t, r.wire.requests(), c.nth+1)
	} else {
		require.Equal(t, c.nth+1, r.wire.requests())
	}
	late.land()
	c.requireLeft(t, other, previous, want)
}

// requireLeft requires that the row is what the outcome says, when all has
// landed: its value, and by its version how many requests were applied.
func (c wireCase) requireLeft(t *testing.T, reader kv.Store, previous *kv.KVPair, outcome error) {
	t.Helper()
	value, version := c.left(previous, outcome)
	p, err := reader.Get(t.Context(), "key")
	var none *kv.NotFoundError
	if value == "" {
		require.ErrorAs(t, err, &none)
		if previous != nil {
			require.Equal(t, version, none.Version)
		}
		return
	}
	require.NoError(t, err)
	require.Equal(t, value, p.String())
	if previous != nil {
		require.Equal(t, version, p.Version)
	}
}

// left is what the row must hold, and at which version if there was one before.
func (c wireCase) left(previous *kv.KVPair, outcome error) (value string, version uint64) {
	old := ""
	if previous != nil {
		old, version = "old", previous.Version
	}
	theirs := c.sequel.name == "another writer"
	ours := c.fault.applied // how many of our requests were applied
	if outcome == nil {
		ours++
	}
	late := c.fault.name == "late"
	if !c.op.conditional { // a request that lands late overwrites what is newer
		if late {
			ours++
		}
	} else {
		ours = min(ours, 1)
		if late && !theirs { // applied by the late one or an earlier one, which keeps the other from it
			ours = 1
		}
	}
	if c.op.read {
		ours = 0
	}
	version += uint64(ours)
	switch {
	case theirs && (ours == 0 || c.op.conditional):
		return "theirs", version + 1
	case theirs:
		return c.op.want, version + 1
	case ours > 0:
		return c.op.want, version
	default:
		return old, version
	}
}

// wireOperation is an operation of the driver that costs one request when nothing goes wrong.
type wireOperation struct {
	name string
	run  func(ctx context.Context, s kv.Store, previous *kv.KVPair, options ...kv.CallOption) error
	// read: nothing is ever uncertain; conditional: another writer matters.
	read, conditional bool
	want              string // the value that it leaves, "" for none
}

// as converts options to those of one kind of operation.
func as[O any](options []kv.CallOption, more ...O) []O {
	for _, o := range options {
		more = append(more, o.(O))
	}
	return more
}

var wireOperations = []wireOperation{
	{name: "get", read: true, run: func(ctx context.Context, s kv.Store, _ *kv.KVPair, options ...kv.CallOption) error {
		_, err := s.Get(ctx, "key", as[kv.ReadOption](options)...)
		return err
	}},
	{name: "exists", read: true, run: func(ctx context.Context, s kv.Store, _ *kv.KVPair, options ...kv.CallOption) error {
		_, err := s.Exists(ctx, "key", as[kv.ReadOption](options)...)
		return err
	}},
	{name: "list", read: true, run: func(ctx context.Context, s kv.Store, _ *kv.KVPair, options ...kv.CallOption) error {
		_, err := s.List(ctx, "", as[kv.ReadOption](options)...)
		return err
	}},
	{name: "list page", read: true,
		run: func(ctx context.Context, s kv.Store, _ *kv.KVPair, options ...kv.CallOption) error {
			_, err := s.ListPage(ctx, "", as(options, kv.WithLimit(1))...)
			return err
		}},
	{name: "put", want: "new", run: func(ctx context.Context, s kv.Store, _ *kv.KVPair, options ...kv.CallOption) error {
		return s.Put(ctx, "key", as(options, kv.WithString("new"))...)
	}},
	{name: "blind delete", run: func(ctx context.Context, s kv.Store, _ *kv.KVPair, options ...kv.CallOption) error {
		return s.Delete(ctx, "key", as[kv.DeleteOption](options)...)
	}},
	{name: "create", conditional: true, want: "new",
		run: func(ctx context.Context, s kv.Store, _ *kv.KVPair, options ...kv.CallOption) error {
			_, err := s.AtomicPut(ctx, "key", as(options, kv.WithString("new"))...)
			return err
		}},
	{name: "swap", conditional: true, want: "new",
		run: func(ctx context.Context, s kv.Store, previous *kv.KVPair, options ...kv.CallOption) error {
			_, err := s.AtomicPut(ctx, "key", as(options, kv.WithString("new"), kv.WithPrevious(previous))...)
			return err
		}},
	{name: "delete", conditional: true,
		run: func(ctx context.Context, s kv.Store, previous *kv.KVPair, options ...kv.CallOption) error {
			return s.AtomicDelete(ctx, "key", previous, as[kv.DeleteOption](options)...)
		}},
}
