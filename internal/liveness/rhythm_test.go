package liveness_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/liveness"
	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
)

// looks returns after how long each a detector looks at a session whose holder
// has just beaten, says that it beats again after next, and does so after beats.
func looks(t *testing.T, ttl, next time.Duration, beats ...time.Duration) (after []time.Duration) {
	store := memkv.New()
	killed := false
	d := liveness.New(liveness.Config{
		Store: store, Attempts: kv.WithAttemptTimeout(time.Second), Clock: clock.System, Soon: 50 * time.Millisecond,
		Late: time.Second, Overdue: func(string, string, time.Duration) {}, Killed: func(string, string) { killed = true },
	})
	beat := func() {
		record := rows.Session{
			Owner: "holder", TTL: ttl.Milliseconds(), RenewedAt: time.Now(), Next: next.Milliseconds(), Nonce: rows.RandomID(8),
		}
		require.NoError(t, store.Put(t.Context(), rows.SessionPrefix+"id",
			record.Options(nil, kv.WithAttemptTimeout(time.Second))[0]))
	}
	began := time.Now()
	beat()
	for _, at := range beats {
		time.AfterFunc(at, beat)
	}
	for !killed {
		_, in, err := d.IsDead(context.Background(), "id")
		require.NoError(t, err)
		if !killed {
			time.Sleep(in)
			after = append(after, time.Since(began))
		}
	}
	return after
}

func TestR10LooksComeSoonAfterHeartbeats(t *testing.T) {
	t.Parallel()
	const ttl = 15 * time.Second
	for name, test := range map[string]struct {
		ttl, next time.Duration
		beats     []time.Duration
		want      []time.Duration
	}{
		"a holder that dies": {
			ttl: ttl, next: 5 * time.Second,
			want: []time.Duration{5050 * time.Millisecond, 6550 * time.Millisecond, 11243750 * time.Microsecond,
				15937500 * time.Microsecond},
		},
		"a holder that beats": {
			ttl: ttl, next: 4800 * time.Millisecond, beats: []time.Duration{4800 * time.Millisecond},
			want: []time.Duration{
				4850 * time.Millisecond, 9650 * time.Millisecond, 11150 * time.Millisecond, 15968750 * time.Microsecond,
				20787500 * time.Microsecond,
			},
		},
		"a version that does not say": {
			ttl: ttl, want: []time.Duration{5 * time.Second, 10 * time.Second, 15 * time.Second, 15937500 * time.Microsecond},
		},
		"other heartbeats than by default": {
			ttl: ttl, next: 2 * time.Second,
			want: []time.Duration{5 * time.Second, 10 * time.Second, 15 * time.Second, 15937500 * time.Microsecond},
		},
		"a long TTL, a late heartbeat": {
			ttl: time.Hour, next: 22 * time.Minute,
			want: []time.Duration{20*time.Minute + time.Second, 22*time.Minute + 12*time.Second},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				require.Equal(t, test.want, looks(t, test.ttl, test.next, test.beats...)[:len(test.want)])
			})
		})
	}
}
