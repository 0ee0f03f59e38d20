package lease_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

func inspect(t *testing.T, c *lease.Client, key string) *lease.Holder {
	t.Helper()
	h, err := c.Inspect(t.Context(), key)
	require.NoError(t, err)
	return h
}

func TestInspectNamesTheHolder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a", lease.WithMetadata(map[string]string{"zone": "b"}))
		b, link := w.client("b")
		require.Equal(t, &lease.Holder{Key: "key"}, inspect(t, b, "key"))
		link.Take()
		l, err := a.TryAcquire(t.Context(), "key", lease.WithValue([]byte("v")), lease.WithMaxHold(time.Hour))
		require.NoError(t, err)
		h := inspect(t, b, "key")
		require.Equal(t, map[string]int{"Get": 2}, link.Take())
		require.True(t, h.Held())
		require.Equal(t, []any{"a", l.Token(), "v", time.Hour}, []any{h.Owner, h.Token, string(h.Value), h.MaxHold})
		require.Equal(t, "b", h.Member.Metadata["zone"])
		require.Equal(t, ttl, h.Member.TTL)
		require.NoError(t, w.store.Delete(t.Context(), "session/"+h.Session))
		require.Nil(t, inspect(t, b, "key").Member)
		require.True(t, inspect(t, b, "key").Held())
	})
}

func TestInspectDoesNotTakeAHolderForDeadWhoseSessionCannotBeRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, link := w.client("b")
		w.acquire(a, "key")
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if strings.HasPrefix(call.Key, "session/") {
				return errLost
			}
			return next(ctx)
		})
		_, err := b.Inspect(t.Context(), "key")
		require.ErrorIs(t, err, errLost)
		link.SetIntercept(nil)
		require.NoError(t, w.store.Put(t.Context(), w.rows("session/")[0], kv.WithString("?")))
		_, err = b.Inspect(t.Context(), "key")
		require.ErrorIs(t, err, kv.ErrFormat)
	})
}

func TestHoldersAndMembersListWhatThereIs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, _ := w.client("b")
		w.acquire(a, "jobs/1")
		w.acquire(b, "jobs/2")
		w.acquire(b, "other")
		kept, err := b.TryAcquire(t.Context(), "jobs/3", lease.KeepValue())
		require.NoError(t, err)
		require.NoError(t, kept.Release(t.Context()))
		require.NoError(t, w.store.Put(t.Context(), "lease/jobs/0", kv.WithString("?")))
		leave, err := a.Join(t.Context(), "pool/mail")
		require.NoError(t, err)
		var holders []string
		bad := 0
		for h, err := range b.Holders(t.Context(), "jobs/") {
			if err != nil {
				require.ErrorIs(t, err, kv.ErrFormat)
				bad++
				continue
			}
			holders = append(holders, h.Key+" "+h.Owner)
		}
		require.Equal(t, []string{"jobs/1 a", "jobs/2 b"}, holders)
		require.Equal(t, 1, bad)
		joined := func() map[string][]string {
			members := map[string][]string{}
			for m, err := range b.Members(t.Context()) {
				require.NoError(t, err)
				members[m.Owner] = m.Joined
			}
			return members
		}
		require.Equal(t, map[string][]string{"a": {"pool/mail"}, "b": nil}, joined())
		leave()
		time.Sleep(time.Second)
		require.Equal(t, map[string][]string{"a": nil, "b": nil}, joined())
	})
}

