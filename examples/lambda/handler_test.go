package main

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
)

// sandbox is a Handler with what freezes it: its requests hang and its
// monotonic clock stands still, while the wall clock goes on.
type sandbox struct {
	*Handler
	clock  *clock.Skewed
	frozen atomic.Pointer[chan struct{}]
	calls  atomic.Int64
}

func newSandbox(t *testing.T, store kv.Store, work func(ctx context.Context, account string) (int, error)) *sandbox {
	s := &sandbox{clock: clock.NewSkewed(clock.System, 1, 0)}
	wire := kv.Instrument(store, func(ctx context.Context, _ kv.Call, next func(context.Context) error) error {
		if thawed := s.frozen.Load(); thawed != nil {
			<-*thawed
		}
		s.calls.Add(1)
		return next(ctx)
	})
	var err error
	s.Handler, err = NewHandler(wire, work, lease.WithClock(s.clock))
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		require.NoError(t, s.client.Close(ctx), "Handle has released what it acquired")
	})
	return s
}

func (s *sandbox) freeze() {
	thawed := make(chan struct{})
	s.frozen.Store(&thawed)
	s.clock.FreezeMonotonic()
}

func (s *sandbox) thaw() {
	s.clock.ThawMonotonic()
	close(*s.frozen.Swap(nil))
}

func add(n int) func(context.Context, string) (int, error) {
	return func(context.Context, string) (int, error) { return n, nil }
}

func TestAFrozenSandboxHoldsNothingBetweenInvocations(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		a, b := newSandbox(t, store, add(1)), newSandbox(t, store, add(2))
		first, err := a.Handle(t.Context(), Event{Account: "alice"})
		require.NoError(t, err)
		a.freeze()
		began := time.Now()
		second, err := b.Handle(t.Context(), Event{Account: "alice"})
		require.NoError(t, err, "at once, though the other sandbox is frozen")
		require.Zero(t, time.Since(began))
		require.Greater(t, second.Token, first.Token)
		a.thaw()
	})
}

func TestAThawedSandboxWorksOn(t *testing.T) {
	t.Parallel()
	for name, freeze := range map[string]struct {
		lasted time.Duration
		writes int64
	}{
		// acquire, balance (a read and a write), release
		"after a short freeze, under the same session":   {time.Second, 4},
		"after a long one, under a new session":          {time.Hour, 5},      // and one for that
		"after days, when others have ended the session": {50 * time.Hour, 5}, // likewise
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				a := newSandbox(t, memkv.New(), add(1))
				first, err := a.Handle(t.Context(), Event{Account: "alice"})
				require.NoError(t, err)
				a.freeze()
				time.Sleep(freeze.lasted)
				a.thaw()
				synctest.Wait() // the requests that were frozen on the way
				a.calls.Store(0)
				second, err := a.Handle(t.Context(), Event{Account: "alice"})
				require.NoError(t, err)
				require.Greater(t, second.Token, first.Token)
				require.Equal(t, freeze.writes, a.calls.Load())
			})
		})
	}
}

func TestASandboxFrozenInTheMiddleIsSucceededAndRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		working, thawed := make(chan struct{}), make(chan struct{})
		a := newSandbox(t, store, func(context.Context, string) (int, error) {
			close(working)
			<-thawed // it is frozen here, having looked at the lock for the last time
			return 1, nil
		})
		b := newSandbox(t, store, add(2))
		failed := make(chan error, 1)
		go func() {
			_, err := a.Handle(context.Background(), Event{Account: "alice"})
			failed <- err
		}()
		<-working
		a.freeze()

		began := time.Now()
		_, err := b.Handle(t.Context(), Event{Account: "alice"})
		require.ErrorIs(t, err, ErrBusy)
		var second Balance
		for err != nil { // as the service's retries do
			require.ErrorIs(t, err, ErrBusy)
			time.Sleep(time.Second)
			second, err = b.Handle(t.Context(), Event{Account: "alice"})
		}
		require.LessOrEqual(t, time.Since(began), 10*time.Second, "the TTL and a sixteenth, from the first look, and a retry")

		a.thaw()
		// The write is tried though the context has ended, as by a resource
		// that knows no contexts: the token decides.
		require.ErrorIs(t, save(context.Background(), store, "alice", Balance{Amount: 1, Token: second.Token - 1}), ErrFenced)
		close(thawed)
		require.Error(t, <-failed)
		pair, err := store.Get(t.Context(), "balance/alice")
		require.NoError(t, err)
		var kept Balance
		require.NoError(t, pair.Decode(&kept))
		require.Equal(t, second, kept)
	})
}

func TestTheProgramInvokesTwoSandboxes(t *testing.T) {
	t.Parallel()
	require.NoError(t, invoke(t.Context(), "sqlite:"+t.TempDir()+"/demo.db", false))
}
