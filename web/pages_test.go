package web_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
	"github.com/dynalock/dynalock/pool"
	"github.com/dynalock/dynalock/web"
)

// pages are all there are, of a store that has what hostile fills in.
var pages = []string{
	"/", "/locks", "/sessions", "/elections", "/pools", "/pool?name=" + escapedEvil, "/once", "/key?key=" + escapedEvil,
	"/key?key=once/" + escapedEvil + "/s",
}

// evil is a name that would be markup, escapedEvil the same in an address.
const (
	evil        = `<img onerror=alert(1) src=x>"'&`
	escapedEvil = "%3Cimg%20onerror%3Dalert(1)%20src%3Dx%3E%22%27%26"
)

// hostile is a fleet whose names are all evil.
func hostile(t *testing.T) *fleet {
	f := newFleet(t)
	m := f.member(evil, evil, time.Minute, "pool/"+evil, "election/"+evil)
	m.row.Metadata = map[string]string{evil: evil}
	m.beat()
	value := func(r *rows.Lease) { r.Value, r.Note, r.Keep = []byte(evil), []byte(evil), true }
	m.hold(evil, time.Hour, value)
	m.hold("election/"+evil, time.Hour, value)
	m.hold("pool/"+evil+"/"+evil, time.Hour, checkpointed(f.now(), evil, ""))
	f.keep("once/"+evil+"/s", fmt.Appendf(nil, `{"f":1,"state":"failed","attempt":1,"token":1,"owner":%q,"error":%q}`,
		evil, evil), "")
	require.NoError(t, f.store.Put(context.Background(), "lease/x"+evil, kv.WithString(`{"f":"`+evil)))
	require.NoError(t, f.store.Put(context.Background(), "session/"+evil, kv.WithString(`{"f":"`+evil)))
	return f
}

func TestNamesAndValuesAreTextOnEveryPage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, hostile(t).store, web.WithValues(), web.WithActions(allow))
		shown := 0
		for _, path := range pages {
			page := s.text(path + evilQuery(path))
			require.NotContains(t, page, "<img", path)
			require.NotRegexp(t, `<[^>]*onerror`, regexp.MustCompile(`"[^"]*"`).ReplaceAllString(page, ""), path)
			shown += strings.Count(page, "&lt;img")
		}
		require.Greater(t, shown, 3*len(pages))
		for _, path := range pages {
			v := s.look(path)
			for _, p := range v.take() {
				for _, part := range p.Parts {
					require.NotContains(t, part, "<img", path)
				}
				for _, row := range p.Rows {
					require.NotContains(t, row, "<img", path)
				}
			}
			v.gone()
		}
	})
}

// evilQuery is what a page may be asked for.
func evilQuery(path string) string {
	query := "?"
	if strings.Contains(path, "?") {
		query = "&"
	}
	return query + "q=&page=" + escapedEvil + "&state="
}

func TestNothingIsInlineAndNothingComesFromElsewhere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, hostile(t).store, web.WithValues(), web.WithActions(allow))
		tag := regexp.MustCompile(`<[a-z][^>]*>`)
		for _, path := range append(pages, "/act?do=pause&key=pool/p/x") {
			page := s.text(path)
			require.NotContains(t, page, "<style", path)
			require.NotContains(t, page, "<script>", path)
			for _, tag := range tag.FindAllString(page, -1) {
				require.NotRegexp(t, `\s(style|on[a-z]+)=`, regexp.MustCompile(`"[^"]*"`).ReplaceAllString(tag, `""`), "%s: %s",
					path, tag)
				require.NotRegexp(t, `(href|src|action)="(https?:|//|/)`, tag, "%s: %s", path, tag)
			}
		}
	})
}

func TestEveryAnswerHasTheHeaders(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, hostile(t).store, web.WithActions(allow))
		paths := append([]string{"/nothing", "/act", "/assets/page.css", "/assets/page.js", "/assets/icon.svg",
			"/assets/none"}, pages...)
		for _, path := range paths {
			header := s.get(path).Header()
			require.Equal(t, "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "+
				"form-action 'self'; base-uri 'none'; frame-ancestors 'none'", header.Get("Content-Security-Policy"), path)
			for name, want := range map[string]string{
				"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
				"Referrer-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
			} {
				require.Equal(t, want, header.Get(name), "%s %s", path, name)
			}
		}
		for _, asset := range []string{"page.css", "page.js", "icon.svg"} {
			content, err := os.ReadFile("assets/" + asset)
			require.NoError(t, err)
			require.Equal(t, string(content), s.text("/assets/"+asset))
			require.True(t, asset != "page.js" || bytes.Count(content, []byte("\n")) <= 150, "the script stays small")
		}
		v := s.look("/locks")
		require.Len(t, v.take(), 1)
		require.Equal(t, "text/event-stream", v.header.Get("Content-Type"))
		require.Equal(t, "no-store", v.header.Get("Cache-Control"))
	})
}

func TestValuesAreHiddenUnlessAskedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const secret = "swordfish"
		f := newFleet(t)
		m := f.member("worker", "host", time.Minute, "pool/p")
		value := func(r *rows.Lease) { r.Value, r.Note, r.Keep = []byte(secret), []byte(secret), true }
		m.hold("key", time.Hour, value)
		m.hold("election/e", time.Hour, value)
		m.hold("pool/p/x", time.Hour, checkpointed(f.now(), secret, ""))
		f.keep("pool/p/failed", []byte(`{"f":1,"failed":true,"failures":1,"error":"`+secret+`"}`+"\n"), "")
		f.keep("once/j/s",
			[]byte(`{"f":1,"state":"failed","attempt":1,"token":1,"error":"`+secret+`","value":"c3dvcmRmaXNo"}`), "")
		paths := []string{
			"/", "/locks", "/elections", "/pool?name=p", "/once", "/key?key=key", "/key?key=election/e", "/key?key=pool/p/x",
			"/key?key=once/j/s",
		}
		hidden, open := newSite(t, f.store), newSite(t, f.store, web.WithValues())
		shown := 0
		for _, path := range paths {
			page := hidden.text(path)
			require.NotContains(t, page, secret, path)
			require.NotContains(t, page, "c3dvcmRmaXNo", path)
			shown += strings.Count(open.text(path), secret)
		}
		require.GreaterOrEqual(t, shown, 7)
	})
}

func TestWhatThePagesSay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		one := f.member("worker-1", "host-1", time.Minute, "pool/mail", "election/e", "pool-max/mail/7")
		two := f.member("worker-2", "host-2", time.Minute, "pool/mail", "election/e", "pool-cordoned/mail", "election/vacant")
		one.hold("a", 90*time.Minute, func(r *rows.Lease) { r.MaxHold = (2 * time.Hour).Milliseconds() })
		two.hold("b", 3*24*time.Hour)
		f.keep("c", []byte("123"), "")
		one.hold("election/e", time.Hour)
		saved := f.now().Add(-time.Minute)
		one.hold("pool/mail/0", time.Hour, checkpointed(saved, "12345", ""))
		two.hold("pool/mail/1", time.Hour, checkpointed(saved, "12345", `{"f":1,"weight":5}`))
		f.keep("pool/mail/2", partitionValue(saved, "12345"), `{"f":1,"paused":true}`)
		f.keep("pool/mail/3", partitionValue(saved, "12345"), `{"f":1,"removed":true}`)
		f.keep("pool/mail/4", []byte(`{"f":1,"done":true}`+"\n"), "")
		f.keep("pool/mail/5", partitionValue(time.Time{}, ""), "")
		f.keep("pool/mail/6", []byte(`{"f":9}`+"\n"), "")
		f.keep("pool/mail/7", []byte(`{"f":1,"failed":true,"failures":3,"error":"poison"}`+"\n"), "")
		f.keep("pool/idle/0", partitionValue(time.Time{}, ""), "")
		s := newSite(t, f.store)
		s.text("/")
		one.beat()
		two.beat()
		time.Sleep(3 * time.Second)

		overview := plain(s.text("/"))
		for _, want := range []string{
			"Sessions 2 2 live", "Locks 2 held, 1 free", "Elections 2 1 vacant", "Pools 2",
			"vacant vacant nobody leads; 1 candidate", "b worker-2 3 d a worker-1 1 h 30 min",
		} {
			require.Contains(t, overview, want)
		}
		require.Contains(t, plain(s.text("/locks")), "all 3 live 2 free 1 ")
		require.Contains(t, plain(s.text("/locks")), "a live worker-1 host-1 1 h 30 min of 2 h 3")
		require.Contains(t, plain(s.text("/locks")), "c free keeps 3 B")
		require.Contains(t, plain(s.text("/sessions")), "worker-1 live 0.0 s of 1 min host-1 1000 1 ")
		elections := plain(s.text("/elections"))
		require.Contains(t, elections, "e live worker-1 host-1 1 h ")
		require.Contains(t, elections, "worker-1 worker-2 vacant vacant nobody leads worker-2")
		require.Contains(t, plain(s.text("/pools")), "idle none: its partitions lie idle mail 2")
		page := plain(s.text("/pool?name=mail"))
		for _, want := range []string{
			"2 members", "worker-1 live 0.0 s of 1 min 1 of 7 1 ", "worker-2 live 0.0 s of 1 min 1 5 cordoned", "8 partitions",
			"all 8 held 2 idle 1 paused 1 removed 1 done 1 failed 1 unread 1", "0 held worker-1 ", "1 held worker-2 ",
			"2 paused 1 5 B 1 min ago", "7 failed 3 failed attempts 1",
		} {
			require.Contains(t, page, want)
		}
		require.Equal(t, http.StatusBadRequest, s.get("/pool?name=a/b").Code)
		require.Equal(t, http.StatusBadRequest, s.get("/pool").Code)
		key := plain(s.text("/key?key=a"))
		require.Contains(t, key, "State live Holder worker-1 Host host-1 Process 1000 Last heartbeat 0.0 s of 1 min")
		require.Contains(t, plain(s.text("/key?key=none")), "free: there is no such row")
	})
}

