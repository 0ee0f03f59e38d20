package web_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/web"
)

// busyFleet has keys before, between and behind those that a look leaves out.
func busyFleet(t *testing.T, locks, partitions int) *fleet {
	f := newFleet(t)
	m := f.member("worker", "host", time.Minute, "pool/mail")
	for i := range locks {
		m.hold(fmt.Sprintf("%c/lock-%d", "azr"[i%3], i), time.Hour) // r is behind pool/
	}
	for i := range partitions {
		m.hold(fmt.Sprintf("pool/mail/%05d", i), time.Hour, checkpointed(f.now(), "x", ""))
		f.keep(fmt.Sprintf("once/job/%05d", i), []byte(`{"f":1,"state":"done","token":1,"attempt":1}`), "")
	}
	return f
}

func TestNobodyLookingCostsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, busyFleet(t, 10, 10).store)
		time.Sleep(time.Hour)
		require.Empty(t, s.requests(), "before anybody has looked")
		v := s.look("/locks")
		time.Sleep(time.Minute + time.Second)
		require.NotEmpty(t, s.requests())
		v.gone()
		time.Sleep(time.Hour)
		require.Empty(t, s.requests(), "after all have gone")
	})
}

func TestManyViewersCostWhatOneCosts(t *testing.T) {
	t.Parallel()
	for _, page := range []string{"/", "/locks", "/sessions", "/elections", "/pools", "/pool?name=mail", "/once",
		"/key?key=a/lock-0"} {
		synctest.Test(t, func(t *testing.T) {
			cost := func(viewers int) map[string]int {
				s := newSite(t, busyFleet(t, 5, 5).store)
				for i := range viewers {
					time.Sleep(time.Duration(i) * 300 * time.Millisecond) // they come when they like
					s.look(page)
				}
				synctest.Wait()
				s.requests()
				time.Sleep(2 * time.Minute)
				return s.requests()
			}
			one, four := cost(1), cost(4)
			require.NotEmpty(t, one)
			for op, n := range one {
				require.InDelta(t, n, four[op], 0.02*float64(n)+4, "%s %s: %v, %v", page, op, one, four)
			}
			require.Len(t, four, len(one))
		})
	}
}

// What the pages cost is what the package says: sessions and three stretches of keys
// every two seconds, and what there is much of every ten.
func TestPagesCostWhatThePackageSays(t *testing.T) {
	t.Parallel()
	for page, want := range map[string]map[string]float64{ // per minute
		"/locks":            {"ListPage": 30 * 4},
		"/sessions":         {"ListPage": 30 * 4},
		"/":                 {"ListPage": 30*4 + 6*2},
		"/pools":            {"ListPage": 30*4 + 6*2},
		"/pool?name=mail":   {"ListPage": 30*4 + 6*1},
		"/once":             {"ListPage": 30*4 + 6*1},
		"/key?key=a/lock-0": {"ListPage": 30 * 4, "Get": 30 * 2},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t, busyFleet(t, 12, 6).store)
			s.look(page)
			time.Sleep(time.Minute + time.Second) // pages are as long as the last look was by then
			s.requests()
			time.Sleep(3 * time.Minute)
			calls := s.requests()
			for op, n := range want {
				require.InEpsilon(t, 3*n, calls[op], 0.03, "%s: %v", page, calls)
			}
			require.Len(t, calls, len(want), "%s: %v", page, calls)
		})
	}
}

// A look reads few rows more than it shows, whatever else there is.
func TestALookLeavesOutPartitionsAndSlots(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		counted := &counted{Store: busyFleet(t, 300, 2000).store}
		s := newSite(t, counted)
		for range 3 {
			s.text("/locks")
			time.Sleep(3 * time.Second)
		}
		counted.pairs = 0
		page := s.text("/locks")
		require.LessOrEqual(t, counted.pairs, 300+1+2*60, "rows that were read")
		require.Equal(t, 300, strings.Count(page, "<tr id="))
		require.NotContains(t, page, "pool/mail/")
		require.True(t, counted.eventual, "half the price will do")
	})
}

// counted is a store that counts the pairs of its listings.
type counted struct {
	kv.Store
	pairs    int
	eventual bool
}

func (c *counted) ListPage(ctx context.Context, prefix string, options ...kv.ReadOption) (*kv.Page, error) {
	settings, err := kv.ListSettings(prefix, options)
	if err != nil {
		return nil, err
	}
	page, err := c.Store.ListPage(ctx, prefix, options...)
	if err == nil {
		c.pairs += len(page.Pairs)
		c.eventual = settings.Eventual
	}
	return page, err
}

