package pool_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/pool"
)

// slowly is a handler whose calls, once asked to stop, go on until they may.
type slowly struct {
	ledger *ledger
	member string

	mu    sync.Mutex
	asked []string
	may   map[string]chan struct{}
}

func newSlowly(b *ledger, member string) *slowly {
	return &slowly{ledger: b, member: member, may: map[string]chan struct{}{}}
}

func (s *slowly) handle(ctx context.Context, work *pool.Work) error {
	s.ledger.begin(s.member, work)
	defer s.ledger.end(s.member, work)
	select {
	case <-work.Draining():
	case <-ctx.Done():
		return nil
	}
	may := make(chan struct{})
	s.mu.Lock()
	s.asked = append(s.asked, work.Name())
	s.may[work.Name()] = may
	s.mu.Unlock()
	select {
	case <-may:
	case <-ctx.Done():
	}
	return nil
}

// askedToStop are those that were asked, in their order.
func (s *slowly) askedToStop() []string {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

// end lets all calls end that were asked to.
func (s *slowly) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, may := range s.may {
		close(may)
		delete(s.may, name)
	}
}

var givesOneAtATime = []pool.Option{
	pool.WithMaxMoves(1), pool.WithMinResidency(0), pool.WithDrainTimeout(24 * time.Hour), pool.WithoutEnd(),
}

// pauseMeanwhile pauses a partition, which takes as long as its handler.
func (w *world) pauseMeanwhile(name string) (ended <-chan error) {
	p, _ := w.tool()
	done := make(chan error, 1)
	go func() { done <- p.Pause(w.t.Context(), name) }()
	return done
}

func TestPoolMemberMovesNoMoreAtATimeThanItMay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(6)
		s := newSlowly(b, "0")
		m := w.member("0", s.handle, givesOneAtATime...)
		b.await(t, time.Minute, 6, 1)
		n := w.member("1", b.handler("1"), givesOneAtATime...)
		time.Sleep(3 * interval)
		asked := s.askedToStop()
		require.Len(t, asked, 1)
		// The one that moves is paused, and still on its way.
		paused := w.pauseMeanwhile(asked[0])
		time.Sleep(3 * interval)
		require.Equal(t, asked, s.askedToStop())
		s.end()
		require.NoError(t, <-paused)
		time.Sleep(3 * interval)
		require.Len(t, s.askedToStop(), 2)
		m.stop()
		for len(m.ended) == 0 {
			s.end()
			time.Sleep(time.Second)
		}
		n.leave(t)
		b.requireNoOverlap(t)
	})
}

func TestPoolPartitionThatIsPausedIsNoMove(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(6)
		s := newSlowly(b, "0")
		m := w.member("0", s.handle, givesOneAtATime...)
		b.await(t, time.Minute, 6, 1)
		paused := w.pauseMeanwhile("00005")
		time.Sleep(3 * interval)
		require.Equal(t, []string{"00005"}, s.askedToStop())
		n := w.member("1", b.handler("1"), givesOneAtATime...)
		time.Sleep(3 * interval)
		require.Len(t, s.askedToStop(), 2, "one moves beside the one that is paused")
		m.stop()
		for len(m.ended) == 0 {
			s.end()
			time.Sleep(time.Second)
		}
		require.NoError(t, <-paused)
		n.leave(t)
	})
}

// A member waits for a partition that another is giving back, and is cordoned.
func TestPoolCordonedMemberDoesNotTakeWhatItWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(2)
		s := newSlowly(b, "0")
		m := w.member("0", s.handle, givesOneAtATime...)
		b.await(t, time.Minute, 2, 1)
		n := w.member("1", b.handler("1"), givesOneAtATime...)
		time.Sleep(3 * interval)
		require.Len(t, s.askedToStop(), 1)
		require.NoError(t, n.Cordon(t.Context()))
		time.Sleep(3 * interval)
		s.end()
		time.Sleep(3 * interval)
		require.Equal(t, map[string]int{"0": 2}, b.load())
		m.stop()
		for len(m.ended) == 0 {
			s.end()
			time.Sleep(time.Second)
		}
		n.leave(t)
	})
}

