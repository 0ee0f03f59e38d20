package election_test

import (
	"context"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/election"
	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
)

// whenElected calls do when the write that makes a leader was applied.
func whenElected(do func()) kv.Hook {
	return func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
		err := next(ctx)
		if err == nil && call.Op == "AtomicPut" && strings.HasPrefix(call.Key, "lease/") {
			do()
		}
		return err
	}
}

// silentLeases lets requests about leases go unanswered, but not heartbeats.
func silentLeases(ctx context.Context, call kv.Call, next func(context.Context) error) error {
	if strings.HasPrefix(call.Key, "lease/") {
		return cut(ctx, call, next)
	}
	return next(ctx)
}

func TestATermThatIsWonAsTheContextOfRunEndsIsResigned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, a, b := two(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		a.link.inject(whenElected(func() { cancel(errWork) }))
		err := a.Run(ctx, func(context.Context, *election.Term) error { panic("its context has ended") })
		require.ErrorIs(t, err, errWork)
		require.False(t, a.IsLeader())
		_, err = b.Leader(t.Context())
		require.ErrorIs(t, err, election.ErrNoLeader, "nobody is left who leads and does not know it")
		synctest.Wait()
		require.Empty(t, b.candidates(t))
	})
}

func TestRunTellsThatATermWonAsItsContextEndedCouldNotBeResigned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, a, _ := two(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		a.link.inject(whenElected(func() {
			cancel(errWork)
			a.link.inject(silentLeases)
		}))
		err := a.Run(ctx, func(context.Context, *election.Term) error { panic("its context has ended") })
		require.ErrorIs(t, err, errWork)
		require.ErrorIs(t, err, kv.ErrUncertain)
	})
}

func TestRunTellsWhatItsFunctionAndItsResignationSaid(t *testing.T) {
	t.Parallel()
	for name, said := range map[string]error{"the function failed too": errWork, "the function succeeded": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				_, a, _ := two(t)
				err := a.Run(t.Context(), func(context.Context, *election.Term) error {
					a.link.inject(silentLeases)
					return said
				})
				require.ErrorIs(t, err, kv.ErrUncertain, "others may have to wait")
				if said != nil {
					require.ErrorIs(t, err, said)
				}
			})
		})
	}
}

// What fn returned is not lost with the leadership if Run was told to end
// meanwhile, and Run does not campaign any more.
func TestRunThatWasToldToEndReturnsWhatItsFunctionSaidAfterALoss(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, a, _ := two(t)
		ctx, cancel := context.WithCancel(t.Context())
		err := a.Run(ctx, func(led context.Context, _ *election.Term) error {
			a.link.inject(cut)
			<-led.Done()
			cancel()
			a.link.inject(nil)
			a.link.take()
			return errWork
		})
		require.ErrorIs(t, err, errWork)
		require.ErrorIs(t, err, lease.ErrLost)
		require.Equal(t, 1, a.log.count("election: elected"))
	})
}

func TestTheContextOfAFunctionThatReturnedHasEnded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, a, _ := two(t)
		var led context.Context
		require.NoError(t, a.Run(t.Context(), func(ctx context.Context, _ *election.Term) error {
			led = ctx
			require.NoError(t, ctx.Err())
			return nil
		}))
		require.Error(t, led.Err(), "what fn has begun and not waited for is told to stop")
	})
}

func TestResigningAfterALossEndsTheCandidacy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, a, b := two(t)
		term := a.campaign(t)
		a.link.inject(cut)
		<-term.Context().Done()
		a.link.inject(nil)
		time.Sleep(ttl) // a member opens a new session
		require.Equal(t, []string{"a"}, b.candidates(t), "until it resigns it takes part")
		require.ErrorIs(t, term.Resign(t.Context()), lease.ErrLost)
		synctest.Wait()
		require.Empty(t, b.candidates(t))
	})
}

// A process leads a million times in its life.
func TestATermThatWasResignedIsForgotten(t *testing.T) {
	t.Parallel()
	for name, strike := range map[string]func(p *process, term *election.Term){
		"held": func(*process, *election.Term) {},
		"lost": func(p *process, term *election.Term) {
			p.link.inject(cut)
			<-term.Context().Done()
			time.Sleep(2 * election.DefaultGrace) // its timer has gone off
			p.link.inject(nil)
		},
		"lost just now": func(p *process, term *election.Term) {
			p.link.inject(cut)
			<-term.Context().Done()
			p.link.inject(nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				_, a, _ := two(t)
				var resigned []weak.Pointer[election.Term]
				for range 3 {
					term := a.campaign(t)
					strike(a, term)
					_ = term.Resign(t.Context()) // a loss is an error
					resigned = append(resigned, weak.Make(term))
					time.Sleep(ttl) // an attempt at a new session may have been cut off
				}
				time.Sleep(2 * ttl)
				synctest.Wait()
				for range 2 { // the first runs what waits for the end of a term
					runtime.GC()
				}
				for _, term := range resigned {
					require.Nil(t, term.Value())
				}
			})
		})
	}
}

// counted counts the AfterFuncs that have neither fired nor been stopped.
type counted struct {
	clock.Clock
	pending atomic.Int64
}

func (c *counted) AfterFunc(d time.Duration, f func()) clock.Timer {
	c.pending.Add(1)
	return &countedTimer{c.Clock.AfterFunc(d, func() { c.pending.Add(-1); f() }), c}
}

type countedTimer struct {
	clock.Timer
	clock *counted
}

func (t *countedTimer) Stop() bool {
	stopped := t.Timer.Stop()
	if stopped {
		t.clock.pending.Add(-1)
	}
	return stopped
}

// Who has resigned after a loss is not looked at again when its grace is over.
func TestI10ATermThatWasLostAndResignedLeavesNoTimer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &counted{Clock: clock.System}
		a := newProcess(t, memkv.New(), "a", 1, election.WithClock(c), election.WithGrace(time.Hour))
		term := a.campaign(t)
		a.link.inject(cut)
		<-term.Context().Done()
		synctest.Wait()
		require.EqualValues(t, 1, c.pending.Load(), "the end of the grace")
		a.link.inject(nil)
		_ = term.Resign(t.Context()) // a loss is an error
		require.Zero(t, c.pending.Load())
	})
}
