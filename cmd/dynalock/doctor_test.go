package main

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
)

// examined is what doctor finds in a store, by check.
func examined(t *testing.T, store kv.Store, watch time.Duration) map[string]finding {
	t.Helper()
	client, err := lease.New(store)
	require.NoError(t, err)
	defer func() { require.NoError(t, client.Close(t.Context())) }()
	found := map[string]finding{}
	for _, f := range examine(t.Context(), &opened{Client: client, store: store, spec: "memory:"}, watch) {
		found[f.Check] = f
	}
	return found
}

func TestDoctorFindsRowsThatCannotBeRead(t *testing.T) {
	t.Parallel()
	store := memkv.New()
	require.NoError(t, store.Put(t.Context(), "lease/edited", kv.WithString("by hand")))
	require.NoError(t, store.Put(t.Context(), "session/newer", kv.WithString(`{"f":99}`)))
	found := examined(t, store, 0)
	require.False(t, found["locks"].OK)
	require.Contains(t, found["locks"].Text, "1 cannot be read")
	require.Contains(t, found["locks"].Text, "edited")
	require.False(t, found["sessions"].OK)
	require.True(t, found["reads"].OK)
}

func TestDoctorFindsAMissingPermission(t *testing.T) {
	t.Parallel()
	for op, check := range map[string]string{
		"Exists": "reads", "AtomicPut": "writes", "AtomicDelete": "writes", "ListPage": "sessions",
	} {
		store := kv.Instrument(memkv.New(), func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Op == op {
				return kv.ErrRefused
			}
			return next(ctx)
		})
		found := examined(t, store, 0)
		require.False(t, found[check].OK, op)
		require.Contains(t, found[check].Text, "refused", op)
	}
}

func TestDoctorFindsAClockThatIsWrong(t *testing.T) {
	t.Parallel()
	now := time.Now().UTC().Truncate(time.Second) // as a Date has it
	require.True(t, compareClocks(now.Format(http.TimeFormat), now).OK)
	require.True(t, compareClocks("", now).OK)
	for _, off := range []time.Duration{20 * time.Minute, -20 * time.Minute} {
		f := compareClocks(now.Add(off).Format(http.TimeFormat), now)
		require.False(t, f.OK)
		require.Contains(t, f.Text, "20m")
	}
}

func TestDoctorFindsASessionThatIsSilent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		var writes atomic.Int64
		stopped := kv.Instrument(store, func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if strings.HasPrefix(call.Key, "session/") && writes.Add(1) > 1 { // its first heartbeat hangs
				<-ctx.Done()
				return ctx.Err()
			}
			return next(ctx)
		})
		for owner, way := range map[string]kv.Store{"stopped": stopped, "alive": store} {
			client, err := lease.New(way, lease.WithOwner(owner))
			require.NoError(t, err)
			defer func() { _ = client.Close(context.Background()) }()
			l, err := client.Acquire(t.Context(), owner)
			require.NoError(t, err)
			defer func() { _ = l.Release(context.Background()) }()
		}
		found := examined(t, store, 10*time.Second)["silent"]
		require.True(t, found.OK, "its TTL is not over")
		require.Contains(t, found.Text, "stopped")
		found = examined(t, store, lease.DefaultTTL)["silent"]
		require.False(t, found.OK)
		require.Contains(t, found.Text, "stopped sent no heartbeat in 15s")
		require.NotContains(t, found.Text, "alive")
	})
}
