package lease_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// failovers are crashes of a holder in virtual time, at any moment between two
// of its heartbeats.
type failovers struct {
	// skew is how far the holder's wall clock is ahead of the waiter's. slow is how
	// long a heartbeat is on its way.
	skew, slow time.Duration
	// watched is for how long the waiter waits before the crash.
	watched time.Duration
}

// run returns how long the waiter waited after each of n crashes, sorted, and how
// often it looked at the holder's session per third of its TTL.
func (f failovers) run(t *testing.T, n int) (took []time.Duration, looks float64) {
	var all int
	var waited time.Duration
	for i := range n {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			holder, link := w.client("holder", lease.WithLogger(slog.New(slog.DiscardHandler)),
				lease.WithClock(clock.NewSkewed(clock.System, 1, f.skew)))
			w.acquire(holder, "key")
			beats := make(chan struct{}, 1)
			link.SetIntercept(func(ctx context.Context, _ kv.Call, next func(context.Context) error) error {
				time.Sleep(f.slow)
				defer func() {
					select {
					case beats <- struct{}{}:
					default:
					}
				}()
				return next(ctx)
			})
			waiter, looking := w.client("waiter")
			looking.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
				if call.Op == "Get" && strings.HasPrefix(call.Key, rows.SessionPrefix) {
					all++
				}
				return next(ctx)
			})
			began := time.Now()
			got := waitFor(t.Context(), waiter, "key")
			time.Sleep(f.watched)
			select {
			case <-beats:
			default:
			}
			<-beats
			time.Sleep(untilNextBeat(t, w) * time.Duration(2*i+1) / time.Duration(2*n))
			link.SetCut(true)
			crashed := time.Now()
			g := <-got
			require.NoError(t, g.err)
			require.True(t, g.TakenOver())
			require.Less(t, g.at.Sub(crashed), bound, "I5")
			took = append(took, g.at.Sub(crashed))
			waited += g.at.Sub(began)
			looking.SetIntercept(nil)
			require.NoError(t, g.Release(t.Context()))
		})
	}
	slices.Sort(took)
	return took, float64(all) / (waited.Seconds() / (ttl.Seconds() / 3))
}

// untilNextBeat is what the row of the holder's session says.
func untilNextBeat(t *testing.T, w *world) time.Duration {
	for _, key := range w.rows(rows.SessionPrefix) {
		pair, err := w.store.Get(t.Context(), key)
		require.NoError(t, err)
		record, err := rows.DecodeSession(pair)
		require.NoError(t, err)
		if record.Owner == "holder" {
			return record.NextBeat()
		}
	}
	require.Fail(t, "no session of the holder")
	return 0
}

// Where the clocks agree a waiter sees the last heartbeat as soon as it is there.
// Else it learns when to look, and is late by little more.
func TestR10WaiterHasTheKeyOfACrashedHolderSoon(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		failovers
		median, most, looks float64 // at most, in TTLs and per third of one
	}{
		"clocks that agree":              {failovers{watched: ttl}, 0.92, 1.09, 1.33},
		"a long wait":                    {failovers{watched: 10 * ttl}, 0.92, 1.09, 1.08},
		"heartbeats of half a second":    {failovers{watched: 10 * ttl, slow: ttl / 20}, 0.98, 1.16, 1.3},
		"a clock ahead":                  {failovers{watched: 10 * ttl, skew: ttl / 10}, 0.94, 1.12, 1.3},
		"a clock behind":                 {failovers{watched: 10 * ttl, skew: -ttl / 10}, 0.94, 1.12, 1.33},
		"a clock far ahead":              {failovers{watched: 10 * ttl, skew: time.Hour}, 0.94, 1.12, 1.3},
		"a clock far behind, and slowly": {failovers{watched: 10 * ttl, skew: -time.Hour, slow: ttl / 50}, 0.96, 1.14, 1.3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			took, looks := test.run(t, 61)
			share := func(i int) float64 { return took[i].Seconds() / ttl.Seconds() }
			t.Logf("%s: of a TTL: least %.3f, median %.3f, most %.3f; %.3f looks per third of a TTL",
				name, share(0), share(30), share(60), looks)
			require.LessOrEqual(t, share(30), test.median)
			require.LessOrEqual(t, share(60), test.most)
			require.LessOrEqual(t, looks, test.looks)
		})
	}
}
