package dynamokv_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
)

// pipe carries requests and answers at so many bits a second.
func pipe(bits int) func(int, *http.Request, next) (*http.Response, error) {
	carry := func(ctx context.Context, bytes int64) error {
		return clock.Sleep(ctx, clock.System, time.Duration(bytes)*8*time.Second/time.Duration(bits))
	}
	return func(_ int, r *http.Request, send next) (*http.Response, error) {
		if err := carry(r.Context(), r.ContentLength); err != nil {
			return nil, err
		}
		answered, err := send(r)
		if err != nil {
			return nil, err
		}
		body, err := io.ReadAll(answered.Body)
		if err != nil {
			return nil, err
		}
		answered.Body = io.NopCloser(bytes.NewReader(body))
		return answered, carry(r.Context(), int64(len(body)))
	}
}

func TestLargeValuesGoOverASlowLink(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newMemRig(t)
		large := strings.Repeat("x", 300<<10)
		r.wire.inject(pipe(2_000_000))
		pair, err := r.AtomicPut(t.Context(), "large", kv.WithString(large))
		require.NoError(t, err)
		require.Equal(t, 1, r.wire.requests())
		_, err = r.AtomicPut(t.Context(), "large", kv.WithString(large), kv.WithPrevious(pair))
		require.NoError(t, err)
		require.NoError(t, r.Put(t.Context(), "large", kv.WithString(large)))
		read, err := r.Get(t.Context(), "large")
		require.NoError(t, err)
		require.Equal(t, large, read.String())
		require.Equal(t, 4, r.wire.requests(), "each at the first attempt")
	})
}

func TestLargePairsAreListedOverASlowLink(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newMemRig(t)
		for i := range 8 {
			key := fmt.Sprintf("k%d", i)
			require.NoError(t, r.Put(t.Context(), key, kv.WithString(strings.Repeat("x", 100<<10))))
		}
		r.wire.inject(pipe(4_000_000))
		pairs, err := r.List(t.Context(), "")
		require.NoError(t, err)
		require.Len(t, pairs, 8)
		require.Equal(t, 1, r.wire.requests())
	})
}

func TestAShortAttemptOfALargeValueIsTheCallersWish(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newMemRig(t)
		r.wire.inject(pipe(2_000_000))
		_, err := r.AtomicPut(t.Context(), "large", kv.WithString(strings.Repeat("x", 300<<10)),
			kv.WithAttemptTimeout(time.Second))
		requireOnly(t, err, kv.ErrUncertain)
	})
}