// plain is the text of a page, with single spaces.
func plain(page string) string {
	_, page, _ = strings.Cut(page, "<main")
	text := regexp.MustCompile(`<[^>]*>`).ReplaceAllString("<main"+page, " ")
	return strings.Join(strings.Fields(text), " ")
}

func TestOncePageSaysHowJobsWent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		c := newClient(t, store, "runner", time.Minute)
		job := lock.NewOnce(c, "report")
		do := func(slot string, err error) {
			_, _ = job.Do(t.Context(), slot, func(context.Context, *lease.Lease) error {
				time.Sleep(3 * time.Minute)
				return err
			})
		}
		do("monday", nil)
		do("tuesday", errors.New("the printer burns"))
		run, err := job.Claim(t.Context(), "wednesday")
		require.NoError(t, err)
		time.Sleep(time.Minute)
		s := newSite(t, store, web.WithValues())
		page := plain(s.text("/once"))
		require.Contains(t, page, "all 3 running 1 failed 1 done 1")
		require.Contains(t, page, "report wednesday running runner 1 2000-01-01 00:06:00 UTC 1 min")
		require.Contains(t, page, "report tuesday failed runner 1 2000-01-01 00:03:00 UTC 3 min the printer burns")
		require.Contains(t, page, "report monday done runner 1 2000-01-01 00:00:00 UTC 3 min")
		require.Less(t, strings.Index(page, "wednesday"), strings.Index(page, "monday"), "the latest first")
		require.NoError(t, store.Delete(t.Context(), rows.SessionPrefix+c.Session())) // it died
		time.Sleep(15 * time.Second)
		require.Contains(t, plain(s.text("/once")), "report wednesday abandoned")
		_ = run
	})
}

func TestTablesAreSearchedAndPaged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		m := f.member("Worker", "host", time.Minute, "pool/p")
		for i := range 1201 {
			m.hold(fmt.Sprintf("lock-%04d", i), time.Hour)
		}
		for i := range 450 {
			f.keep(fmt.Sprintf("pool/p/%03d", i), partitionValue(time.Time{}, ""), "")
		}
		s := newSite(t, f.store)
		count := func(path string) int { return strings.Count(s.text(path), "<tr id=") }
		require.Equal(t, 1000, count("/locks"))
		require.Equal(t, 201, count("/locks?page=2"))
		require.Equal(t, 201, count("/locks?page=99"))
		require.Equal(t, 1000, count("/locks?page=-1"))
		require.Equal(t, 11, count("/locks?q=CK-002")+count("/locks?q=lock-1200"))
		require.Equal(t, 1000, count("/locks?q=worker"))
		require.Zero(t, count("/locks?q=nobody"))
		require.Equal(t, 1000, count("/locks?session="+m.id))
		require.Zero(t, count("/locks?session=other"))
		require.Zero(t, count("/locks?state=overdue"))
		require.Equal(t, 200, count("/pool?name=p"))
		require.Equal(t, 50, count("/pool?name=p&page=3"))
		require.Contains(t, s.text("/pool?name=p&state=idle"), `href="?name=p&amp;page=2&amp;state=idle"`)
	})
}

