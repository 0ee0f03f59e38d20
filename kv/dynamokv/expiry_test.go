package dynamokv_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
)

func TestAPairExpiresToTheMillisecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const ttl = 1234 * time.Millisecond
		s, _ := memStore(t, newMem())
		ctx := t.Context()
		require.NoError(t, s.Put(ctx, "put", kv.WithTTL(ttl)))
		created, err := s.AtomicPut(ctx, "created", kv.WithTTL(ttl))
		require.NoError(t, err)
		live := func(want bool) {
			t.Helper()
			pairs, err := s.List(ctx, "")
			require.NoError(t, err)
			require.Equal(t, want, len(pairs) == 2)
			for _, key := range []string{"put", "created"} {
				exists, err := s.Exists(ctx, key)
				require.NoError(t, err)
				require.Equal(t, want, exists, key)
			}
		}
		time.Sleep(ttl - time.Millisecond)
		live(true)
		_, err = s.AtomicPut(ctx, "put")
		require.ErrorIs(t, err, kv.ErrKeyExists)
		time.Sleep(time.Millisecond)
		live(false)
		require.ErrorIs(t, s.AtomicDelete(ctx, "created", created), kv.ErrKeyModified)
		again, err := s.AtomicPut(ctx, "created")
		require.NoError(t, err)
		require.Greater(t, again.Version, created.Version)
	})
}

// A pair that does not expire must not be swept for a hint that an older write
// gave.
func TestPutWithKeepTTLLeavesNoOlderHint(t *testing.T) {
	t.Parallel()
	hint := kv.WithSweepAfter(48 * time.Hour)
	for _, c := range []struct {
		name       string
		first, now []kv.WriteOption
		requests   int
		swept      bool // after three days
	}{
		{"a hint", []kv.WriteOption{hint}, nil, 2, false},
		{"a hint, and a new one", []kv.WriteOption{hint}, []kv.WriteOption{hint}, 2, true},
		{"none, and a new one", nil, []kv.WriteOption{hint}, 2, true},
		{"none", nil, nil, 1, false},
		{"an expiry", []kv.WriteOption{kv.WithTTL(time.Hour)}, nil, 1, true},
		{"an expiry, and a hint", []kv.WriteOption{kv.WithTTL(time.Hour), hint}, nil, 1, true},
		{"an expiry after a hint", []kv.WriteOption{kv.WithTTL(100 * time.Hour), hint}, nil, 1, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				server := newMem()
				s, client := memStore(t, server)
				first := append(c.first, kv.WithString("1"), kv.WithFields(kv.Fields{"f": 1}))
				require.NoError(t, s.Put(t.Context(), "key", first...))
				before, err := s.Get(t.Context(), "key")
				require.NoError(t, err)
				client.Inject(nil)
				require.NoError(t, s.Put(t.Context(), "key", append(c.now, kv.WithString("2"), kv.WithKeepTTL())...))
				require.Equal(t, c.requests, client.Requests())
				after, err := s.Get(t.Context(), "key")
				require.NoError(t, err)
				require.Equal(t, before.Expires, after.Expires)
				require.Equal(t, before.Fields, after.Fields)
				require.Equal(t, "2", after.String())
				time.Sleep(72 * time.Hour)
				require.Equal(t, c.swept, server.Sweep(time.Now()) == 1)
			})
		})
	}
}
