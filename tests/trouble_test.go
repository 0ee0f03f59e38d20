package tests_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/election"
	"github.com/dynalock/dynalock/internal/leasetest"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
	"github.com/dynalock/dynalock/pool"
)

// waitingCall is a call that waits, and what it waits for.
type waitingCall struct {
	name string
	// calls is how many there are of it.
	calls int
	// run makes them with client, which shares the store with holder, until ctx ends.
	run func(t *testing.T, ctx context.Context, client, holder *lease.Client)
}

var waitingCalls = []waitingCall{
	{"Acquire", 1, func(t *testing.T, ctx context.Context, client, holder *lease.Client) {
		_, err := holder.Acquire(t.Context(), "key")
		require.NoError(t, err)
		go func() { _, _ = client.Acquire(ctx, "key") }()
	}},
	{"Acquire of ten keys", 10, func(t *testing.T, ctx context.Context, client, holder *lease.Client) {
		for i := range 10 {
			_, err := holder.Acquire(t.Context(), fmt.Sprint("key", i))
			require.NoError(t, err)
			go func() { _, _ = client.Acquire(ctx, fmt.Sprint("key", i)) }()
		}
	}},
	{"ten Acquires of a key", 1, func(t *testing.T, ctx context.Context, client, holder *lease.Client) {
		_, err := holder.Acquire(t.Context(), "key")
		require.NoError(t, err)
		for range 10 {
			go func() { _, _ = client.Acquire(ctx, "key") }()
		}
	}},
	{"Campaign", 1, func(t *testing.T, ctx context.Context, client, holder *lease.Client) {
		_, err := newElection(t, holder).Campaign(t.Context(), nil)
		require.NoError(t, err)
		e := newElection(t, client)
		go func() { _, _ = e.Campaign(ctx, nil) }()
	}},
	{"election.Run", 1, func(t *testing.T, ctx context.Context, client, holder *lease.Client) {
		_, err := newElection(t, holder).Campaign(t.Context(), nil)
		require.NoError(t, err)
		e := newElection(t, client)
		go func() { _ = e.Run(ctx, func(context.Context, *election.Term) error { return nil }) }()
	}},
	{"Observe", 1, func(t *testing.T, ctx context.Context, client, holder *lease.Client) {
		_, err := newElection(t, holder).Campaign(t.Context(), nil)
		require.NoError(t, err)
		e := newElection(t, client)
		go func() {
			for range e.Observe(ctx) { // an error is no end
				continue
			}
		}()
	}},
	{"Once with Wait", 1, func(t *testing.T, ctx context.Context, client, holder *lease.Client) {
		do := func(c *lease.Client, ctx context.Context) {
			_, _ = lock.NewOnce(c, "job", lock.Wait()).Do(ctx, "slot", func(ctx context.Context, _ *lease.Lease) error {
				<-ctx.Done()
				return ctx.Err()
			})
		}
		go do(holder, ctx)
		synctest.Wait()
		go do(client, ctx)
	}},
	{"Join", 1, func(_ *testing.T, ctx context.Context, client, _ *lease.Client) {
		go func() {
			if leave, err := client.Join(ctx, "group"); err == nil {
				<-ctx.Done()
				leave()
			}
		}()
	}},
	{"pool.Run, which waits for ten", 10, func(t *testing.T, ctx context.Context, client, holder *lease.Client) {
		p := newPool(t, client)
		require.NoError(t, p.Add(t.Context(), strings.Fields("0 1 2 3 4 5 6 7 8 9")...))
		other := newPool(t, holder)
		go func() { _ = other.Run(ctx) }()
		time.Sleep(5 * time.Second)
		go func() { _ = p.Run(ctx) }()
	}},
}

func newElection(t *testing.T, c *lease.Client) *election.Election {
	t.Helper()
	e, err := election.New(c, "e")
	require.NoError(t, err)
	return e
}

// newPool makes a pool whose partitions are never given up within a minute.
func newPool(t *testing.T, c *lease.Client) *pool.Pool {
	t.Helper()
	p, err := pool.New(c, "p", func(ctx context.Context, _ *pool.Work) error {
		<-time.After(time.Hour)
		return ctx.Err()
	}, pool.WithDrainTimeout(24*time.Hour))
	require.NoError(t, err)
	return p
}

// TestI13NoCallThatWaitsStormsAStoreThatFailsAtOnce lets every read fail at once
// for a minute, and counts the requests of a client with one call that waits.
func TestI13NoCallThatWaitsStormsAStoreThatFailsAtOnce(t *testing.T) {
	t.Parallel()
	classes := []error{
		kv.ErrUnavailable, kv.ErrThrottled, kv.ErrRefused, kv.ErrClock, kv.ErrUncertain, leasetest.ErrAnswerLost,
	}
	for _, call := range waitingCalls {
		row := []string{fmt.Sprintf("%-30s", call.name)}
		for _, class := range classes {
			synctest.Test(t, func(t *testing.T) {
				early, late := countWhileFailing(t, call, class)
				// It has waited for so long that it polls once a second. A round is a read of
				// the row and, when it is due, one of the session. The client's heartbeats and
				// a pool's listings come on top.
				most := 2*float64(call.calls) + 1
				require.LessOrEqual(t, early, most, "%s, %v: not more often than before", call.name, class)
				require.LessOrEqual(t, late, most, "%s, %v: a round a second", call.name, class)
				row = append(row, fmt.Sprintf("%6.1f %5.2f", early, late))
			})
		}
		t.Log(strings.Join(row, " | "))
	}
}

// countWhileFailing returns the requests per second in the first ten seconds of an
// outage, and after them.
func countWhileFailing(t *testing.T, call waitingCall, class error) (early, late float64) {
	t.Helper()
	store := memkv.New()
	ctx, cancel := context.WithCancel(t.Context())
	link := leasetest.NewLink(store)
	client, err := lease.New(link, lease.WithRefusedLimit(time.Hour), lease.WithOwner("waiter"))
	require.NoError(t, err)
	holder, err := lease.New(store, lease.WithOwner("holder"))
	require.NoError(t, err)
	defer func() {
		cancel()
		link.SetIntercept(nil)
		time.Sleep(2 * time.Hour) // handlers end
		for _, c := range []*lease.Client{client, holder} {
			ended, stop := context.WithTimeout(context.Background(), time.Minute)
			_ = c.Close(ended)
			stop()
		}
	}()
	var failing atomic.Bool
	link.SetIntercept(func(ctx context.Context, c kv.Call, next func(context.Context) error) error {
		if failing.Load() && (c.Op == "Get" || c.Op == "List" || c.Op == "ListPage") {
			return class
		}
		return next(ctx)
	})
	call.run(t, ctx, client, holder)
	time.Sleep(time.Minute)
	failing.Store(true)
	link.Take()
	time.Sleep(10 * time.Second)
	early = perSecond(link, 10*time.Second)
	time.Sleep(50 * time.Second)
	return early, perSecond(link, 50*time.Second)
}

func perSecond(link *leasetest.Link, d time.Duration) float64 {
	sum := 0
	for _, n := range link.Take() {
		sum += n
	}
	return float64(sum) / d.Seconds()
}
