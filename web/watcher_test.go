package web_test

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/leasetest"
	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
)

// stateOf is the state of the row of a table in which text stands.
func stateOf(t *testing.T, page, text string) string {
	t.Helper()
	for _, row := range strings.Split(page, "<tr id=")[1:] {
		if strings.Contains(row, ">"+text+"<") {
			state := regexp.MustCompile(`class="state [^"]*">([^<]*)<`).FindStringSubmatch(row)
			require.NotNil(t, state, row)
			return state[1]
		}
	}
	return ""
}

// A holder whose heartbeats stop is overdue on the page before others take its locks,
// whatever its TTL, and whenever in the page's rhythm it stops.
func TestAFrozenHolderIsOverdueBeforeOthersTakeItsLocks(t *testing.T) {
	t.Parallel()
	for _, ttl := range []time.Duration{lease.MinTTL, 4 * time.Second, 7 * time.Second, lease.DefaultTTL, time.Minute} {
		for _, after := range []time.Duration{0, 130 * time.Millisecond, 410 * time.Millisecond, 770 * time.Millisecond,
			1990 * time.Millisecond} {
			synctest.Test(t, func(t *testing.T) {
				store := memkv.New()
				s := newSite(t, store)
				way := leasetest.NewLink(store)
				holder := newClient(t, way, "holder", ttl)
				_, err := holder.Acquire(t.Context(), "key")
				require.NoError(t, err)
				v := s.look("/locks")
				time.Sleep(ttl + after)
				require.Equal(t, "live", stateOf(t, s.text("/locks"), "key"))
				contender := newClient(t, leasetest.NewLink(store), "contender", ttl)
				way.SetCut(true) // as when the process is stopped
				taken := make(chan time.Time, 1)
				go func() {
					if _, err := contender.Acquire(t.Context(), "key"); err == nil {
						taken <- time.Now()
					}
				}()
				v.take()
				began, overdue := time.Now(), time.Time{}
				for overdue.IsZero() {
					time.Sleep(10 * time.Millisecond)
					require.Empty(t, taken, "ttl %v, after %v: the key was taken after %v, and nothing was said",
						ttl, after, time.Since(began))
					for _, p := range v.take() {
						for _, row := range p.Rows {
							if stateOf(t, row, "key") == "overdue" {
								overdue = time.Now()
							}
						}
					}
				}
				require.Greater(t, (<-taken).Sub(overdue), time.Duration(0))
				way.SetCut(false)
			})
		}
	}
}

// newClient makes a client that the end of the test closes.
func newClient(t *testing.T, store kv.Store, owner string, ttl time.Duration) *lease.Client {
	t.Helper()
	c, err := lease.New(store, lease.WithOwner(owner), lease.WithTTL(ttl))
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = c.Close(ctx) // tests leave leases on purpose
	})
	return c
}

// A holder that beats is never in doubt, however long one looks.
func TestAHolderThatBeatsIsLive(t *testing.T) {
	t.Parallel()
	for _, ttl := range []time.Duration{lease.MinTTL, lease.DefaultTTL, 5 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			store := memkv.New()
			c := newClient(t, leasetest.NewLink(store), "holder", ttl)
			l, err := c.Acquire(t.Context(), "key")
			require.NoError(t, err)
			s := newSite(t, store)
			v := s.look("/locks")
			time.Sleep(12 * ttl)
			states := map[string]int{}
			for _, p := range v.take() {
				for _, row := range p.Rows {
					states[stateOf(t, row, "key")]++
				}
			}
			delete(states, "watched")
			require.NotEmpty(t, states)
			require.Len(t, states, 1, "%v", states)
			require.NotZero(t, states["live"])
			require.NoError(t, l.Release(t.Context()))
		})
	}
}

// The states of a session whose process dies, by the server's clock. The process's own
// is years off, and says nothing.
func TestSilenceIsCountedByTheServersClock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.now = func() time.Time { return time.Now().AddDate(-7, 0, 0) }
		const ttl = 32 * time.Second
		m := f.member("worker", "host", ttl)
		m.hold("key", time.Hour)
		s := newSite(t, f.store)
		want := func(state string) {
			t.Helper()
			require.Equal(t, state, stateOf(t, s.text("/locks"), "key"))
			require.Equal(t, state, stateOf(t, s.text("/sessions"), "worker"))
		}
		want("watched")
		time.Sleep(3 * time.Second)
		m.beat()
		want("live")
		time.Sleep(ttl*2/3 - time.Millisecond)
		want("live")
		time.Sleep(2 * time.Second)
		want("overdue")
		time.Sleep(ttl/3 - time.Second)
		want("overdue")
		time.Sleep(ttl/16 + 2*time.Second)
		want("expired")
		m.beat() // it was only slow
		time.Sleep(2 * time.Second)
		want("live")

		_, err := f.store.Get(t.Context(), rows.SessionPrefix+m.id)
		require.NoError(t, err, "the page ends no session")
		require.NoError(t, f.store.Delete(t.Context(), rows.SessionPrefix+m.id))
		time.Sleep(2 * time.Second)
		require.Equal(t, "watched", stateOf(t, s.text("/locks"), "key"), "one listing may be a stale one")
		time.Sleep(2 * time.Second)
		require.Equal(t, "gone", stateOf(t, s.text("/locks"), "key"))
		require.Contains(t, s.text("/"), "free for whoever asks")
	})
}

// A stale listing that shows an older heartbeat is not taken for a new one.
func TestAnOlderListingIsNoHeartbeat(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		m := f.member("worker", "host", 30*time.Second)
		stale := &stale{Store: f.store}
		s := newSite(t, stale)
		s.text("/sessions")
		m.beat()
		time.Sleep(3 * time.Second)
		s.text("/sessions")
		for range 9 {
			stale.on = !stale.on // every other listing is an old one
			time.Sleep(2 * time.Second)
			require.Equal(t, "live", stateOf(t, s.text("/sessions"), "worker"))
		}
		time.Sleep(3 * time.Second)
		require.Equal(t, "overdue", stateOf(t, s.text("/sessions"), "worker"))
	})
}

// stale is a store whose listings of sessions are, when it is on, those of the first
// time.
type stale struct {
	kv.Store
	on    bool
	first *kv.Page
}

func (s *stale) ListPage(ctx context.Context, prefix string, options ...kv.ReadOption) (*kv.Page, error) {
	if s.on && prefix == rows.SessionPrefix {
		return s.first, nil
	}
	page, err := s.Store.ListPage(ctx, prefix, options...)
	if prefix == rows.SessionPrefix && s.first == nil {
		s.first = page
	}
	return page, err
}

// Who looks for the first time at a process that died long ago is not told that it
// lives.
func TestADeadProcessIsNeverShownAsLive(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.member("worker", "host", 30*time.Second).hold("key", time.Hour)
		time.Sleep(time.Hour)
		s := newSite(t, f.store)
		states := []string{}
		for range 20 {
			if state := stateOf(t, s.text("/locks"), "key"); len(states) == 0 || states[len(states)-1] != state {
				states = append(states, state)
			}
			time.Sleep(2 * time.Second)
		}
		require.Equal(t, []string{"watched", "overdue", "expired"}, states)
	})
}