// Locks whose keys are as near to the skipped ones as can be are shown.
func TestALookLeavesOutNothingElse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		m := f.member("worker", "host", time.Minute)
		keys := []string{"once", "once.", "once0", "once\U0010ffff", "pool", "pool.", "pool0", "a", "\U0010ffff",
			"semaphore/s/0"}
		for _, key := range append(keys, "once/j/s", "pool/p/x", "pool/\U0010ffff/x") {
			m.hold(key, time.Hour)
		}
		s := newSite(t, f.store)
		for range 2 {
			page := s.text("/locks")
			for _, key := range keys {
				require.Contains(t, page, ">"+key+"</a>")
			}
			require.Equal(t, len(keys), strings.Count(page, "<tr id="))
			time.Sleep(3 * time.Second)
		}
	})
}

func TestAStoreThatDoesNotAnswerIsShownAndNotAskedMoreOften(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, busyFleet(t, 10, 10).store)
		v := s.look("/locks")
		time.Sleep(10 * time.Second)
		v.take()
		s.link.SetIntercept(func(context.Context, kv.Call, func(context.Context) error) error {
			return errors.New("<throttled>")
		})
		s.requests()
		time.Sleep(time.Minute)
		patches := v.take()
		require.NotEmpty(t, patches)
		status := patches[len(patches)-1].Parts["status"]
		require.Contains(t, patches[0].Parts["status"]+status, "&lt;throttled&gt;")
		for _, p := range patches {
			require.Nil(t, p.Order, "what was read before stays")
		}
		require.InDelta(t, 30, s.requests()["ListPage"], 2)
		require.Contains(t, s.logged.String(), "could not be read")
		require.Equal(t, http.StatusServiceUnavailable, s.get("/once").Code, "what was never read is not there")
		w := s.get("/locks")
		require.Equal(t, http.StatusOK, w.Code)
		require.Contains(t, w.Body.String(), "Not up to date")
		s.link.SetIntercept(nil)
		time.Sleep(5 * time.Second)
		patches = v.take()
		require.Contains(t, patches[len(patches)-1].Parts["status"], "read at")
	})
}

// Who goes away in the middle of a reading that he makes for all leaves the others
// what they came for.
func TestAViewerWhoGoesAwayInAReadingHarmsNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, busyFleet(t, 3, 0).store)
		s.link.SetIntercept(func(ctx context.Context, _ kv.Call, next func(context.Context) error) error {
			select {
			case <-time.After(time.Second):
				return next(ctx)
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		first := s.look("/locks")
		synctest.Wait()
		second := s.look("/locks")
		synctest.Wait()
		first.gone()
		time.Sleep(5 * time.Second)
		require.Empty(t, first.take())
		patches := second.take()
		require.NotEmpty(t, patches)
		require.Len(t, patches[0].Rows, 3)
		require.NotContains(t, s.logged.String(), "could not be read", "it was not the store's fault")
	})
}

func TestOpenPagesEndWithTheClient(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, busyFleet(t, 3, 0).store)
		v := s.look("/locks")
		time.Sleep(time.Minute)
		require.NoError(t, s.client.Close(t.Context()))
		select {
		case <-v.ended:
		case <-time.After(time.Hour):
			t.Fatal("it goes on")
		}
	})
}

// The interval that was asked for is kept, and shortened for sessions with a short TTL.
func TestTheIntervalIsThatOfTheOptionOrShorter(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		interval, ttl time.Duration
		perMinute     float64
	}{
		{2 * time.Second, time.Minute, 30}, {time.Minute, time.Hour, 1}, {500 * time.Millisecond, time.Minute, 120},
		{2 * time.Second, 6 * time.Second, 60}, {2 * time.Second, 3 * time.Second, 120},
		{30 * time.Second, 15 * time.Second, 24},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet(t)
			f.member("worker", "host", c.ttl)
			s := newSite(t, f.store, web.WithInterval(c.interval))
			s.look("/sessions")
			time.Sleep(c.interval)
			s.requests()
			minutes := 100 / c.perMinute
			time.Sleep(time.Duration(minutes * float64(time.Minute)))
			require.InEpsilon(t, minutes*c.perMinute*4, s.requests()["ListPage"], 0.03, "%v", c)
		})
	}
}
