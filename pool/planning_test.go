package pool_test

import (
	"context"
	"fmt"
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

// failListings makes the listings of the pool fail with what failure returns,
// unless that is nil, and counts all.
func (l *link) failListings(failure func() error) *atomic.Int32 {
	n := new(atomic.Int32)
	l.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
		if call.Op != "ListPage" || call.Key != "lease/pool/p/" {
			return next(ctx)
		}
		n.Add(1)
		if err := failure(); err != nil {
			return err
		}
		return next(ctx)
	})
	return n
}

// After an outage the next failure is a new one: the pauses begin anew.
func TestPoolLooksAgainSoonAfterAFailureThatFollowsALongOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(1)
		const often = time.Hour
		m := w.member("0", b.handler("0"), pool.WithPlanInterval(often))
		b.await(t, time.Minute, 1, 1)
		var fails atomic.Bool
		fails.Store(true)
		listings := m.link.failListings(func() error {
			if fails.Load() {
				return errLost
			}
			return nil
		})
		time.Sleep(2 * often)
		require.Greater(t, listings.Load(), int32(100), "while it lasts")
		fails.Store(false)
		time.Sleep(2 * time.Minute) // the longest pause is half a minute
		before := listings.Load()
		fails.Store(true)
		for listings.Load() == before {
			time.Sleep(time.Minute)
		}
		time.Sleep(2 * time.Second) // after the next plan
		require.Greater(t, listings.Load(), before+2)
		m.leave(t)
	})
}

func TestPoolRunEndsWithAnErrorThatTimeDoesNotMend(t *testing.T) {
	t.Parallel()
	for _, failure := range []error{kv.ErrClosed, kv.ErrUnsupported} {
		synctest.Test(t, func(t *testing.T) {
			w, b := newWorld(t), newLedger()
			w.partitions(1)
			m := w.member("0", b.handler("0"))
			b.await(t, time.Minute, 1, 1)
			m.link.failListings(func() error { return failure })
			began := time.Now()
			time.AfterFunc(time.Hour, m.stop)
			require.ErrorIs(t, <-m.ended, failure)
			require.LessOrEqual(t, time.Since(began), interval*11/10)
			require.Empty(t, b.load())
		})
	}
}

// A row that the driver cannot read may be mended: the members go on with what
// they have.
func TestPoolGoesOnWhileTheDriverCannotReadARow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(1)
		m := w.member("0", b.handler("0"))
		b.await(t, time.Minute, 1, 1)
		var broken atomic.Bool
		broken.Store(true)
		m.link.failListings(func() error {
			if broken.Load() {
				return &kv.FormatError{Key: "lease/pool/p/x", Problem: "not ours"}
			}
			return nil
		})
		time.Sleep(time.Hour)
		require.Equal(t, 1, b.load()["0"])
		broken.Store(false)
		w.partitions(2)
		b.await(t, time.Minute, 2, 1)
		m.leave(t)
	})
}

// A listing that hangs is given up after 10 s, or the plan interval if that is
// longer.
func TestPoolListingThatHangsIsGivenUp(t *testing.T) {
	t.Parallel()
	for _, every := range []time.Duration{time.Second, time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			w, b := newWorld(t), newLedger()
			m := w.member("0", b.handler("0"), pool.WithPlanInterval(every))
			time.Sleep(2 * every)
			first := true
			m.link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
				if call.Op == "ListPage" && first {
					first = false
					began := time.Now()
					<-ctx.Done()
					require.Equal(t, max(10*time.Second, every), time.Since(began))
					return ctx.Err()
				}
				return next(ctx)
			})
			w.partitions(1)
			b.await(t, 2*every+15*time.Second, 1, 1)
			m.leave(t)
		})
	}
}

// perInterval returns how many listings a member makes in a time, at most:
// looks a plan, at intervals that vary by a tenth.
func perInterval(in time.Duration, every time.Duration) int32 { return int32(in*10/(every*9)) + 2 }

