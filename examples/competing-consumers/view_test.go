package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
)

func TestADeathTellsWhatTheDeadHadLocked(t *testing.T) {
	t.Parallel()
	store := memkv.New()
	require.NoError(t, offer(t.Context(), store, "set", []string{"a", "b", "c", "d"}, nil))
	for entry, owner := range map[string]string{"a": "one", "b": "two", "c": "one"} {
		client, err := lease.New(store, lease.WithOwner(owner))
		require.NoError(t, err)
		t.Cleanup(func() { _ = client.Close(t.Context()) })
		_, err = client.TryAcquire(t.Context(), "pool/set/"+entry)
		require.NoError(t, err)
	}
	viewer, err := newViewer(store, "set")
	require.NoError(t, err)
	died, err := viewer.died(t.Context(), "one", true)
	require.NoError(t, err)
	require.Equal(t, death{Worker: "one", Killed: true, Locked: []string{"a", "c"}}, died)

	other, err := newViewer(store, "set")
	require.NoError(t, err)
	result := Result{Worker: "two", Token: 7, Digest: "x"}
	require.NoError(t, resultsOf(store, "set").Put(t.Context(), "a", kv.WithJSON(result)))
	seen, err := other.look(t.Context())
	require.NoError(t, err)
	require.Equal(t, view{results: map[string]Result{"a": result}, deaths: []death{died}}, seen)
	require.Equal(t, 1, died.takenOver(seen.results))
	require.Zero(t, died.takenOver(map[string]Result{"c": {Worker: "one"}, "b": result}),
		"it did c itself, and never had b")
}