// The residency counts from when the member got the partition, however long it
// has been a member.
func TestPoolResidencyBeginsWithThePartition(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		options := []pool.Option{pool.WithMinResidency(10 * time.Minute), pool.WithoutEnd()}
		m := w.member("0", b.handler("0"), options...)
		time.Sleep(time.Hour)
		w.partitions(2)
		b.await(t, 3*interval, 2, 1)
		n := w.member("1", b.handler("1"), options...)
		time.Sleep(9 * time.Minute)
		require.Equal(t, map[string]int{"0": 2}, b.load())
		b.await(t, 3*time.Minute, 2, 2)
		m.leave(t)
		n.leave(t)
	})
}

// A member that has lost its session, and cannot open another yet, is nobody's
// choice: it does not take what the plan gives to nobody.
func TestPoolMemberWithoutASessionTakesNothingBeyondItsBound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.partitions(3)
		var working, most atomic.Int32 // most: 0 while there was one at a time
		m := w.member("0", func(ctx context.Context, work *pool.Work) error {
			if now := working.Add(1); now > 1 {
				most.Store(now)
			}
			defer working.Add(-1)
			select {
			case <-work.Draining():
			case <-ctx.Done():
			}
			return nil
		}, pool.WithMaxPartitions(1), pool.WithPlanInterval(time.Second), pool.WithoutEnd())
		time.Sleep(interval)
		require.EqualValues(t, 1, working.Load())
		opened := make(chan struct{})
		m.link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Op == "AtomicPut" && strings.HasPrefix(call.Key, "session/") {
				select {
				case <-opened:
				case <-ctx.Done():
					return fmt.Errorf("%w: %w", kv.ErrUnavailable, ctx.Err())
				}
			}
			return next(ctx)
		})
		require.NoError(t, w.store.Delete(t.Context(), "session/"+m.client.Session()))
		for m.client.Session() != "" {
			time.Sleep(time.Second)
		}
		time.Sleep(5 * time.Second) // plans without a session
		close(opened)
		time.Sleep(6 * interval)
		require.Zero(t, most.Load())
		require.EqualValues(t, 1, working.Load())
		m.leave(t)
	})
}

// The store does not answer a member's attempt at a partition. It does not wait
// for that when it is stopped.
func TestPoolRunThatIsStoppedDoesNotWaitForAnAttempt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(1)
		c, link := w.client("0", lease.WithTTL(lease.DefaultTTL))
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Op == "AtomicPut" && strings.HasPrefix(call.Key, "lease/pool/") {
				<-ctx.Done()
				return fmt.Errorf("%w: %w", kv.ErrUnavailable, ctx.Err())
			}
			return next(ctx)
		})
		m := w.run(&member{client: c, link: link}, b.handler("0"))
		time.Sleep(500 * time.Millisecond)
		began := time.Now()
		m.leave(t)
		require.Less(t, time.Since(began), time.Second)
	})
}

// That a handler returned an error because its lease was lost is no failure of
// the handler.
func TestPoolHandlerThatEndsWithItsLeaseHasNotFailed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.partitions(1)
		events := &recorder{}
		c, link := w.client("0", lease.WithObserver(events.Observe))
		ended := make(chan error, 1)
		m := w.run(&member{client: c, link: link}, func(ctx context.Context, work *pool.Work) error {
			select {
			case <-ctx.Done():
				err := errors.New("interrupted")
				select {
				case ended <- err:
				default:
				}
				return err
			case <-work.Draining():
				return nil
			}
		})
		time.Sleep(2 * time.Second)
		require.NoError(t, w.store.Delete(t.Context(), "session/"+c.Session()))
		require.Error(t, <-ended)
		time.Sleep(interval)
		require.Empty(t, events.Of(pool.EventFailed))
		m.leave(t)
	})
}

// A member that waits for a partition whose owner is slow takes no place in the queue
// of its key (R20).
func TestR20ClaimsTakeNoPlace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.partitions(2)
		b := newLedger()
		slow := newSlowly(b, "a")
		one := w.member("a", slow.handle)
		b.await(t, time.Minute, 2, 1)
		two := w.member("b", b.handler("b"))
		began := time.Now()
		for len(slow.askedToStop()) == 0 {
			require.Less(t, time.Since(began), 5*time.Minute)
			time.Sleep(time.Second)
		}
		time.Sleep(5 * time.Second) // half of what a handler has to stop
		held := 0
		for h, err := range one.client.Holders(t.Context(), "pool/") {
			require.NoError(t, err)
			require.Empty(t, h.Waiters)
			held++
		}
		require.Equal(t, 2, held)
		slow.end()
		b.await(t, time.Minute, 2, 2)
		slow.end()
		two.leave(t)
	})
}
