package lease_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

func TestRowsAreReadWithTheBoundsOfTheOptions(t *testing.T) {
	t.Parallel()
	require.Equal(t, rows.MinTTL, lease.MinTTL)
	require.Equal(t, rows.MaxTTL, lease.MaxTTL)
}

func TestR18ForeignRowsAreLeftAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c, _ := w.client("a")
		for row, value := range map[string]string{
			"lease/text":    "hello",
			"lease/newer":   `{"f":9,"session":"x","acq":"y"}`,
			"lease/neither": `{"f":2}`,
			"lease/ttl":     `{"f":2,"session":"short","acq":"y"}`,
			"session/short": `{"f":2,"ttl_ms":10}`,
		} {
			require.NoError(t, w.store.Put(t.Context(), row, kv.WithString(value)))
		}
		before := w.rows("")
		for _, key := range []string{"text", "newer", "neither", "ttl"} {
			for range 2 {
				_, err := c.TryAcquire(t.Context(), key)
				require.ErrorIs(t, err, kv.ErrFormat, key)
				_, err = c.Acquire(t.Context(), key)
				require.ErrorIs(t, err, kv.ErrFormat, key)
				time.Sleep(2 * ttl)
			}
		}
		require.Subset(t, w.rows(""), before)
	})
}

func TestR19TakeoverOfAKeepRowKeepsItsValue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c, _ := w.client("a")
		require.NoError(t, w.store.Put(t.Context(), "lease/key",
			kv.WithString(`{"f":2,"keep":true,"value":"Y2hlY2twb2ludA=="}`)))
		for range 2 {
			l := w.acquire(c, "key")
			require.NoError(t, l.Release(t.Context()))
			pair, err := w.store.Get(t.Context(), "lease/key")
			require.NoError(t, err)
			require.JSONEq(t, `{"f":2,"keep":true,"value":"Y2hlY2twb2ludA=="}`, pair.String())
		}
	})
}