func TestR17BreakTakesOneLeaseFromALiveHolder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, _ := w.client("b")
		began := time.Now()
		l, other := w.acquire(a, "key"), w.acquire(a, "other")
		lost := make(chan time.Time, 1)
		context.AfterFunc(l.Context(), func() { lost <- time.Now() })
		require.NoError(t, b.Break(t.Context(), inspect(t, b, "key")))
		broken := time.Now()
		require.Equal(t, lease.ReasonRevoked, reason(t, l.Err()))
		require.GreaterOrEqual(t, broken.Sub(<-lost), time.Second, "before the holder had its margin to stop")
		require.Less(t, broken.Sub(began), 6*time.Second) // a heartbeat, the margin, a poll
		require.True(t, other.Held())
		require.Equal(t, []string{"lease/other"}, w.rows("lease/"))
		got, err := b.TryAcquire(t.Context(), "key")
		require.NoError(t, err)
		require.Greater(t, got.Token(), l.Token())
		require.ErrorIs(t, l.Release(t.Context()), lease.ErrLost)
		time.Sleep(3 * ttl)
		require.True(t, other.Held())
		require.True(t, got.Held())
		session, err := w.store.Get(t.Context(), "session/"+inspect(t, b, "other").Session)
		require.NoError(t, err)
		require.NotContains(t, session.String(), "revoked") // the receipt
	})
}

func TestR17BreakWaitsOutASilentHolder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		b, _ := w.client("b")
		l := w.acquire(a, "key")
		link.SetCut(true)
		began := time.Now()
		require.NoError(t, b.Break(t.Context(), inspect(t, b, "key")))
		require.GreaterOrEqual(t, time.Since(began), ttl+ttl/16)
		require.False(t, l.Held())
		require.Empty(t, w.rows("lease/"))
	})
}

func TestR17BreakForceDoesNotWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, link := w.client("b")
		l := w.acquire(a, "key")
		h := inspect(t, b, "key")
		link.Take()
		require.NoError(t, b.Break(t.Context(), h, lease.BreakForce()))
		require.Equal(t, map[string]int{"Get": 2, "AtomicPut": 1, "AtomicDelete": 1}, link.Take())
		require.True(t, l.Held(), "it cannot know yet")
		require.Empty(t, w.rows("lease/"))
		time.Sleep(ttl)
		require.False(t, l.Held())
	})
}

func TestR17BreakLeavesALaterAcquisitionAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, _ := w.client("b")
		l := w.acquire(a, "key")
		h := inspect(t, b, "key")
		require.NoError(t, l.Release(t.Context()))
		again := w.acquire(a, "key")
		require.NoError(t, b.Break(t.Context(), h))
		require.Equal(t, again.Token(), inspect(t, b, "key").Token)
		time.Sleep(ttl)
		require.True(t, again.Held())
		require.ErrorIs(t, b.Break(t.Context(), &lease.Holder{Key: "key"}), lease.ErrInvalid)
	})
}

func TestR2R17RevocationThatCameBeforeTheGrantRefusesIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		b, _ := w.client("b")
		require.NoError(t, w.acquire(a, "other").Release(t.Context()))
		revoked := false
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			err := next(ctx)
			if !revoked && call.Op == "AtomicPut" && strings.HasPrefix(call.Key, "lease/") {
				revoked = true // the answer comes after the operator has acted and a heartbeat has told of it
				require.NoError(t, b.Break(t.Context(), inspect(t, b, "key"), lease.BreakForce()))
				time.Sleep(ttl / 2)
			}
			return err
		})
		l, err := a.TryAcquire(patient(t), "key")
		require.NoError(t, err)
		require.True(t, revoked)
		require.Equal(t, inspect(t, b, "key").Token, l.Token(), "a grant of the row that was broken")
	})
}

func TestR17HolderGivesARevokedKeyBackWhateverBecomesOfTheOperator(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, _ := w.client("b")
		l := w.acquire(a, "key")
		h := inspect(t, b, "key")
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		require.Error(t, b.Break(ctx, h))
		requireLost(t, l)
		time.Sleep(900 * time.Millisecond)
		require.Equal(t, []string{"lease/key"}, w.rows("lease/"), "before the holder had its margin to stop")
		time.Sleep(200 * time.Millisecond)
		require.Empty(t, w.rows("lease/"))
	})
}

