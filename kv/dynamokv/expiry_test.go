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
