package dynamokv_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/dynamomem"
	"github.com/dynalock/dynalock/kv"
)

// Put starts over whenever the row changes between its look and its write.
func TestAPutOverARowThatComesAndGoes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		n    int
		want bool
	}{{1, true}, {12, true}, {1 << 30, false}} {
		t.Run(fmt.Sprint(c.n, " times"), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				server := newMem()
				theirs, _ := memStore(t, server)
				require.NoError(t, theirs.Delete(t.Context(), "key")) // Put looks first: fields must not come back
				s, client := memStore(t, server)
				tries := 0
				client.Inject(func(_ context.Context, call dynamomem.Call, apply dynamomem.Apply) (any, error) {
					if call.Operation == "PutItem" {
						if tries++; tries <= c.n {
							require.NoError(t, theirs.Delete(t.Context(), "key"))
						}
					}
					return apply()
				})
				start := time.Now()
				err := s.Put(t.Context(), "key", kv.WithString("mine"))
				if !c.want {
					requireOnly(t, err, kv.ErrThrottled)
					require.InDelta(t, 10*time.Second, time.Since(start), float64(1100*time.Millisecond))
					require.Less(t, tries, 50)
					return
				}
				require.NoError(t, err)
				require.Equal(t, c.n+1, tries)
			})
		})
	}
}

// A Put of which an attempt is unknown stays unknown when its time is up.
func TestAnUnknownPutOverARowThatComesAndGoes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := newMem()
		theirs, _ := memStore(t, server)
		s, client := memStore(t, server)
		client.Inject(func(ctx context.Context, c dynamomem.Call, apply dynamomem.Apply) (any, error) {
			if c.Number == 1 {
				return dynamomem.Lost(dynamomem.ErrCut)(ctx, c, apply)
			}
			require.NoError(t, theirs.Delete(t.Context(), "key"))
			return apply()
		})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		err := s.Put(ctx, "key")
		requireOnly(t, err, kv.ErrUncertain)
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}