// A row of another version is shown as what cannot be read, and the rest is there.
func TestARowThatCannotBeReadIsShown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.member("worker", "host", time.Minute).hold("key", time.Hour)
		require.NoError(t, f.store.Put(t.Context(), "lease/strange", kv.WithString(`{"f":7}`)))
		require.NoError(t, f.store.Put(t.Context(), "session/strange", kv.WithString(`{"f":7}`)))
		require.NoError(t, f.store.Put(t.Context(), "lease/election/strange", kv.WithString(`{"f":7}`)))
		s := newSite(t, f.store)
		require.Equal(t, "unread", stateOf(t, s.text("/locks"), "strange"))
		require.Contains(t, s.text("/locks"), "format 7, this version knows 2")
		require.Equal(t, "watched", stateOf(t, s.text("/locks"), "key"))
		require.Contains(t, s.text("/sessions"), "format 7, this version knows 2")
		require.Contains(t, s.text("/elections"), "format 7, this version knows 2")
		require.Contains(t, s.text("/"), "3 rows")
	})
}

func TestAPageWithoutItsScriptReloadsItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, newFleet(t).store, web.WithActions(allow))
		require.Contains(t, s.text("/locks"), `<noscript><meta http-equiv="refresh" content="5"></noscript>`)
		require.NotContains(t, s.text("/act?do=pause&key=pool/p/x"), "refresh", "what somebody types stays")
	})
}

// A stream sends only what has changed.
func TestAStreamSendsWhatHasChanged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		m := f.member("worker", "host", time.Hour)
		for i := range 100 {
			m.hold(fmt.Sprintf("lock-%02d", i), 100*24*time.Hour)
		}
		s := newSite(t, f.store)
		v := s.look("/locks")
		first := v.take()
		require.Len(t, first, 1)
		require.Len(t, first[0].Rows, 100)
		require.Len(t, first[0].Order, 100)
		time.Sleep(2 * time.Second)
		second := v.take()
		require.Len(t, second, 1)
		require.Empty(t, second[0].Rows)
		require.Nil(t, second[0].Order)
		m.hold("lock-000", 100*24*time.Hour)
		require.NoError(t, f.store.Delete(t.Context(), "lease/lock-50"))
		time.Sleep(2 * time.Second)
		third := v.take()
		require.Len(t, third, 1)
		require.Len(t, third[0].Rows, 1)
		require.Len(t, third[0].Order, 100)
		require.NotEqual(t, first[0].Order, third[0].Order)
	})
}

func TestThePoolsOfAStoreAreFound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		c := newClient(t, store, "tool", time.Minute)
		for _, name := range []string{"a", "b", "b0", "\U0010ffff"} {
			p, err := pool.New(c, name, nil)
			require.NoError(t, err)
			require.NoError(t, p.Add(t.Context(), "x", "y", "\U0010ffff\U0010ffff"))
		}
		s := newSite(t, store)
		page := s.text("/pools")
		require.Equal(t, 4, strings.Count(page, "<tr id="))
	})
}

func TestBadOptionsAreTheAnswerToEachRequest(t *testing.T) {
	t.Parallel()
	client := newClient(t, memkv.New(), "page", time.Minute)
	for want, handler := range map[string]http.Handler{
		"want a client":           web.Handler(nil),
		"a nil option":            web.Handler(client, nil),
		"WithInterval(1ms): want": web.Handler(client, web.WithInterval(time.Millisecond)),
		"WithInterval(1h0m0s)":    web.Handler(client, web.WithInterval(time.Hour)),
		"WithActions(nil)":        web.Handler(client, web.WithActions(nil)),
	} {
		s := &site{t: t, handler: handler}
		w := s.get("/")
		require.Equal(t, http.StatusInternalServerError, w.Code)
		require.Contains(t, w.Body.String(), want)
	}
	var logged bytes.Buffer
	web.Handler(client, web.WithLogger(slog.New(slog.NewTextHandler(&logged, nil))), web.WithInterval(0))
	require.Contains(t, logged.String(), "WithInterval(0s)")
}
