package pool_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/pool"
)

// slowServer carries out one request after the other, and its callers are as
// impatient as a driver: an attempt is bounded, and followed by another. It
// carries out what nobody waits for any more, too.
type slowServer struct {
	mu sync.Mutex
	// takes is how long it is busy with a request, until when with all it has
	// got.
	takes time.Duration
	until time.Time
}

// attempt is the bound of an attempt at a TTL of 3 s.
const attempt = lease.MinTTL / 6

func (s *slowServer) set(takes time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.takes = takes
}

// send queues a request, and returns in how long it will have been carried out.
func (s *slowServer) send() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); s.until.Before(now) {
		s.until = now
	}
	s.until = s.until.Add(s.takes)
	return time.Until(s.until)
}

func (s *slowServer) hook(ctx context.Context, call kv.Call, next func(context.Context) error) error {
	answer := make(chan error, 1)
	due := max(s.send(), time.Nanosecond) // not now: see internal/clock
	time.AfterFunc(due, func() { answer <- next(context.WithoutCancel(ctx)) })
	for began := time.Now(); ctx.Err() == nil && time.Since(began) < 10*time.Second; due = max(s.send(), time.Nanosecond) {
		if due <= attempt {
			select {
			case <-time.After(due):
				return <-answer // the first attempt's, which came before
			case <-ctx.Done():
			}
			break
		}
		select {
		case <-time.After(attempt + 50*time.Millisecond):
		case <-ctx.Done():
		}
	}
	if call.Op == "Get" || call.Op == "ListPage" {
		return context.DeadlineExceeded
	}
	return &kv.UncertainError{Key: call.Key, Err: context.DeadlineExceeded}
}

// Members of a fleet that is stopped give everything back at once, each many
// partitions. The store is slow, but not so slow that it could not take that:
// it must not be sent so much that it answers nothing in time, heartbeats and
// the ends of sessions included.
func TestPoolMembersThatAllStopAtOnceDoNotOverwhelmASlowStore(t *testing.T) {
	t.Parallel()
	const partitions = 150
	for _, members := range []int{3, 10} {
		for _, takes := range []time.Duration{2 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond} {
			t.Run(fmt.Sprintf("%d members, %v", members, takes), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w, b, server := newWorld(t), newLedger(), &slowServer{}
					w.partitions(partitions)
					events := &recorder{}
					var all []*member
					for i := range members {
						name := fmt.Sprint(i)
						c, link := w.client(name, lease.WithTTL(lease.MinTTL), lease.WithObserver(events.Observe))
						link.SetIntercept(server.hook)
						all = append(all, w.run(&member{client: c, link: link}, b.handler(name)))
					}
					b.await(t, time.Minute, partitions, members)
					server.set(takes)
					time.Sleep(time.Minute)
					began := time.Now()
					for _, m := range all {
						m.stop()
					}
					closed := make(chan error, members)
					for _, m := range all {
						go func() {
							<-m.ended
							closed <- m.client.Close(context.Background())
						}()
					}
					for range all {
						require.NoError(t, <-closed)
					}
					t.Logf("after %v", time.Since(began))
					require.Empty(t, events.Of(lease.EventSessionLost))
					require.Empty(t, w.rows("session/"))
					require.Less(t, time.Since(began), 2*partitions*takes+2*time.Second)
				})
			})
		}
	}
}

// onTheWire lets every request about a partition take 5 ms, and returns the
// most that were under way at once since it was asked last.
func (l *link) onTheWire() (most func() int) {
	var mu sync.Mutex
	now, top := 0, 0
	count := func(d int) {
		mu.Lock()
		defer mu.Unlock()
		now += d
		top = max(top, now)
	}
	l.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
		if strings.HasPrefix(call.Key, "lease/pool/p/") && call.Op != "ListPage" {
			count(1)
			defer count(-1)
		}
		time.Sleep(5 * time.Millisecond)
		return next(ctx)
	})
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		defer func() { top = now }()
		return top
	}
}

// A store that answers soon gets more and more at a time, up to a bound; the
// next burst begins with a few again.
func TestPoolSendsAQuickStoreManyRequestsAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		const n = 1000
		w.partitions(n)
		c, link := w.client("0")
		most := link.onTheWire()
		m := w.run(&member{client: c, link: link}, b.handler("0"), pool.WithMaxMoves(n),
			pool.WithPlanInterval(time.Hour)) // it is not planning when it is stopped
		time.Sleep(24 * time.Millisecond) // two listings, the session, and not yet two rounds
		require.Positive(t, most())
		require.LessOrEqual(t, most(), 3)
		b.await(t, time.Second, n, 1)
		require.Equal(t, 32, most())
		time.Sleep(time.Minute)
		began := time.Now()
		m.stop()
		time.Sleep(3 * time.Millisecond)
		require.Equal(t, 2, most())
		require.NoError(t, <-m.ended)
		require.Equal(t, 32, most())
		require.Less(t, time.Since(began), 300*time.Millisecond, "32 at a time all along would take 160 ms")
	})
}