// Who has run out of work looks for more at first, and then no more often than
// anybody.
func TestPoolMemberWithoutWorkLooksNoMoreOftenThanOthersAfterAWhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.partitions(2)
		release := make(chan struct{})
		m := w.member("0", finish, pool.WithMaxPartitions(1))
		n := w.member("1", func(context.Context, *pool.Work) error {
			<-release
			return pool.ErrDone
		}, pool.WithMaxPartitions(1))
		time.Sleep(2 * interval)
		listings := m.link.failListings(func() error { return nil })
		time.Sleep(interval * 3)
		early := listings.Load()
		require.LessOrEqual(t, early, perInterval(3*interval, interval)+5)
		time.Sleep(80 * interval)
		require.LessOrEqual(t, listings.Load()-early, perInterval(80*interval, interval))
		close(release)
		require.NoError(t, <-m.ended)
		require.NoError(t, <-n.ended)
	})
}

// What others do is asked for only by who has nothing left to do.
func TestPoolMemberAtWorkPlansOnceAnIntervalHoweverMuchItFinishes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.partitions(20)
		m := w.member("0", func(_ context.Context, l *pool.Work) error {
			var i int
			_, err := fmt.Sscanf(l.Key(), "pool/p/%05d", &i)
			time.Sleep(time.Duration(i) * interval / 2)
			if err != nil {
				return err
			}
			return pool.ErrDone
		})
		time.Sleep(interval / 5)
		listings := m.link.failListings(func() error { return nil })
		time.Sleep(9 * interval) // it finishes one every half interval
		require.LessOrEqual(t, listings.Load(), perInterval(9*interval, interval))
		require.NoError(t, <-m.ended)
	})
}

// A partition that is given up comes back once an interval, also at a member
// that has finished another before.
func TestPoolMemberThatHasFinishedOnceDoesNotHurryForEver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.partitions(2)
		var calls atomic.Int32
		m := w.member("0", func(_ context.Context, l *pool.Work) error {
			if l.Key() == "pool/p/00000" {
				return pool.ErrDone
			}
			calls.Add(1)
			return nil
		})
		time.Sleep(5 * interval)
		before := calls.Load()
		time.Sleep(20 * interval)
		require.LessOrEqual(t, calls.Load()-before, perInterval(20*interval, interval))
		require.GreaterOrEqual(t, calls.Load()-before, int32(17))
		m.leave(t)
	})
}

func TestPoolPartitionsThatLieIdleDoNotCountAsLoad(t *testing.T) {
	t.Parallel()
	for _, marks := range []string{`,"done":true,"weight":100`, `,"paused":true,"weight":100`,
		`,"removed":true,"weight":100`} {
		synctest.Test(t, func(t *testing.T) {
			w, b := newWorld(t), newLedger()
			w.partitions(4)
			w.addMarked("zero", marks)
			m, n := w.member("0", b.handler("0")), w.member("1", b.handler("1"))
			time.Sleep(10 * interval)
			require.Equal(t, map[string]int{"0": 2, "1": 2}, b.load())
			m.leave(t)
			n.leave(t)
		})
	}
}

// A member whose session was lost has a new one soon, and takes with that
// before its next plan would come.
func TestPoolMemberPlansSoonWithItsNewSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(4)
		const seldom = 10 * time.Minute
		m := w.member("0", b.handler("0"), pool.WithPlanInterval(seldom))
		b.await(t, 2*seldom/10, 4, 1)
		time.Sleep(seldom / 5)
		for _, row := range w.rows("session/") {
			require.NoError(t, w.store.Delete(t.Context(), row))
		}
		time.Sleep(lease.DefaultTTL / 2)
		require.Empty(t, b.load(), "a heartbeat has found out")
		b.await(t, seldom/10+lease.DefaultTTL, 4, 1)
		m.leave(t)
	})
}

