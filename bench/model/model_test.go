package model_test

import (
	"encoding/json"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/bench/model"
)

// TestMeasure measures for the bench, which names a file with the plan and one
// for the results.
func TestMeasure(t *testing.T) {
	file := os.Getenv("DYNALOCK_BENCH_PLAN")
	if file == "" {
		t.Skip("for make bench")
	}
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	var p model.Plan
	require.NoError(t, json.Unmarshal(text, &p))
	var found model.Results
	for _, o := range p.Offers {
		synctest.Test(t, func(t *testing.T) { found.Served = append(found.Served, o.Run(t)) })
	}
	for _, s := range p.Storms {
		synctest.Test(t, func(t *testing.T) { found.Recovered = append(found.Recovered, s.Run(t)) })
	}
	text, err = json.Marshal(found)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(os.Getenv("DYNALOCK_BENCH_RESULTS"), text, 0o600))
}

func TestNoSessionIsLostWhenLocksSaturateAPartition(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes minutes on a slow machine: left out by -short")
	}
	for _, shards := range []int{1, 2} {
		synctest.Test(t, func(t *testing.T) {
			s := model.Offer{Shards: shards, Processes: 40, Rate: 750 * shards, Lasts: 24 * time.Second}.Run(t)
			require.Zero(t, s.Lost)
			require.GreaterOrEqual(t, s.Fraction, 0.9)
			require.Less(t, s.Heartbeat, 2*time.Second)
			require.Less(t, s.Attempts, 3.0)
		})
	}
}

func TestTheLivingTakeOverWhatAZoneHeld(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes minutes on a slow machine: left out by -short")
	}
	synctest.Test(t, func(t *testing.T) {
		r := model.Storm{Shards: 1, Dead: 33, Living: 67, Leases: 10}.Run(t)
		require.Zero(t, r.Lost)
		require.Less(t, r.All, 23*time.Second, "a crash's bound at the default TTL, and requests")
		require.Less(t, r.Requests, 33*(1+10)*50, "takeovers, and polls")
	})
}
