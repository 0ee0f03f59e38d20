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

const (
	ttl       = 16 * time.Second
	deadAfter = ttl + ttl/16
	soon      = 50 * time.Millisecond
)

// session writes a session's row over previous, nil: anew.
func session(t *testing.T, store kv.Store, previous *kv.KVPair) (*kv.KVPair, *rows.Session) {
	t.Helper()
	r := &rows.Session{Owner: "a", TTL: ttl.Milliseconds(), Nonce: rows.RandomID(8)}
	pair, err := store.AtomicPut(t.Context(), rows.SessionPrefix+"id",
		r.Options(previous, kv.WithAttemptTimeout(time.Second))...)
	require.NoError(t, err)
	return pair, r
}

func newDetector(store kv.Store) (d *liveness.Detector, killed *int) {
	killed = new(int)
	return liveness.New(liveness.Config{
		Store: store, Attempts: kv.WithAttemptTimeout(time.Second), Clock: clock.System, Soon: soon,
		Overdue: func(string, string, time.Duration) {},
		Killed:  func(string, string) { *killed++ },
	}), killed
}

// beforeDelete calls do once, when a session is about to be deleted.
func beforeDelete(store kv.Store, do func()) kv.Store {
	done := false
	return kv.Instrument(store, func(_ context.Context, call kv.Call, next func(context.Context) error) error {
		if call.Op == "AtomicDelete" && !done {
			done = true
			do()
		}
		return next(context.Background())
	})
}

// isDead asks until the session has been silent for long enough.
func isDead(t *testing.T, d *liveness.Detector) (dead bool, next time.Duration) {
	t.Helper()
	began := time.Now()
	for {
		dead, next, err := d.IsDead(t.Context(), "id")
		require.NoError(t, err)
		if dead || time.Since(began) >= deadAfter {
			return dead, next
		}
		time.Sleep(next)
	}
}

// A listing of a lagging replica shows an older row: the silence goes on.
func TestR10AnOlderRowIsNoSignOfLife(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		old, oldRow := session(t, store, nil)
		young, youngRow := session(t, store, old)
		d, _ := newDetector(store)
		require.Equal(t, deadAfter, d.Note("id", young, youngRow))
		time.Sleep(time.Second)
		require.Equal(t, deadAfter-time.Second, d.Note("id", old, oldRow))
		time.Sleep(time.Second)
		require.Equal(t, deadAfter-2*time.Second, d.Note("id", young, youngRow))
	})
}

// A heartbeat that comes before the kill counts as seen: the session is not asked
// after again before a third of its TTL.
func TestR10TheHeartbeatThatForestalledAKillWasSeen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		pair, _ := session(t, store, nil)
		d, killed := newDetector(beforeDelete(store, func() { session(t, store, pair) }))
		dead, next := isDead(t, d)
		require.False(t, dead)
		require.Equal(t, ttl/3, next)
		require.Zero(t, *killed)
	})
}

// Another contender's kill comes first: the session is dead for this one, too.
func TestR10ASessionThatWasGoneBeforeTheKillIsDead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		pair, _ := session(t, store, nil)
		d, killed := newDetector(beforeDelete(store, func() {
			require.NoError(t, store.AtomicDelete(t.Context(), pair.Key, pair))
		}))
		dead, _ := isDead(t, d)
		require.True(t, dead)
		require.Zero(t, *killed, "by another")
		require.True(t, d.KnownDead("id"))
	})
}

// People are told of a silent session before it is ended, once for each silence,
// whatever shows it: a look or a listing.
func TestASilentSessionIsOverdueOnceBeforeItIsDead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		pair, row := session(t, store, nil)
		d, killed := newDetector(store)
		reports := 0
		d.Overdue = func(id, owner string, lifetime time.Duration) {
			require.Equal(t, []any{"id", "a", ttl}, []any{id, owner, lifetime})
			require.Zero(t, *killed)
			reports++
		}
		d.Note("id", pair, row)
		time.Sleep(ttl*2/3 - 1)
		d.Note("id", pair, row)
		require.Zero(t, reports, "a heartbeat may still come")
		time.Sleep(time.Nanosecond)
		for range 3 {
			d.Note("id", pair, row)
		}
		require.Equal(t, 1, reports)
		session(t, store, pair)
		dead, _ := isDead(t, d)
		require.True(t, dead)
		require.Equal(t, 2, reports, "another silence")
		require.Equal(t, 1, *killed)
		d.Note("id", pair, row) // of a lagging replica
		require.Equal(t, 2, reports)
	})
}
