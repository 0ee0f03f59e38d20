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

	"github.com/dynalock/dynalock/election"
	"github.com/dynalock/dynalock/internal/leasetest"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/pool"
	"github.com/dynalock/dynalock/web"
)

func allow(*http.Request, web.Action) (string, error) { return "somebody", nil }

func TestAPageThatOnlyReadsHasNoRouteThatWrites(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		holder := newClient(t, store, "holder", time.Minute)
		l, err := holder.Acquire(t.Context(), "key")
		require.NoError(t, err)
		s := newSite(t, store)
		form := fmt.Sprintf("do=break&key=key&token=%d&typed=key", l.Token())
		require.Equal(t, http.StatusNotFound, s.post("/act", form).Code)
		require.Equal(t, http.StatusNotFound, s.get("/act?"+form).Code)
		require.NotContains(t, s.text("/locks"), "act?do=")
		require.NotContains(t, s.text("/key?key=key"), "act?do=")
		for _, path := range []string{"/", "/locks", "/key?key=key"} {
			require.Equal(t, http.StatusMethodNotAllowed, s.post(path, form).Code)
		}
		for op := range s.requests() {
			require.Contains(t, []string{"ListPage", "Get"}, op, "the page writes nothing")
		}
		require.True(t, l.Held())
	})
}

func TestRequestsFromOtherSitesAreRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		holder := newClient(t, store, "holder", time.Minute)
		l, err := holder.Acquire(t.Context(), "key")
		require.NoError(t, err)
		asked := false
		s := newSite(t, store, web.WithActions(func(*http.Request, web.Action) (string, error) {
			asked = true
			return "somebody", nil
		}))
		form := fmt.Sprintf("do=break&key=key&token=%d&typed=key", l.Token())
		for name, header := range map[string][2]string{
			"cross-site": {"Sec-Fetch-Site", "cross-site"}, "same-site": {"Sec-Fetch-Site", "same-site"},
			"old browser": {"Origin", "https://evil.example"},
		} {
			w := s.post("/act", form, func(r *http.Request) {
				r.Header.Del("Sec-Fetch-Site")
				r.Header.Set(header[0], header[1])
			})
			require.Equal(t, http.StatusForbidden, w.Code, name)
		}
		require.False(t, asked)
		require.True(t, l.Held())
	})
}

func TestABreakIsConfirmedAuthorizedAndLogged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		holder := newClient(t, leasetest.NewLink(store), "holder", lease.DefaultTTL)
		l, err := holder.Acquire(t.Context(), "dir/key")
		require.NoError(t, err)
		var asked []web.Action
		var refuse error
		s := newSite(t, store, web.WithActions(func(_ *http.Request, a web.Action) (string, error) {
			asked = append(asked, a)
			return "alice", refuse
		}))
		address := fmt.Sprintf("act?do=break&amp;key=dir%%2fkey&amp;token=%d", l.Token())
		require.Contains(t, s.text("/locks"), address)
		page := s.text("/" + strings.ReplaceAll(address, "&amp;", "&"))
		require.Contains(t, plain(page), "takes dir/key from holder")
		require.Empty(t, asked, "who looks at the form has asked for nothing")

		form := func(typed string, token uint64) string {
			return fmt.Sprintf("do=break&key=dir/key&token=%d&typed=%s", token, typed)
		}
		w := s.post("/act", form("dir/kez", l.Token()))
		require.Equal(t, http.StatusUnprocessableEntity, w.Code)
		require.Contains(t, w.Body.String(), "nothing was done")
		w = s.post("/act", form("dir/key", l.Token()-1))
		require.Equal(t, http.StatusConflict, w.Code)
		require.Contains(t, w.Body.String(), "not held under token")
		refuse = errors.New("you are not on call")
		w = s.post("/act", form("dir/key", l.Token()))
		require.Equal(t, http.StatusForbidden, w.Code)
		require.Contains(t, w.Body.String(), "you are not on call")
		require.Contains(t, w.Body.String(), "Break a lock")
		require.NotContains(t, w.Body.String(), "<form", "who may not need not try again")
		require.True(t, l.Held())
		require.Equal(t, web.Action{Name: "break", Key: "dir/key", Token: l.Token()}, asked[len(asked)-1])

		refuse = nil
		go func() {
			<-l.Context().Done()
			_ = l.Release(context.Background())
		}()
		w = s.post("/act", form("dir/key", l.Token()))
		require.Equal(t, http.StatusOK, w.Code, w.Body)
		require.Contains(t, w.Body.String(), "Done after")
		require.False(t, l.Held())
		require.ErrorIs(t, l.Err(), lease.ErrLost)
		for _, want := range []string{"who=alice", "action=break", "key=dir/key", "holder=holder",
			fmt.Sprint("token=", l.Token()), "action refused"} {
			require.Contains(t, s.logged.String(), want)
		}
		w = s.post("/act", form("dir/key", l.Token()))
		require.Equal(t, http.StatusConflict, w.Code)
		require.Contains(t, w.Body.String(), "nobody holds it any more")
	})
}

