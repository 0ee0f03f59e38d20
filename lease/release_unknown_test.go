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

	"github.com/dynalock/dynalock/internal/dynamomem"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// What a write whose answer was lost has done can often be told from the row
// that its next attempt was shown.

// overtake lets the next call of op on row reach the store and loses its
// answer; meanwhile changes the row before the driver's next attempt, which is
// shown it. The calls of op on row are counted.
func (l *link) overtake(op, row string, meanwhile func()) (calls *atomic.Int64) {
	calls = &atomic.Int64{}
	l.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
		if call.Op != op || call.Key != row || calls.Add(1) > 1 {
			return next(ctx)
		}
		if err := next(ctx); err != nil {
			return err
		}
		meanwhile()
		current, err := l.Get(context.WithoutCancel(ctx), row)
		if err != nil {
			current = nil
		}
		return &kv.UncertainError{Key: row, Current: current, Err: errLost}
	})
	return calls
}

// turn lets a client hold key for a moment.
func (w *world) turn(c *lease.Client, key string) {
	w.t.Helper()
	require.NoError(w.t, w.acquire(c, key).Release(w.t.Context()))
}

func TestR13ReleaseWhoseAnswerWasLostAndWhoseSuccessorWasQuickHasFreedTheKey(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"the successor has it", "the successor has released it"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := newCloud(t)
				a, wire, _ := c.node("a")
				b, _, _ := c.node("b")
				l := try(t, a, "key")
				var next *lease.Lease
				var requests atomic.Int64
				wire.Inject(func(_ context.Context, call dynamomem.Call, apply dynamomem.Apply) (any, error) {
					if keyOf(call) != "lease/key" || requests.Add(1) > 1 {
						return apply()
					}
					if _, err := apply(); err != nil {
						return nil, err
					}
					time.Sleep(time.Millisecond) // no version has a microsecond of its own
					next = try(t, b, "key")
					if name == "the successor has released it" {
						require.NoError(t, next.Release(t.Context()))
					}
					return nil, dynamomem.ErrCut
				})
				require.NoError(t, l.Release(t.Context()))
				sent := requests.Load()
				time.Sleep(time.Minute)
				require.Equal(t, sent, requests.Load(), "nothing goes on in the background")
				require.Equal(t, name == "the successor has it", next.Held(), "I4")
			})
		})
	}
}

func TestR13ReleaseOfUnknownOutcomeIsSettledByAnotherAcquisitionInTheRow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		b, _ := w.client("b")
		l := w.acquire(a, "key")
		var next *lease.Lease
		deletes := link.overtake("AtomicDelete", "lease/key", func() { next = w.acquire(b, "key") })
		require.NoError(t, l.Release(t.Context()))
		require.EqualValues(t, 1, deletes.Load(), "no request more")
		time.Sleep(time.Minute)
		require.EqualValues(t, 1, deletes.Load(), "nothing goes on in the background")
		require.True(t, next.Held())
	})
}

func TestR13ReleaseAsksOnceMoreWhenTheRowWasNotShown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		b, _ := w.client("b")
		l := w.acquire(a, "key")
		deletes := link.overtake("AtomicDelete", "lease/key", func() { w.turn(b, "key") })
		require.NoError(t, l.Release(t.Context()))
		require.EqualValues(t, 2, deletes.Load())
		time.Sleep(time.Minute)
		require.EqualValues(t, 2, deletes.Load())
	})
}

func TestR13ReleaseThatIsShownItsOwnRowIsNotSettled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		l := w.acquire(a, "key")
		lost := 0
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Op != "AtomicDelete" || call.Key != "lease/key" || lost == 2 {
				return next(ctx)
			}
			lost++
			current, err := w.store.Get(t.Context(), call.Key)
			require.NoError(t, err)
			return &kv.UncertainError{Key: call.Key, Current: current, Err: errLost} // it may land yet
		})
		require.ErrorIs(t, l.Release(t.Context()), kv.ErrUncertain)
		require.Equal(t, 2, lost)
		time.Sleep(time.Second)
		require.Empty(t, w.rows("lease/"), "it went on in the background")
	})
}

// Its nil promises that the value was written, which only the row can tell.
func TestR13ReleaseWithOfUnknownOutcomeTellsWhetherTheKeyHasTheValue(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		meanwhile func(w *world, b *lease.Client)
		err       error
	}{
		"nobody came":          {func(*world, *lease.Client) {}, nil},
		"the successor has it": {func(w *world, b *lease.Client) { w.acquire(b, "key") }, nil},
		"it was changed":       {func(w *world, b *lease.Client) { w.leave(b, "key", "theirs") }, kv.ErrUncertain},
		"the key has gone":     {func(w *world, _ *lease.Client) { w.remove("lease/key") }, kv.ErrUncertain},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				a, link := w.client("a")
				b, _ := w.client("b")
				l, err := a.TryAcquire(t.Context(), "key", lease.KeepValue())
				require.NoError(t, err)
				puts := link.overtake("AtomicPut", "lease/key", func() { test.meanwhile(w, b) })
				err = l.ReleaseWith(t.Context(), []byte("ours"))
				require.ErrorIs(t, err, test.err)
				require.NotErrorIs(t, err, lease.ErrLost)
				require.Equal(t, err, l.Release(t.Context()), "and again")
				sent := puts.Load()
				time.Sleep(time.Minute)
				require.Equal(t, sent, puts.Load(), "nothing goes on in the background")
			})
		})
	}
}

// leave lets a client hold key for a moment and leave value.
func (w *world) leave(c *lease.Client, key, value string) {
	w.t.Helper()
	require.NoError(w.t, w.acquire(c, key).ReleaseWith(w.t.Context(), []byte(value)))
}