// A silent member is found out when its time is over since the listing that
// showed its last heartbeat, not at the next plan.
func TestPoolMemberThatCrashedIsFoundOutWithoutWaitingForAPlan(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(1)
		events := &recorder{}
		c, link := w.client("0", lease.WithTTL(lease.DefaultTTL), lease.WithObserver(events.Observe))
		first := w.run(&member{client: c, link: link}, b.handler("0"), pool.WithPlanInterval(time.Minute))
		b.await(t, time.Minute, 1, 1)
		idle := w.member("1", b.handler("1"))
		time.Sleep(3 * time.Minute)
		require.Len(t, w.rows("session/"), 2)
		idle.crash(b, "1")
		listed := make(chan time.Time, 100)
		first.link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Key == "session/" {
				listed <- time.Now()
			}
			return next(ctx)
		})
		shown := <-listed
		time.Sleep(lease.DefaultTTL*17/16 + time.Second)
		killed := events.Of(lease.EventSessionKilled)
		require.Len(t, killed, 1)
		require.WithinDuration(t, shown, killed[0].Time, lease.DefaultTTL*17/16+time.Second/10)
		first.leave(t)
	})
}

// Members of another pool, and clients that are in none, have no share.
func TestPoolPlansForItsOwnMembersOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(6)
		c, _ := w.client("stranger")
		w.acquire(c, "mutex")
		other, err := pool.New(c, "q", finish)
		require.NoError(t, err)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- other.Run(ctx) }()
		m, n := w.member("0", b.handler("0")), w.member("1", b.handler("1"))
		b.await(t, time.Minute, 6, 2)
		m.leave(t)
		n.leave(t)
		stop()
		require.NoError(t, <-ended)
	})
}

// The residency is a plan interval unless WithMinResidency says otherwise, 0
// included.
func TestPoolMemberKeepsForAsLongAsTheResidency(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		options []pool.Option
		stays   time.Duration
	}{
		"default": {nil, interval},
		"zero":    {[]pool.Option{pool.WithMinResidency(0)}, 0},
		"minute":  {[]pool.Option{pool.WithMinResidency(time.Minute)}, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w, b := newWorld(t), newLedger()
				w.partitions(2)
				options := append(test.options, pool.WithPlanInterval(interval))
				m := w.member("0", b.handler("0"), options...)
				b.await(t, time.Second/2, 2, 1)
				began := time.Now()
				n := w.member("1", b.handler("1"), pool.WithPlanInterval(time.Second))
				b.await(t, 2*time.Minute, 2, 2)
				require.GreaterOrEqual(t, time.Since(began)+time.Second, test.stays)
				require.LessOrEqual(t, time.Since(began), test.stays+2*interval)
				m.leave(t)
				n.leave(t)
			})
		})
	}
}

// Without a residency a member gives at its next plan. That comes up to a tenth
// Of an interval earlier or later, so half of the time before a residency of one
// interval would be over.
func TestPoolMemberWithoutResidencyGivesAtItsNextPlan(t *testing.T) {
	t.Parallel()
	for range 10 {
		synctest.Test(t, func(t *testing.T) {
			w, b := newWorld(t), newLedger()
			m := w.member("0", b.handler("0"), pool.WithMinResidency(0), pool.WithPlanInterval(interval))
			time.Sleep(3 * time.Second) // it is not new any more, and plans once an interval
			w.partitions(2)
			b.await(t, 2*interval, 2, 1)
			n := w.member("1", b.handler("1"), pool.WithPlanInterval(time.Second))
			b.await(t, interval*11/10+2*time.Second, 2, 2)
			m.leave(t)
			n.leave(t)
		})
	}
}

// What is paused or removed is given back at the next plan, whatever the
// residency and however many moves go on.
func TestPoolPauseWaitsNeitherForTheResidencyNorForMoves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(30)
		m := w.member("0", b.handler("0"), pool.WithMinResidency(time.Hour), pool.WithMaxMoves(1))
		b.await(t, 2*interval, 30, 1)
		var names []string
		for i := range 20 {
			names = append(names, fmt.Sprintf("%05d", i))
		}
		began := time.Now()
		require.NoError(t, m.Pause(t.Context(), names[:10]...))
		require.NoError(t, m.Remove(t.Context(), names[10:]...))
		require.LessOrEqual(t, time.Since(began), 3*interval)
		require.Equal(t, 10, b.load()["0"])
		m.leave(t)
	})
}