// A holder that does not answer within a minute is left to its TTL.
func TestABreakThatLastsSaysThatItGoesOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		holder := newClient(t, store, "holder", time.Hour)
		l, err := holder.Acquire(t.Context(), "key")
		require.NoError(t, err)
		s := newSite(t, store, web.WithActions(allow))
		w := s.post("/act", fmt.Sprintf("do=break&key=key&token=%d&typed=key", l.Token()))
		require.Equal(t, http.StatusAccepted, w.Code)
		require.Contains(t, w.Body.String(), "it goes on by itself")
		time.Sleep(time.Hour)
		require.False(t, l.Held(), "the holder was told")
	})
}

func TestALeaderStepsDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		c := newClient(t, leasetest.NewLink(store), "leader", lease.DefaultTTL)
		e, err := election.New(c, "e")
		require.NoError(t, err)
		term, err := e.Campaign(t.Context(), nil)
		require.NoError(t, err)
		s := newSite(t, store, web.WithActions(allow))
		require.Contains(t, s.text("/elections"),
			fmt.Sprintf("act?do=step-down&amp;key=election%%2fe&amp;token=%d", term.Token()))
		require.Contains(t, plain(s.text(fmt.Sprintf("/act?do=step-down&key=election/e&token=%d", term.Token()))),
			"ends the term of leader")
		go func() {
			<-term.Context().Done()
			_ = term.Resign(context.Background())
		}()
		w := s.post("/act", fmt.Sprintf("do=step-down&key=election/e&token=%d&typed=election/e", term.Token()))
		require.Equal(t, http.StatusOK, w.Code, w.Body)
		require.False(t, e.IsLeader())
	})
}

func TestAPartitionIsPausedAndResumed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		c := newClient(t, leasetest.NewLink(store), "member", lease.DefaultTTL)
		p, err := pool.New(c, "p", func(_ context.Context, w *pool.Work) error {
			<-w.Draining()
			return nil
		})
		require.NoError(t, err)
		require.NoError(t, p.Add(t.Context(), "x", "y"))
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- p.Run(ctx) }()
		time.Sleep(time.Minute)
		s := newSite(t, store, web.WithActions(allow))
		require.Contains(t, s.text("/pool?name=p"), "act?do=pause&amp;key=pool%2fp%2fx")
		w := s.post("/act", "do=pause&key=pool/p/x&typed=pool/p/x")
		require.Equal(t, http.StatusOK, w.Code, w.Body)
		time.Sleep(11 * time.Second)
		page := s.text("/pool?name=p")
		require.Equal(t, "paused", stateOf(t, page, "x"))
		require.Equal(t, "held", stateOf(t, page, "y"))
		require.Contains(t, page, "act?do=resume&amp;key=pool%2fp%2fx")
		w = s.post("/act", "do=resume&key=pool/p/x&typed=pool/p/x")
		require.Equal(t, http.StatusOK, w.Code, w.Body)
		time.Sleep(time.Minute)
		require.Equal(t, "held", stateOf(t, s.text("/pool?name=p"), "x"))
		stop()
		require.NoError(t, <-ended)
	})
}

func TestActionsThatAreNoneAreRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, memkv.New(), web.WithActions(allow))
		for _, form := range []string{
			"", "do=delete&key=k&token=1", "do=break&key=&token=1", "do=break&key=k", "do=break&key=k&token=0",
			"do=break&key=k&token=-1",
			"do=break&key=election/e&token=1", "do=step-down&key=k&token=1", "do=pause&key=k", "do=pause&key=pool/p",
			"do=resume&key=pool/p/",
		} {
			require.Equal(t, http.StatusBadRequest, s.get("/act?"+form).Code, form)
			require.Equal(t, http.StatusBadRequest, s.post("/act", form+"&typed=k").Code, form)
		}
		require.Equal(t, http.StatusBadRequest,
			s.post("/act", "do=break&key=k&token=1&typed="+strings.Repeat("k", 1<<20)).Code)
		require.Empty(t, s.requests())
	})
}
