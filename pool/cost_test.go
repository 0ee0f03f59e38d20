package pool_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv/kvtest"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/pool"
)

// What a member costs in steady state: a heartbeat per third of the TTL and two
// listings per plan interval, each a request per page (of 1,000 rows on memkv),
// whatever it works on; both intervals vary by a tenth. Idle partitions get no
// write.
func TestPoolCostsInSteadyStateWhatItSays(t *testing.T) {
	t.Parallel()
	for n, minutes := range map[int]int{10: 20, 1010: 5} {
		if n > 1000 && testing.Short() {
			continue // two pages: it takes long
		}
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w, b := newWorld(t), newLedger()
				w.partitions(n)
				var members []*member
				for i := range 3 {
					name := fmt.Sprint(i)
					members = append(members, w.member(name, b.handler(name), pool.WithMaxPartitions(n/2), pool.WithMaxMoves(100)))
				}
				b.await(t, 10*time.Minute, n, 3)
				time.Sleep(2 * time.Minute)
				versions := w.versions()
				for _, m := range members {
					m.link.Take()
				}
				time.Sleep(time.Duration(minutes) * time.Minute)
				within := 0.6 / float64(minutes) // a request more or less at each end
				for _, m := range members {
					calls := m.link.Take()
					pages := 1 + (n+999)/1000
					require.InEpsilon(t, minutes*12, calls["AtomicPut"], within)
					require.InEpsilon(t, minutes*6*pages, calls["ListPage"], within)
					delete(calls, "AtomicPut")
					delete(calls, "ListPage")
					require.Empty(t, calls)
				}
				require.Equal(t, versions, w.versions(), "an idle partition was written")
				for _, m := range members {
					m.leave(t)
				}
			})
		})
	}
}

// versions returns the versions of the pool's rows.
func (w *world) versions() map[string]uint64 {
	pairs, err := w.store.List(context.Background(), "lease/")
	require.NoError(w.t, err)
	versions := map[string]uint64{}
	for _, p := range pairs {
		versions[p.Key] = p.Version
	}
	return versions
}

// Members whose requests and answers get lost, who are throttled, cut off,
// stopped and started: no partition is ever worked on by two who both have its
// lease, tokens only grow, and when all is well again everything is worked on.
func TestPoolHandlersNeverOverlapUnderFaults(t *testing.T) {
	t.Parallel()
	seeds := uint64(8)
	if testing.Short() {
		seeds = 2
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { poolUnderFaults(t, seed) })
		})
	}
}

func poolUnderFaults(t *testing.T, seed uint64) {
	const n = 20
	r := rand.New(rand.NewPCG(seed, 7))
	w, b := newWorld(t), newLedger()
	w.partitions(n)
	began := time.Now()
	outages := make([]time.Duration, 4)
	start := func(i int) *member {
		name := fmt.Sprint(i, "@", time.Since(began))
		l := newLink(w.store)
		faulty := kvtest.Faulty(l, kvtest.Plan{
			Seed: r.Uint64(), LostRequest: 0.03, LostAnswer: 0.03, Throttle: 0.03, Delay: 0.1, MaxDelay: 900 * time.Millisecond,
			Outage: func() bool {
				since := time.Since(began)
				return since > outages[i] && since < outages[i]+25*time.Second && since < 5*time.Minute
			},
		})
		c, err := lease.New(faulty, lease.WithOwner(name))
		require.NoError(t, err)
		return w.run(&member{client: c, link: l}, inFlight(b, name, seed))
	}
	members := make([]*member, 4)
	for i := range members {
		outages[i] = time.Duration(r.Int64N(int64(4 * time.Minute)))
		members[i] = start(i)
	}
	for time.Since(began) < 5*time.Minute {
		time.Sleep(time.Duration(r.Int64N(int64(time.Minute))))
		i := r.IntN(len(members))
		members[i].stop()
		<-members[i].ended // an error: it could not join
		_ = members[i].client.Close(t.Context())
		members[i] = start(i)
	}
	time.Sleep(5 * time.Minute)
	load := b.load()
	sum := 0
	for _, l := range load {
		sum += l
	}
	require.GreaterOrEqual(t, sum, n-4, "some may be resting after an error: %v", load)
	b.requireNoOverlap(t)
	for _, m := range members {
		m.stop()
		<-m.ended
		_ = m.client.Close(t.Context())
	}
	require.Empty(t, b.load())
}

// inFlight is a handler that writes checkpoints, fails now and then, and stops
// when it is asked to or its context ends.
func inFlight(b *ledger, name string, seed uint64) pool.Handler {
	return func(ctx context.Context, l *pool.Work) error {
		b.begin(name, l)
		defer b.end(name, l)
		r := rand.New(rand.NewPCG(seed, l.Token()))
		for {
			t := time.NewTimer(time.Duration(r.Int64N(int64(20 * time.Second))))
			select {
			case <-t.C:
			case <-l.Draining():
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			if err := l.Save(ctx, []byte(name)); err != nil && r.IntN(3) == 0 {
				return err
			}
		}
	}
}

// What the calls of an operator cost for a partition that nobody has.
func TestPoolCallsCostWhatTheySay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p, link := w.tool()
		for _, test := range []struct {
			name string
			call func() error
			cost map[string]int
		}{
			{"Add", func() error { return p.Add(t.Context(), "x") }, map[string]int{"AtomicPut": 1}},
			{"Pause", func() error { return p.Pause(t.Context(), "x") }, map[string]int{"Get": 2, "AtomicPut": 1}},
			{"Resume", func() error { return p.Resume(t.Context(), "x") }, map[string]int{"Get": 1, "AtomicPut": 1}},
			{"SetWeight", func() error { return p.SetWeight(t.Context(), 2, "x") }, map[string]int{"Get": 1, "AtomicPut": 1}},
			{"Reopen", func() error { return p.Reopen(t.Context(), "x") }, map[string]int{"Get": 1}},
			{"Remove", func() error { return p.Remove(t.Context(), "x") },
				map[string]int{"Get": 2, "AtomicPut": 1, "AtomicDelete": 1}},
		} {
			require.NoError(t, test.call(), test.name)
			require.Equal(t, test.cost, link.Take(), test.name)
		}
	})
}
