package pool_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/pool"
)

// staleStore serves eventually consistent listings as of some time ago.
type staleStore struct {
	*memkv.Store

	mu  sync.Mutex
	age time.Duration
	// hidden is a key that they do not show, fresh a prefix of which they are not
	// stale.
	hidden, fresh string
	// log has every change of a row, a nil pair where it was deleted.
	log []change
}

type change struct {
	at   time.Time
	key  string
	pair *kv.KVPair
}

// stale makes a store of the world's rows; what is written past it does not
// show in its listings.
func (w *world) stale(age time.Duration) *staleStore {
	s := &staleStore{Store: w.store, age: age}
	pairs, err := w.store.List(context.Background(), "")
	require.NoError(w.t, err)
	for _, pair := range pairs {
		s.log = append(s.log, change{key: pair.Key, pair: pair})
	}
	return s
}

func (s *staleStore) set(change func(*staleStore)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

func (s *staleStore) note(key string, pair *kv.KVPair) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, change{time.Now(), key, pair})
}

func (s *staleStore) AtomicPut(ctx context.Context, key string, options ...kv.WriteOption) (*kv.KVPair, error) {
	pair, err := s.Store.AtomicPut(ctx, key, options...)
	if err == nil {
		s.note(key, pair)
	}
	return pair, err
}

func (s *staleStore) AtomicDelete(ctx context.Context, key string, previous *kv.KVPair,
	options ...kv.DeleteOption) error {
	err := s.Store.AtomicDelete(ctx, key, previous, options...)
	if err == nil {
		s.note(key, nil)
	}
	return err
}

func (s *staleStore) ListPage(ctx context.Context, prefix string, options ...kv.ReadOption) (*kv.Page, error) {
	settings, err := kv.ListSettings(prefix, options)
	if err != nil || !settings.Eventual {
		return s.Store.ListPage(ctx, prefix, options...)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	rows := map[string]*kv.KVPair{}
	for _, c := range s.log {
		switch {
		case prefix != s.fresh && time.Since(c.at) < s.age || !strings.HasPrefix(c.key, prefix) || c.key == s.hidden:
		case c.pair == nil:
			delete(rows, c.key)
		default:
			rows[c.key] = c.pair
		}
	}
	page := &kv.Page{}
	for _, key := range slices.Sorted(maps.Keys(rows)) {
		page.Pairs = append(page.Pairs, rows[key].Clone())
	}
	return page, nil
}

// joinStale starts a member whose listings are stale.
func (w *world) joinStale(s *staleStore, name string, handle pool.Handler, options ...pool.Option) *member {
	l := newLink(s)
	c, err := lease.New(l, lease.WithOwner(name))
	require.NoError(w.t, err)
	w.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = c.Close(ctx)
	})
	return w.run(&member{client: c, link: l}, handle, options...)
}

// A partition was added, and the eventually consistent listings do not show it
// yet.
func TestPoolIsNotDoneWhileAStaleListingHidesAPartition(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.partitions(3)
		s := w.stale(0)
		s.set(func(s *staleStore) { s.hidden = "lease/pool/p/00002" })
		m := w.joinStale(s, "0", finish)
		time.Sleep(10 * interval)
		require.Empty(t, m.ended)
		require.True(t, w.isDone("00000") && w.isDone("00001"))
		require.False(t, w.isDone("00002"))
		s.set(func(s *staleStore) { s.hidden = "" })
		require.NoError(t, <-m.ended)
		require.True(t, w.isDone("00002"))
	})
}

