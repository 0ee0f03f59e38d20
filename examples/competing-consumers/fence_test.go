package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv/memkv"
)

func TestASmallerTokenNeverReplacesAGreater(t *testing.T) {
	t.Parallel()
	store := memkv.New()
	for _, step := range []struct {
		result   Result
		accepted bool
	}{
		{Result{"a", 5, "x"}, true},
		{Result{"b", 4, "y"}, false},
		{Result{"b", 5, "y"}, false},
		{Result{"c", 6, "z"}, true},
		{Result{"a", 5, "x"}, false},
	} {
		accepted, err := publish(t.Context(), store, "entry", step.result)
		require.NoError(t, err)
		require.Equal(t, step.accepted, accepted, step.result)
	}
	last, err := findResult(t.Context(), store, "entry")
	require.NoError(t, err)
	require.Equal(t, &Result{"c", 6, "z"}, last)
}

func TestDuplicatesAreSeen(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		events []Event
		final  map[string]Result
		want   int
	}{
		"one after the other": {events: []Event{
			{Event: entryAcquired, Worker: "a", Entry: "x", At: 1}, {Event: entryReleased, Worker: "a", Entry: "x", At: 2},
			{Event: entryAcquired, Worker: "b", Entry: "x", At: 2}, {Event: entryReleased, Worker: "b", Entry: "x", At: 3},
		}},
		"overlapping holders": {want: 1, events: []Event{
			{Event: entryAcquired, Worker: "a", Entry: "x", At: 1}, {Event: entryAcquired, Worker: "b", Entry: "x", At: 2},
			{Event: entryReleased, Worker: "a", Entry: "x", At: 3}, {Event: entryReleased, Worker: "b", Entry: "x", At: 4},
		}},
		"holder before the other had died": {want: 1, events: []Event{
			{Event: entryAcquired, Worker: "a", Entry: "x", At: 1}, {Event: entryAcquired, Worker: "b", Entry: "x", At: 2},
			{Event: workerKilled, Worker: "a", At: 3}, {Event: entryReleased, Worker: "b", Entry: "x", At: 4},
		}},
		"two accepted results": {want: 1, events: []Event{
			{Event: entryDone, Worker: "a", Entry: "x", Token: 1}, {Event: entryDone, Worker: "b", Entry: "x", Token: 2},
		}},
		"a result of another process over ours": {
			want: 1, events: []Event{{Event: entryDone, Worker: "a", Entry: "x", Token: 1}},
			final: map[string]Result{"x": {Worker: "c", Token: 2}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tally := newTally()
			for _, e := range c.events {
				tally.add(e)
			}
			require.Equal(t, c.want, tally.duplicates(c.final))
		})
	}
}
