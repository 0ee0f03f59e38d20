package session_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/internal/session"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
)

const (
	ttl      = 10 * time.Second
	margin   = time.Second
	interval = ttl / 3
)

var (
	attempts = kv.WithAttemptTimeout(time.Second)
	errLost  = errors.New("answer lost")
)

// config is that of a session on store, whose background tasks end with the test.
func config(t *testing.T, store kv.Store) session.Config {
	return session.Config{
		Store: store, Heartbeats: store, Attempts: attempts, Clock: clock.System,
		TTL: ttl, Margin: margin, Interval: interval, Timeout: ttl, Owner: "a", Groups: &session.Groups{},
		Cause:   func(reason string) error { return errors.New(reason) },
		Start:   func(task func(context.Context)) { go task(t.Context()) },
		Beaten:  func(*session.Session, time.Duration, time.Duration, error, bool) {},
		Lost:    func(*session.Session, string) {},
		Revoked: func(*session.Session, map[string]struct{}) {},
	}
}

// unlanded opens a session whose create is applied and its answer lost. hook is
// called around each later call.
func unlanded(t *testing.T, hook kv.Hook) (u *session.Unlanded, store *memkv.Store) {
	t.Helper()
	store = memkv.New()
	opened := false
	_, u, err := session.Open(t.Context(), config(t, kv.Instrument(store, func(
		ctx context.Context, call kv.Call, next func(context.Context) error,
	) error {
		if opened {
			return hook(ctx, call, next)
		}
		opened = true
		require.NoError(t, next(ctx))
		return &kv.UncertainError{Key: call.Key, Err: errLost}
	})))
	require.ErrorIs(t, err, kv.ErrUncertain)
	require.NotNil(t, u)
	return u, store
}

func TestR1TheRowOfASessionThatNeverWasIsEndedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		u, store := unlanded(t, func(ctx context.Context, _ kv.Call, next func(context.Context) error) error {
			calls++
			return next(ctx)
		})
		require.NoError(t, u.End(t.Context()))
		require.Equal(t, 2, calls)
		require.NoError(t, u.End(t.Context()), "Close, after the background has ended it")
		require.Equal(t, 2, calls)
		require.Empty(t, allRows(t, store))
	})
}

// The first create lands between the two writes that are to end it.
func TestR1ACreateThatLandsBesideItsEndIsEndedToo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var store *memkv.Store
		var u *session.Unlanded
		landed := false
		u, store = unlanded(t, func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Op == "AtomicDelete" && !landed {
				landed = true
				require.NoError(t, store.Put(ctx, call.Key, kv.WithString("another version")))
			}
			return next(ctx)
		})
		require.NoError(t, u.End(t.Context()))
		require.True(t, landed)
		require.Empty(t, allRows(t, store))
	})
}

// Holders may be slow to hear that an operator has taken their leases: they have
// their margin from then on, before the receipt tells that they have stopped.
func TestR17TheMarginOfARevocationCountsFromWhenItsHoldersWereTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		c := config(t, store)
		told := make(chan time.Time, 1)
		c.Revoked = func(*session.Session, map[string]struct{}) {
			time.Sleep(margin * 3 / 2)
			told <- time.Now()
		}
		s, _, err := session.Open(t.Context(), c)
		require.NoError(t, err)
		defer func() {
			s.Lose(session.Killed, false)
			require.NoError(t, s.End(t.Context()))
		}()
		revoked := func() []string {
			pair, err := store.Get(t.Context(), rows.SessionPrefix+s.ID())
			require.NoError(t, err)
			record, err := rows.DecodeSession(pair)
			require.NoError(t, err)
			return record.Revoked
		}
		pair, err := store.Get(t.Context(), rows.SessionPrefix+s.ID())
		require.NoError(t, err)
		record, err := rows.DecodeSession(pair)
		require.NoError(t, err)
		record.Revoked = []string{"key@1"}
		_, err = store.AtomicPut(t.Context(), pair.Key, record.Options(pair, attempts)...)
		require.NoError(t, err)
		since := <-told
		for time.Since(since) < margin {
			synctest.Wait()
			require.NotEmpty(t, revoked(), "%v after they were told", time.Since(since))
			time.Sleep(margin / 10)
		}
		time.Sleep(interval)
		require.Empty(t, revoked(), "the receipt")
	})
}

// leaping is a clock that leaps forward when it is read for the second time from
// now, as if the process had been suspended before that.
type leaping struct {
	clock.Clock
	mu     sync.Mutex
	reads  int
	leap   time.Duration
	passed time.Duration
}

func (l *leaping) arm(leap time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reads, l.leap = 2, leap
}

func (l *leaping) Now() clock.Reading {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reads--; l.reads == 0 {
		l.passed += l.leap
	}
	now := l.Clock.Now()
	return clock.Reading{Mono: now.Mono + l.passed, Boot: now.Boot + l.passed, Wall: now.Wall.Add(l.passed)}
}

// H21: the trust ends between the look at it and the note that a heartbeat was
// acknowledged. That does not bring it back.
func TestR3AHeartbeatThatIsNotedTooLateRenewsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		c, l := config(t, store), &leaping{Clock: clock.System}
		c.Clock = l
		var beats atomic.Int32
		c.Heartbeats = kv.Instrument(store, func(ctx context.Context, _ kv.Call, next func(context.Context) error) error {
			err := next(ctx)
			if beats.Add(1) == 1 {
				l.arm(ttl - interval + margin) // beyond the old trust, within the new one
			}
			return err
		})
		s, _, err := session.Open(t.Context(), c)
		require.NoError(t, err)
		defer func() {
			s.Lose(session.Killed, false)
			require.NoError(t, s.End(t.Context()))
		}()
		time.Sleep(interval * 3 / 2)
		require.EqualValues(t, 1, beats.Load())
		require.Equal(t, session.Expired, s.Reason())
	})
}

func allRows(t *testing.T, store kv.Store) []*kv.KVPair {
	t.Helper()
	pairs, err := store.List(t.Context(), "")
	require.NoError(t, err)
	return pairs
}