// A member that has just taken, given back, or finished something knows that
// better than a listing that does not show it yet: it neither gives away what
// it has, nor asks for what it has not.
func TestPoolMemberBelievesWhatItDidNotAStaleListing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(20)
		s := w.stale(900 * time.Millisecond)
		const often = 500 * time.Millisecond // listings by which everything is old
		options := []pool.Option{pool.WithPlanInterval(often), pool.WithMinResidency(0), pool.WithMaxMoves(20)}
		m := w.joinStale(s, "0", b.handler("0"), options...)
		b.await(t, 10*time.Second, 20, 1)
		n := w.joinStale(s, "1", b.handler("1"), options...)
		b.await(t, 20*time.Second, 20, 2)
		require.Equal(t, 10, b.takeMoves(), "moved more than once")
		time.Sleep(5 * time.Second)
		m.link.Take()
		n.link.Take()
		n.leave(t)
		b.await(t, 20*time.Second, 20, 1)
		require.Equal(t, 10, b.takeMoves())
		calls := n.link.Take()
		require.LessOrEqual(t, calls["AtomicPut"], 10+1+1, "the releases, leaving, a heartbeat")
		calls = m.link.Take()
		require.LessOrEqual(t, calls["AtomicPut"], 10+5, "the claims, and heartbeats")
		b.requireNoOverlap(t)
		m.leave(t)
	})
}

// Others join while no listing shows yet what a member has got: it gives away
// its surplus, and not what a plan made of old rows gives to others.
func TestPoolMemberKeepsWhatItHasJustGotWhileNoListingShowsIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(60)
		s := w.stale(5 * time.Second)
		s.fresh = "session/"
		options := []pool.Option{pool.WithPlanInterval(time.Second), pool.WithMinResidency(0), pool.WithMaxMoves(60)}
		var all []*member
		for i := range 4 {
			name := fmt.Sprint(i)
			all = append(all, w.joinStale(s, name, b.handler(name), options...))
			time.Sleep(1500 * time.Millisecond)
		}
		b.await(t, time.Minute, 60, 4)
		time.Sleep(time.Minute)
		require.LessOrEqual(t, b.takeMoves(), 45, "what the first had too much")
		for _, m := range all {
			m.leave(t)
		}
	})
}

// A partition that is done, or was given up, is not asked for because an old
// listing shows it otherwise.
func TestPoolMemberDoesNotAskForWhatItHasJustFinished(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.partitions(10)
		s := w.stale(900 * time.Millisecond)
		var calls atomic.Int32
		m := w.joinStale(s, "0", func(context.Context, *pool.Work) error {
			calls.Add(1)
			time.Sleep(100 * time.Millisecond) // listings show for a while that it is held
			return pool.ErrDone
		}, pool.WithPlanInterval(300*time.Millisecond), pool.WithMaxMoves(10), pool.WithoutEnd())
		time.Sleep(4 * time.Second)
		require.EqualValues(t, 10, calls.Load())
		require.Equal(t, 1+2*10, m.link.Take()["AtomicPut"], "the session, a claim and a release for each")
		m.leave(t)
	})
}

// A listing shows what was there when it began, however long it took: what a
// member has finished meanwhile it does not ask for.
func TestPoolListingIsAsOldAsItsBeginning(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.partitions(10)
		c, link := w.client("0", lease.WithTTL(lease.DefaultTTL))
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			err := next(ctx)
			if call.Op == "ListPage" && call.Key == "lease/pool/p/" {
				time.Sleep(4 * time.Second)
			}
			return err
		})
		m := w.run(&member{client: c, link: link}, func(context.Context, *pool.Work) error {
			time.Sleep(2 * time.Second) // while the next listing is on its way
			return pool.ErrDone
		}, pool.WithPlanInterval(time.Second), pool.WithMaxMoves(10), pool.WithoutEnd())
		time.Sleep(12 * time.Second)
		for i := range 10 {
			require.True(t, w.isDone(fmt.Sprintf("%05d", i)))
		}
		puts := link.Take()["AtomicPut"]
		require.LessOrEqual(t, puts, 1+2*10+3, "joining, a claim and a release for each, heartbeats")
		m.leave(t)
	})
}