// Somebody has deleted the row by hand: its holder is asked to stop.
func TestPoolHandlerOfAPartitionWhoseRowIsGoneIsAskedToStop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(2)
		m := w.member("0", b.handler("0"))
		b.await(t, time.Minute, 2, 1)
		require.NoError(t, w.store.Delete(t.Context(), "lease/pool/p/00001"))
		time.Sleep(interval * 11 / 10)
		require.Equal(t, 1, b.load()["0"])
		w.partitions(2)
		b.await(t, 2*interval, 2, 1)
		m.leave(t)
	})
}

// polled returns the partitions of which a member has read the row in a while.
func (l *link) polled(d time.Duration) int {
	var mu sync.Mutex
	keys := map[string]bool{}
	l.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
		if call.Op == "Get" && strings.HasPrefix(call.Key, "lease/pool/p/") {
			mu.Lock()
			keys[call.Key] = true
			mu.Unlock()
		}
		return next(ctx)
	})
	time.Sleep(d)
	l.SetIntercept(nil)
	mu.Lock()
	defer mu.Unlock()
	return len(keys)
}

// It costs requests to wait. A member that stays gives a few at a time, and no
// more are waited for; one that leaves gives all, and many are.
func TestPoolMemberWaitsForAsManyPartitionsAsAreOnTheirWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(80)
		slow := func(ctx context.Context, l *pool.Work) error {
			b.begin("0", l)
			defer b.end("0", l)
			<-l.Draining()
			time.Sleep(30 * time.Second)
			return nil
		}
		m := w.member("0", slow, pool.WithMaxMoves(3), pool.WithDrainTimeout(time.Hour))
		b.await(t, time.Minute, 80, 1)
		n := w.member("1", b.handler("1"), pool.WithMaxMoves(3))
		time.Sleep(2 * interval)
		for range 5 {
			require.LessOrEqual(t, n.link.polled(2*time.Second), 3)
		}
		m.stop()
		time.Sleep(interval * 11 / 10)
		waits := n.link.polled(5 * time.Second)
		require.LessOrEqual(t, waits, 32)
		require.GreaterOrEqual(t, waits, 32-3, "those that were on their way have come")
		require.NoError(t, <-m.ended)
		b.await(t, 3*interval, 80, 1)
		b.requireNoOverlap(t)
		n.leave(t)
	})
}

// A member that is not new any more, or that takes from the dead, takes all at
// once: what WithMaxMoves bounds is moves.
func TestPoolMemberTakesWhatNobodyHasAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(1)
		m := w.member("0", b.handler("0"), pool.WithMaxMoves(1))
		b.await(t, time.Second, 1, 1)
		time.Sleep(2 * interval)
		w.partitions(50)
		b.await(t, interval*11/10, 50, 1)
		m.leave(t)
	})
}

// Rows that name the member's session, and that it knows nothing of, are free:
// it takes them all at once.
func TestPoolMemberTakesItsOwnOrphansAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		m := w.member("0", b.handler("0"), pool.WithMaxMoves(1))
		time.Sleep(2 * interval)
		session := strings.TrimPrefix(w.rows("session/")[0], "session/")
		for i := range 20 {
			row := fmt.Sprintf(`{"f":2,"keep":true,"session":%q,"acq":"lost","owner":"0","value":%q}`, session, freshValue)
			require.NoError(t, w.store.Put(t.Context(), fmt.Sprintf("lease/pool/p/%05d", i), kv.WithString(row)))
		}
		b.await(t, interval*11/10+time.Second, 20, 1)
		m.leave(t)
	})
}
