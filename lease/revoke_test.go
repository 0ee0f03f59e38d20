package lease_test

import (
	"context"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// onWrites calls before ahead of each write of a session's row.
func (l *link) onWrites(before func(row string)) {
	l.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
		if call.Op == "AtomicPut" && strings.HasPrefix(call.Key, "session/") {
			before(call.Key)
		}
		return next(ctx)
	})
}

// breakIt breaks h in the background and reports when.
func breakIt(ctx context.Context, c *lease.Client, h *lease.Holder) <-chan grant {
	broken := make(chan grant, 1)
	go func() {
		err := c.Break(ctx, h)
		broken <- grant{err: err, at: time.Now()}
	}()
	return broken
}

// The holder beats several times in its margin, does not release, and the store
// refuses what gives the row back for it.
func TestR17ReceiptComesOnceTheMarginIsOverAndDoesNotWaitForARelease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a", lease.WithHeartbeat(200*time.Millisecond))
		b, _ := w.client("b")
		l := w.acquire(a, "key")
		row := w.rows("session/")[0]
		latched := make(chan time.Time, 1)
		context.AfterFunc(l.Context(), func() { latched <- time.Now() })
		var mu sync.Mutex
		with, without := []time.Time{}, []time.Time{}
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Key == "lease/key" {
				return kv.ErrThrottled
			}
			err := next(ctx)
			if pair, getErr := w.store.Get(ctx, row); err == nil && getErr == nil && call.Key == row &&
				l.Context().Err() != nil {
				mu.Lock()
				defer mu.Unlock()
				if strings.Contains(pair.String(), "revoked") {
					with = append(with, time.Now())
				} else {
					without = append(without, time.Now())
				}
			}
			return err
		})
		require.NoError(t, b.Break(t.Context(), inspect(t, b, "key")))
		broken, latch := time.Now(), <-latched
		mu.Lock()
		defer mu.Unlock()
		require.GreaterOrEqual(t, len(with), 4)
		require.LessOrEqual(t, with[len(with)-1].Sub(latch), margin)
		require.GreaterOrEqual(t, with[len(with)-1].Sub(latch), margin*3/4)
		require.Greater(t, without[0].Sub(latch), margin)
		require.LessOrEqual(t, without[0].Sub(latch), margin+2*time.Millisecond, "and then at once")
		require.LessOrEqual(t, broken.Sub(latch), margin*3/2)
		require.Empty(t, w.rows("lease/"))
	})
}

func TestR17BreakTriesAgainWhenAHeartbeatWasFaster(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, link := w.client("b")
		l := w.acquire(a, "key")
		h := inspect(t, b, "key")
		tries := 0
		link.onWrites(func(row string) {
			if tries++; tries > 2 {
				return
			}
			pair, err := w.store.Get(t.Context(), row)
			require.NoError(t, err)
			_, err = w.store.AtomicPut(t.Context(), row, kv.WithPrevious(pair), kv.WithString(pair.String()))
			require.NoError(t, err)
		})
		began := time.Now()
		require.NoError(t, b.Break(t.Context(), h))
		require.Equal(t, 3, tries)
		require.Equal(t, lease.ReasonRevoked, reason(t, l.Err()))
		require.GreaterOrEqual(t, time.Since(began), margin)
		require.Less(t, time.Since(began), ttl/2, "a heartbeat and the margin")
		require.Empty(t, w.rows("lease/"))
	})
}

func TestR17BreakLeavesTheRevocationsOfOthersInTheRow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, _ := w.client("b")
		c, _ := w.client("c")
		held := []*lease.Lease{w.acquire(a, "1"), w.acquire(a, "2")}
		var broken []<-chan grant
		for i, operator := range []*lease.Client{b, c} {
			broken = append(broken, breakIt(t.Context(), operator, inspect(t, b, held[i].Key())))
			synctest.Wait()
		}
		for i, l := range held {
			requireLost(t, l)
			require.Equal(t, lease.ReasonRevoked, reason(t, l.Err()))
			require.Empty(t, broken[i], "before the holder had its margin to stop")
		}
		for i := range broken {
			require.NoError(t, (<-broken[i]).err)
		}
		require.Empty(t, w.rows("lease/"))
	})
}

func TestR17RevocationThatIsThereAlreadyIsWaitedForAndNotWrittenAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, _ := w.client("b")
		c, link := w.client("c")
		l := w.acquire(a, "key")
		h := inspect(t, b, "key")
		first := breakIt(t.Context(), b, h)
		synctest.Wait()
		second := breakIt(t.Context(), c, h)
		requireLost(t, l)
		latch := time.Now()
		for _, broken := range []<-chan grant{first, second} {
			g := <-broken
			require.NoError(t, g.err)
			require.Greater(t, g.at.Sub(latch), margin)
		}
		require.Zero(t, link.Take()["AtomicPut"])
		require.Empty(t, w.rows("lease/"))
	})
}

func TestR17R18BreakOfAHolderWhoseSessionCannotBeReadIsRefused(t *testing.T) {
	t.Parallel()
	for name, value := range map[string]string{"text": "?", "newer": `{"f":9,"ttl_ms":10000,"nonce":"00"}`,
		"ttl": `{"f":2,"ttl_ms":10,"nonce":"00"}`} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				b, _ := w.client("b")
				require.NoError(t, w.store.Put(t.Context(), "session/x", kv.WithString(value)))
				pair, err := w.store.AtomicPut(t.Context(), "lease/key", kv.WithString(`{"f":2,"session":"x","acq":"y"}`))
				require.NoError(t, err)
				h := &lease.Holder{Key: "key", Session: "x", Token: pair.Version}
				require.ErrorIs(t, b.Break(t.Context(), h), kv.ErrFormat)
				require.ErrorIs(t, b.Break(t.Context(), h, lease.BreakForce()), kv.ErrFormat)
				require.Equal(t, []string{"lease/key"}, w.rows("lease/"))
				kept, err := w.store.Get(t.Context(), "session/x")
				require.NoError(t, err)
				require.Equal(t, value, kept.String())
			})
		})
	}
}

