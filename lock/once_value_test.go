package lock_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

// meddling is what a function may do to the value of its slot's lease, which
// is not its own.
var meddling = map[string]func(context.Context, *lease.Lease) error{
	"Update with a text": func(ctx context.Context, l *lease.Lease) error { return l.Update(ctx, []byte("half")) },
	"Update with an object": func(ctx context.Context, l *lease.Lease) error {
		return l.Update(ctx, []byte(`{"page":7}`))
	},
	"Update with nothing": func(ctx context.Context, l *lease.Lease) error { return l.Update(ctx, nil) },
	"ReleaseWith a text":  func(ctx context.Context, l *lease.Lease) error { return l.ReleaseWith(ctx, []byte("half")) },
	"ReleaseWith nothing": func(ctx context.Context, l *lease.Lease) error { return l.ReleaseWith(ctx, nil) },
	"Release":             func(ctx context.Context, l *lease.Lease) error { return l.Release(ctx) },
	"Update and then Release": func(ctx context.Context, l *lease.Lease) error {
		if err := l.Update(ctx, nil); err != nil {
			return err
		}
		return l.Release(ctx)
	},
}

func TestOnceShowsASlotAsRunningWhateverItsFunctionWroteOverIt(t *testing.T) {
	t.Parallel()
	for name, meddle := range meddling {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				store := memkv.New()
				client := newClient(t, store, lease.WithOwner("meddler"))
				other := lock.NewOnce(newClient(t, store), "job")
				ran, err := lock.NewOnce(client, "job").Do(t.Context(), "slot", func(ctx context.Context, l *lease.Lease) error {
					require.NoError(t, meddle(ctx, l))
					if !l.Held() {
						return nil
					}
					running := requireState(t, other, lock.StateRunning)
					require.Equal(t, l.Token(), running.Token)
					require.Equal(t, "meddler", running.Owner)
					require.NotZero(t, running.Started)
					_, err := other.Do(ctx, "slot", mustNotRun(t))
					require.ErrorIs(t, err, lease.ErrHeld)
					return nil
				})
				require.True(t, ran)
				if err == nil {
					requireState(t, other, lock.StateDone)
					return
				}
				require.ErrorIs(t, err, lease.ErrNotHeld)
				ran, err = other.Do(t.Context(), "slot", mustNotRun(t))
				require.False(t, ran)
				require.ErrorIs(t, err, lock.ErrAbandoned)
			})
		})
	}
}

func TestOnceOfAClaimerThatDiedIsAbandonedWhateverItsFunctionWroteOverIt(t *testing.T) {
	t.Parallel()
	for name, meddle := range meddling {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				store := memkv.New()
				dying := newLink(store)
				_, err := lock.NewOnce(newClient(t, dying), "job").Do(t.Context(), "slot",
					func(ctx context.Context, l *lease.Lease) error {
						err := meddle(ctx, l)
						dying.setCut(true)
						return err
					})
				require.Error(t, err)
				client := newClient(t, store)
				other := lock.NewOnce(client, "job")
				for range 2 {
					ran, err := ask(t, other, mustNotRun(t))
					require.False(t, ran)
					require.ErrorIs(t, err, lock.ErrAbandoned)
				}
				h, err := client.Inspect(t.Context(), other.Key("slot"))
				require.NoError(t, err)
				require.False(t, h.Held(), "it waits for nobody")

				ran, err := lock.NewOnce(client, "job", lock.TakeOver()).Do(t.Context(), "slot", nop)
				require.NoError(t, err)
				require.True(t, ran)
				requireState(t, other, lock.StateDone)
				require.NoError(t, other.Forget(t.Context(), "slot"))
				ran, err = other.Do(t.Context(), "slot", nop)
				require.NoError(t, err)
				require.True(t, ran)
			})
		})
	}
}

// A break frees the key and keeps the value, so that nobody is seen to hold
// what is no outcome.
func TestOnceThatWasBrokenIsAbandonedWhateverItsFunctionWroteOverIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		operator := newClient(t, store)
		other := lock.NewOnce(operator, "job")
		ran, err := lock.NewOnce(newClient(t, store), "job").Do(t.Context(), "slot",
			func(ctx context.Context, l *lease.Lease) error {
				require.NoError(t, l.Update(ctx, []byte("half")))
				h, err := operator.Inspect(ctx, l.Key())
				require.NoError(t, err)
				require.NoError(t, operator.Break(context.WithoutCancel(ctx), h))
				return nil
			})
		require.True(t, ran)
		require.ErrorIs(t, err, lease.ErrLost)
		time.Sleep(ttl)
		_, err = other.Do(t.Context(), "slot", mustNotRun(t))
		require.ErrorIs(t, err, lock.ErrAbandoned)
	})
}

func TestOnceOverwritesNoValueThatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]error{
		"text":                        lock.ErrAbandoned,
		`{"page":7}`:                  lock.ErrAbandoned,
		`{"f":2,"state":"done"}`:      kv.ErrFormat,
		`{"f":2,"state":{"new":"!"}}`: kv.ErrFormat,
		`{"f":1,"state":"someday"}`:   kv.ErrFormat,
	} {
		client := newClient(t, memkv.New())
		o := lock.NewOnce(client, "job")
		l, err := client.TryAcquire(t.Context(), o.Key("slot"), lease.KeepValue(), lease.WithValue([]byte(value)))
		require.NoError(t, err)
		require.NoError(t, l.Release(t.Context()))
		_, err = o.Do(t.Context(), "slot", mustNotRun(t))
		require.ErrorIs(t, err, want, value)
		if outcome, err := o.Outcome(t.Context(), "slot"); err != nil {
			require.ErrorIs(t, err, want, value)
		} else {
			require.Equal(t, lock.StateAbandoned, outcome.State)
			require.ErrorContains(t, &lock.FinishedError{Job: "job", Slot: "slot", Outcome: outcome}, "is not an outcome")
		}
		h, err := client.Inspect(t.Context(), o.Key("slot"))
		require.NoError(t, err)
		require.False(t, h.Held())
		require.Equal(t, value, string(h.Value))
	}
}

func TestOnceOfAProcessThatDiedInForgetIsRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		dying := newLink(store)
		dying.setFault(func(call kv.Call, n int) fault {
			if call.Op == "AtomicPut" && n == 2 { // it has the lease, and was to leave nothing
				dying.cut = true // under the link's mutex
				return lostRequest
			}
			return nothing
		})
		require.Error(t, lock.NewOnce(newClient(t, dying), "job").Forget(t.Context(), "slot"))
		ran, err := ask(t, lock.NewOnce(newClient(t, store), "job"), nop)
		require.NoError(t, err)
		require.True(t, ran)
	})
}