func TestR17BreakLeavesTheAcquisitionOfAnotherSessionAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, _ := w.client("b")
		l := w.acquire(a, "key")
		require.NoError(t, b.Break(t.Context(), &lease.Holder{Key: "key", Session: "another", Token: l.Token()}))
		require.Equal(t, l.Token(), inspect(t, b, "key").Token)
		time.Sleep(2 * ttl)
		require.True(t, l.Held())
	})
}

func TestBreakEndsAtAWriteThatCanNeverSucceed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, link := w.client("b")
		l := w.acquire(a, "key")
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Op == "AtomicPut" {
				return kv.ErrTooLarge
			}
			return next(ctx)
		})
		began := time.Now()
		require.ErrorIs(t, b.Break(t.Context(), inspect(t, b, "key")), kv.ErrTooLarge)
		require.Zero(t, time.Since(began))
		require.True(t, l.Held())
	})
}

func TestR16CloseEndsABreakAndWaitsForIt(t *testing.T) {
	t.Parallel()
	for name, op := range map[string]string{"as it revokes": "AtomicPut", "as it waits for the holder": "Get"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				a, _ := w.client("a")
				b, link := w.client("b")
				w.acquire(a, "key")
				h := inspect(t, b, "key")
				calls := 0
				link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
					if call.Op != op {
						return next(ctx)
					}
					if calls++; calls == 1 {
						return next(ctx)
					}
					time.Sleep(time.Second) // whatever its context says
					return errLost
				})
				if op == "AtomicPut" {
					calls = 1
				}
				broken := make(chan error, 1)
				go func() { broken <- b.Break(t.Context(), h) }()
				time.Sleep(500 * time.Millisecond)
				require.NoError(t, b.Close(t.Context()))
				synctest.Wait()
				require.Len(t, broken, 1, "I10")
				require.ErrorIs(t, <-broken, lease.ErrClosed)
			})
		})
	}
}

func TestBreakThatEndsWithItsContextSaysSoAndWhatWasWrong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, link := w.client("b")
		w.acquire(a, "key")
		h := inspect(t, b, "key")
		link.SetIntercept(func(context.Context, kv.Call, func(context.Context) error) error { return kv.ErrThrottled })
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := b.Break(ctx, h)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, kv.ErrThrottled)
	})
}

func TestR16BreakOfARefusedGrantCountsForNobody(t *testing.T) {
	for _, other := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			a, link := w.client("a", lease.WithHeartbeat(4*time.Second))
			b, _ := w.client("b")
			var l2 *lease.Lease
			if other {
				l2 = w.acquire(a, "other")
			} else {
				require.NoError(t, w.acquire(a, "other").Release(t.Context()))
			}
			var slow, deaf atomic.Bool
			deaf.Store(true)
			first := true
			link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
				for slow.Load() {
					time.Sleep(100 * time.Millisecond)
				}
				if call.Op == "AtomicDelete" && call.Key == "lease/key" && deaf.Load() {
					return errors.New("throttled for a while")
				}
				err := next(ctx)
				if first && call.Key == "lease/key" {
					first = false
					slow.Store(true)
					time.Sleep(5 * time.Second)
					slow.Store(false)
				}
				return err
			})
			_, err := a.TryAcquire(t.Context(), "key", lease.WithMinRemaining(4500*time.Millisecond))
			require.Error(t, err) // refused by R9.4, the giving back goes on
			require.NoError(t, b.Break(t.Context(), inspect(t, b, "key")))
			deaf.Store(false)
			time.Sleep(2 * time.Second)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			err = a.Close(ctx)
			if other {
				require.Error(t, err, "Close did not wait for the holder of other")
				_ = l2.Release(t.Context())
				return
			}
			require.NoError(t, err, "Close hangs although nothing is held")
		})
	}
}

func TestBreakEndsWhenTheStoreIsClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, lb := w.client("b")
		w.acquire(a, "key")
		h := inspect(t, b, "key")
		lb.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			return kv.ErrClosed
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		err := b.Break(ctx, h)
		require.Error(t, err)
		require.NoError(t, ctx.Err(), "an hour of tries, although trying again does not mend it")
	})
}