func (w *world) remove(row string) { require.NoError(w.t, w.store.Delete(w.t.Context(), row)) }

func TestR13R15HandoverOfUnknownOutcomeIsSettledByAnotherAcquisitionInTheRow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		b, _ := w.client("b")
		l := w.acquire(a, "key")
		ctx, cancel := context.WithCancel(t.Context())
		got := waitFor(ctx, a, "key")
		synctest.Wait()
		var next *lease.Lease
		link.overtake("AtomicPut", "lease/key", func() {
			w.remove("lease/key") // as an operator does who takes it from the waiter
			next = w.acquire(b, "key")
		})
		require.NoError(t, l.Release(t.Context()))
		time.Sleep(time.Second)
		cancel()
		require.ErrorIs(t, (<-got).err, context.Canceled)
		require.True(t, next.Held(), "I4")
	})
}

func TestR13LeaseThatIsSurrenderedIsSettledByAnotherAcquisitionInTheRow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		b, _ := w.client("b")
		l, err := a.TryAcquire(t.Context(), "key", lease.WithMaxHold(time.Second))
		require.NoError(t, err)
		var next *lease.Lease
		deletes := link.overtake("AtomicDelete", "lease/key", func() { next = w.acquire(b, "key") })
		time.Sleep(time.Minute)
		synctest.Wait()
		require.EqualValues(t, 1, deletes.Load())
		require.True(t, next.Held())
		require.Equal(t, lease.ReasonMaxHold, reason(t, l.Release(t.Context())))
	})
}

func TestR9R13RefusedGrantIsSettledByAnotherAcquisitionInTheRow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		b, _ := w.client("b")
		w.turn(a, "other")
		var next *lease.Lease
		deletes := link.overtake("AtomicDelete", "lease/key", func() { next = w.acquire(b, "key") })
		var slow atomic.Bool
		overtaken := link.Intercept()
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			switch {
			case call.Op == "AtomicPut" && call.Key == "lease/key":
				slow.Store(true)
				err := next(ctx)
				time.Sleep(5 * time.Second) // too late for what was asked for
				slow.Store(false)
				return err
			case call.Op == "AtomicPut" && slow.Load():
				return kv.ErrThrottled // a heartbeat
			}
			return overtaken(ctx, call, next)
		})
		_, err := a.TryAcquire(patient(t), "key", lease.WithMinRemaining(5*time.Second))
		require.ErrorIs(t, err, lease.ErrHeld)
		time.Sleep(time.Minute)
		require.EqualValues(t, 1, deletes.Load())
		require.True(t, next.Held())
	})
}

func TestR17BreakOfUnknownOutcomeIsSettledByTheRow(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"another has it", "nobody has it"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				a, _ := w.client("a")
				b, _ := w.client("b")
				operator, link := w.client("operator")
				w.acquire(a, "key")
				var next *lease.Lease
				link.overtake("AtomicDelete", "lease/key", func() {
					if name == "another has it" {
						next = w.acquire(b, "key")
					}
				})
				require.NoError(t, operator.Break(t.Context(), inspect(t, operator, "key"), lease.BreakForce()))
				require.Equal(t, next != nil, inspect(t, b, "key").Owner == "b")
			})
		})
	}
}

func TestR13UpdateOfUnknownOutcomeThatIsShownAnothersRowEndsTheLease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		b, _ := w.client("b")
		l := w.acquire(a, "key")
		link.overtake("AtomicPut", "lease/key", func() {
			w.remove("lease/key")
			w.acquire(b, "key")
		})
		err := l.Update(t.Context(), []byte("v"))
		require.ErrorIs(t, err, kv.ErrUncertain, "somebody may have seen the value")
		require.ErrorIs(t, err, lease.ErrLost)
		require.Equal(t, lease.ReasonBroken, reason(t, l.Err()))
		require.ErrorIs(t, l.Release(t.Context()), lease.ErrLost)
		require.Equal(t, "b", inspect(t, b, "key").Owner)
	})
}

func TestR14WriteThatAnothersRowShowsToBeOverIsNotLookedAfter(t *testing.T) {
	t.Parallel()
	for name, ahead := range map[string]uint64{"it cannot land any more": 0, "it may land": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				a, link := w.client("a")
				b, _ := w.client("b")
				w.turn(a, "other")
				theirs := w.acquire(b, "key")
				link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
					err := next(ctx)
					var conflict *kv.ConflictError
					if !errors.As(err, &conflict) {
						return err
					}
					version := theirs.Token() + ahead
					return &kv.UncertainError{Key: call.Key, Current: conflict.Current, Version: version, Err: errLost}
				})
				link.Take()
				_, err := a.TryAcquire(t.Context(), "key")
				require.ErrorIs(t, err, lease.ErrHeld)
				synctest.Wait()
				require.Equal(t, 1+int(ahead), link.Take()["Get"], "one of the session, the other of the row")
			})
		})
	}
}

func TestR8R16SessionRowOfAnotherThatADeleteOfUnknownOutcomeIsShownEndsTheMatter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		w.turn(a, "key")
		row := w.rows("session/")[0]
		deletes := link.overtake("AtomicDelete", row, func() {
			_, err := w.store.AtomicPut(t.Context(), row, kv.WithString(`{"f":2,"ttl_ms":10000,"nonce":"00"}`))
			require.NoError(t, err)
		})
		began := time.Now()
		require.NoError(t, a.Close(t.Context()))
		require.Zero(t, time.Since(began))
		require.EqualValues(t, 1, deletes.Load())
		require.True(t, strings.HasPrefix(w.rows("session/")[0], row), "it is not ours to remove")
	})
}