func TestR17BreakWaitsOutAnOutageBeforeItHasToldTheHolder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, link := w.client("b")
		l := w.acquire(a, "key")
		h := inspect(t, b, "key")
		reads := 0
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if reads++; reads <= 3 {
				return errLost
			}
			return next(ctx)
		})
		require.NoError(t, b.Break(t.Context(), h))
		require.Equal(t, lease.ReasonRevoked, reason(t, l.Err()))
		require.Empty(t, w.rows("lease/"))
	})
}

// What the operator cannot read tells nothing: it waits for the holder's TTL
// and a sixteenth, from the answer to its own write.
func TestR17ReadsThatTellNothingAreNoReceipt(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(w *world, l *link, row string){
		"failed": func(_ *world, l *link, _ string) {
			l.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
				if call.Op == "Get" && strings.HasPrefix(call.Key, "session/") {
					return errLost
				}
				return next(ctx)
			})
		},
		"unreadable": func(w *world, _ *link, row string) {
			require.NoError(w.t, w.store.Put(w.t.Context(), row, kv.WithString("?")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				a, holder := w.client("a")
				b, link := w.client("b")
				l := w.acquire(a, "key")
				holder.SetCut(true)
				broken := breakIt(t.Context(), b, inspect(t, b, "key"))
				synctest.Wait()
				emitted := time.Now()
				spoil(w, link, w.rows("session/")[0])
				g := <-broken
				require.NoError(t, g.err)
				require.GreaterOrEqual(t, g.at.Sub(emitted), patience)
				require.LessOrEqual(t, g.at.Sub(emitted), patience+time.Second)
				require.False(t, l.Held())
			})
		})
	}
}

func TestR17PatienceIsTheHoldersTTLAndASixteenthFromTheAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, holder := w.client("a", lease.WithTTL(6*ttl))
		b, link := w.client("b")
		l := w.acquire(a, "key")
		holder.SetCut(true)
		h := inspect(t, b, "key")
		link.delay("AtomicPut", 2*time.Second)
		began := time.Now()
		require.NoError(t, b.Break(t.Context(), h))
		require.GreaterOrEqual(t, time.Since(began), 6*patience+2*time.Second)
		require.LessOrEqual(t, time.Since(began), 6*patience+3*time.Second)
		require.False(t, l.Held())
	})
}

func TestR17DeathOfTheHolderIsAReceipt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, holder := w.client("a")
		b, _ := w.client("b")
		w.acquire(a, "key")
		holder.SetCut(true)
		broken := breakIt(t.Context(), b, inspect(t, b, "key"))
		time.Sleep(time.Second)
		require.Empty(t, broken)
		require.NoError(t, w.store.Delete(t.Context(), w.rows("session/")[0]))
		died := time.Now()
		g := <-broken
		require.NoError(t, g.err)
		require.LessOrEqual(t, g.at.Sub(died), time.Second)
	})
}

func TestR17R19BreakKnowsALeaseByItsTokenAfterAnUpdateAndKeepsTheValue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, holder := w.client("a")
		b, _ := w.client("b")
		l, err := a.TryAcquire(t.Context(), "key", lease.KeepValue())
		require.NoError(t, err)
		require.NoError(t, l.Update(t.Context(), []byte("v")))
		holder.SetCut(true)
		require.NoError(t, b.Break(t.Context(), inspect(t, b, "key")))
		require.False(t, l.Held())
		require.False(t, inspect(t, b, "key").Held())
		require.Equal(t, "v", string(inspect(t, b, "key").Value))
	})
}

// stalled is a clock on which the check of a grant stalls once, when it is
// armed: what it then returns was true before.
type stalled struct {
	clock.Clock
	armed         atomic.Bool
	stalls, going chan struct{}
}

func (c *stalled) Now() clock.Reading {
	now := c.Clock.Now()
	if inGrant() && c.armed.CompareAndSwap(true, false) {
		close(c.stalls)
		<-c.going
	}
	return now
}

// inGrant reports whether it is called from the last check of a grant.
func inGrant() bool {
	callers := make([]uintptr, 16)
	frames := runtime.CallersFrames(callers[:runtime.Callers(0, callers)])
	check := false
	for {
		frame, more := frames.Next()
		check = check || strings.HasSuffix(frame.Function, ".(*Lease).holdLeft")
		if check && strings.HasSuffix(frame.Function, ".(*Client).grant") {
			return true
		}
		if !more {
			return false
		}
	}
}

func TestR9LeaseThatIsRevokedWhileItIsGrantedDoesNotHaveTheKeyAfterwards(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := &stalled{Clock: clock.System, stalls: make(chan struct{}), going: make(chan struct{})}
		a, _ := w.client("a", lease.WithClock(c))
		b, _ := w.client("b")
		w.turn(a, "warm")
		c.armed.Store(true)
		granted := make(chan *lease.Lease, 1)
		go func() {
			l, _ := a.TryAcquire(context.Background(), "key", lease.WithMaxHold(time.Hour))
			granted <- l
		}()
		<-c.stalls
		require.NoError(t, b.Break(t.Context(), inspect(t, b, "key")))
		time.Sleep(ttl) // it is given back
		require.Empty(t, w.rows("lease/"))
		close(c.going)
		l := <-granted
		require.NotNil(t, l)
		require.False(t, l.Held())
		w.turn(a, "key")
		require.ErrorIs(t, l.Release(t.Context()), lease.ErrLost)
	})
}