// Listings come from several replicas: an older one after a newer does not make
// a dead member young again.
func TestPoolMemberThatCrashedIsFoundAlsoByListingsThatGoBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(1)
		s := w.stale(0)
		first := w.joinStale(s, "0", b.handler("0"), pool.WithPlanInterval(time.Second))
		b.await(t, time.Minute, 1, 1)
		idle := w.joinStale(s, "1", b.handler("1"))
		time.Sleep(2 * interval)
		require.Len(t, w.rows("session/"), 2)
		var listings atomic.Int32
		first.link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Key == "session/" {
				age := time.Duration(listings.Add(1)%2) * lease.DefaultTTL
				s.set(func(s *staleStore) { s.age = age })
			}
			return next(ctx)
		})
		idle.crash(b, "1")
		time.Sleep(failover)
		require.Len(t, w.rows("session/"), 1)
		first.leave(t)
	})
}

// Who has seen that a session is gone does not plan for its member because an
// old listing still shows it.
func TestPoolMemberThatHasClosedIsNotPlannedForBecauseAnOldListingShowsIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(20)
		s := w.stale(0)
		m := w.joinStale(s, "0", b.handler("0"), pool.WithMinResidency(time.Hour))
		b.await(t, 2*interval, 20, 1)
		n := w.joinStale(s, "1", b.handler("1"), pool.WithPlanInterval(time.Second))
		time.Sleep(4 * interval)
		require.Equal(t, map[string]int{"0": 20}, b.load())
		s.set(func(s *staleStore) { s.age = 30 * time.Second })
		require.NoError(t, m.client.Close(t.Context()))
		<-m.ended
		// A waiter asks after a session every third of its TTL.
		took := b.await(t, lease.DefaultTTL/3+3*time.Second, 20, 1)
		t.Logf("after %v", took)
		n.leave(t)
	})
}

// The listing is old: that the partition is done shows only when the member has
// its lease.
func TestPoolDoneInItsRowIsNotWorkedOnAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.partitions(1)
		s := w.stale(time.Hour)
		done := partitionRow(`,"done":true`)
		require.NoError(t, w.store.Put(t.Context(), "lease/pool/p/00000", kv.WithString(done)))
		s.fresh = "session/"
		called := 0
		m := w.joinStale(s, "0", func(context.Context, *pool.Work) error {
			called++
			return nil
		})
		time.Sleep(5 * interval)
		require.Zero(t, called)
		require.Greater(t, m.link.Take()["AtomicPut"], 5*2+1, "it had the lease, beside the heartbeats")
		m.leave(t)
		pair, err := w.store.Get(t.Context(), "lease/pool/p/00000")
		require.NoError(t, err)
		require.JSONEq(t, done, pair.String())
	})
}

// A cordoned member gives a partition up, and old listings show for a while that
// it still has it. It does not ask for it again.
func TestPoolMemberDoesNotCountWhatItHasGivenUpAsItsOwn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(2)
		s := w.stale(5 * time.Second)
		s.fresh = "session/"
		giveUp := make(chan struct{})
		m := w.joinStale(s, "0", func(ctx context.Context, work *pool.Work) error {
			b.begin("0", work)
			defer b.end("0", work)
			mayGiveUp := giveUp
			if work.Name() != "00000" {
				mayGiveUp = nil
			}
			select {
			case <-mayGiveUp:
			case <-work.Draining():
			case <-ctx.Done():
			}
			return nil
		}, pool.WithPlanInterval(500*time.Millisecond), pool.WithMinResidency(time.Hour))
		b.await(t, time.Minute, 2, 1)
		n := w.member("1", b.handler("1"))
		time.Sleep(interval)
		require.NoError(t, m.Cordon(t.Context()))
		var writes atomic.Int32
		m.link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Op == "AtomicPut" && call.Key == "lease/pool/p/00000" {
				writes.Add(1)
			}
			return next(ctx)
		})
		close(giveUp)
		b.await(t, 2*interval, 2, 2)
		time.Sleep(interval)
		require.EqualValues(t, 1, writes.Load(), "its release")
		b.requireNoOverlap(t)
		m.leave(t)
		n.leave(t)
	})
}
