package web_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/leasetest"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/web"
)

// tableRows is an expression that counts the rows of the page's table.
const tableRows = `document.querySelectorAll("#rows > tr").length`

func TestThePageInABrowser(t *testing.T) {
	b := newBrowser(t)
	for _, c := range []struct {
		name string
		test func(*testing.T, *browser)
	}{
		{"a row appears within a second of an Acquire", rowAppears},
		{"names are text", namesAreText},
		{"it is there within two seconds", manyRows},
		{"a break ends a holder", breakEndsAHolder},
		{"a frozen holder is overdue before it is taken", frozenHolder},
		{"it works without its script", withoutScript},
		{"keys reach everything and keep their place", keyboard},
		{"nothing is wider than a phone", phone},
		{"a lost connection is said and made again", lostConnection},
		{"a page that nobody sees costs nothing", hiddenPage},
	} {
		t.Run(c.name, func(t *testing.T) {
			b.t = t
			b.do("complaints", nil)              // those of connections that the last test has closed
			defer b.do("close", args{"id": "p"}) // before its server is closed
			c.test(t, b)
		})
	}
}

func rowAppears(t *testing.T, b *browser) {
	f := newFleet(t)
	url := serve(t, f, web.WithInterval(web.MinInterval))
	c := newClient(t, f.store, "acquirer", lease.DefaultTTL)
	b.open("p", url+"locks", nil)
	b.wait("p", `document.querySelector("#status .dot")`)
	worst := time.Duration(0)
	for i := range 5 {
		key := fmt.Sprintf("key-%d", i)
		l, err := c.Acquire(t.Context(), key)
		require.NoError(t, err)
		worst = max(worst, b.wait("p", fmt.Sprintf(`document.getElementById("rows").textContent.includes(%q)`, key)))
		require.NoError(t, l.Release(t.Context()))
		b.wait("p", tableRows+` === 0`)
	}
	t.Logf("a row appears at most %v after an Acquire", worst.Round(time.Millisecond))
	require.Less(t, worst, 2*time.Second, "a second, and as much for a busy machine")
	b.requireQuiet()
}

func namesAreText(t *testing.T, b *browser) {
	url := serve(t, hostile(t), web.WithValues(), web.WithActions(allow))
	for _, path := range pages {
		require.Equal(t, http.StatusOK, b.open("p", url+path[1:], nil), path)
		b.wait("p", `document.querySelector("#status .dot")`)
		require.Zero(t, eval[int](b, "p", `document.querySelectorAll("img").length`), path)
		require.Contains(t, eval[string](b, "p", `document.body.textContent`), "<img onerror=", path)
	}
	b.requireQuiet()
}

func manyRows(t *testing.T, b *browser) {
	f := newFleet(t)
	for i := range 100 {
		m := f.member(fmt.Sprintf("worker-%d", i), fmt.Sprintf("host-%d", i/4), time.Hour, "pool/big")
		for j := range 10 {
			m.hold(fmt.Sprintf("lock/%03d/%d", i, j), time.Hour)
		}
		for j := range 100 {
			m.hold(fmt.Sprintf("pool/big/%05d", 100*i+j), time.Hour, checkpointed(f.now(), "offset", ""))
		}
	}
	url := serve(t, f, web.WithInterval(web.MaxInterval)) // what is read stays good while it is shown
	for _, c := range []struct {
		path string
		rows int
	}{{"locks", 1000}, {"sessions", 100}, {"pool?name=big", 200}, {"", 8}} {
		began := time.Now()
		response, err := http.Get(url + c.path)
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, response.Body)
		require.NoError(t, errors.Join(err, response.Body.Close()))
		made := time.Since(began) // the data is there
		plain := showing(b, url+"once", 0)
		shown := showing(b, url+c.path, c.rows)
		b.wait("p", `performance.getEntriesByType("paint").length`)
		t.Logf("/%s: %d rows of 1,000 locks, 100 sessions and 10,000 partitions: read and made in %v, shown after %v",
			c.path, c.rows, made.Round(time.Millisecond), shown.Round(time.Millisecond))
		require.Less(t, shown, 2*time.Second+20*plain,
			"two seconds, and what a busy machine adds: a page without rows takes it %v", plain)
	}
	b.requireQuiet()
}

// showing opens a page and returns after how long it shows so many keys.
func showing(b *browser, url string, keys int) time.Duration {
	b.t.Helper()
	b.open("p", "about:blank", nil)
	began := time.Now()
	b.do("open", args{"id": "p", "url": url, "still": false})
	b.wait("p", fmt.Sprintf(`document.querySelector("#status .dot") && document.querySelectorAll("td.key").length >= %d`, keys))
	return time.Since(began)
}

func breakEndsAHolder(t *testing.T, b *browser) {
	f := newFleet(t)
	c := newClient(t, f.store, "stuck", lease.MinTTL)
	l, err := c.Acquire(t.Context(), "dir/key")
	require.NoError(t, err)
	url := serve(t, f, web.WithActions(func(_ *http.Request, a web.Action) (string, error) {
		require.Equal(t, web.Action{Name: "break", Key: "dir/key", Token: l.Token()}, a)
		return "somebody", nil
	}))
	b.open("p", url+"locks", nil)
	b.do("click", args{"id": "p", "selector": "td.act a"})
	b.wait("p", `document.activeElement.name === "typed"`)
	b.do("fill", args{"id": "p", "selector": "input[name=typed]", "text": "dir/kay"})
	b.do("press", args{"id": "p", "key": "Enter"})
	b.wait("p", `document.body.textContent.includes("nothing was done")`)
	require.True(t, l.Held())
	require.Len(t, answer[[]string](b, "complaints", nil), 1, "the status of that answer")
	b.do("fill", args{"id": "p", "selector": "input[name=typed]", "text": "dir/key"})
	b.do("press", args{"id": "p", "key": "Enter"})
	b.wait("p", `document.body.textContent.includes("Done after")`)
	require.False(t, l.Held())
	require.ErrorIs(t, l.Err(), lease.ErrLost)
	b.do("click", args{"id": "p", "selector": "main p a"})
	b.wait("p", `document.querySelector("h1").textContent === "Locks" && `+tableRows+` === 0`)
	b.requireQuiet()
}

func frozenHolder(t *testing.T, b *browser) {
	f := newFleet(t)
	way := leasetest.NewLink(f.store)
	holder := newClient(t, way, "frozen", lease.DefaultTTL)
	_, err := holder.Acquire(t.Context(), "key")
	require.NoError(t, err)
	url := serve(t, f)
	b.open("p", url+"locks", nil)
	b.wait("p", `document.querySelector("#rows tr.live")`)
	contender := newClient(t, leasetest.NewLink(f.store), "contender", lease.DefaultTTL)
	way.SetCut(true) // for the store it is the same as a process that is stopped
	defer way.SetCut(false)
	taken := make(chan error, 1)
	began := time.Now()
	go func() {
		_, err := contender.Acquire(t.Context(), "key")
		taken <- err
	}()
	b.wait("p", `document.querySelector("#rows tr.overdue")`)
	require.Empty(t, taken, "it was taken before the page said that it is overdue")
	shown := time.Since(began)
	require.NoError(t, <-taken)
	t.Logf("overdue after %v, taken after %v", shown.Round(time.Second/10), time.Since(began).Round(time.Second/10))
	b.wait("p", `document.querySelector("#rows").textContent.includes("contender")`)
	b.requireQuiet()
}

func withoutScript(t *testing.T, b *browser) {
	f := newFleet(t)
	m := f.member("worker", "host", time.Hour)
	m.hold("first", time.Hour)
	b.open("p", serve(t, f)+"locks", args{"script": false})
	require.Equal(t, 1, eval[int](b, "p", tableRows))
	m.hold("second", time.Hour)
	b.wait("p", tableRows+` === 2`)
	b.requireQuiet()
}

func keyboard(t *testing.T, b *browser) {
	f := newFleet(t)
	m := f.member("worker", "host", time.Hour)
	for i := range 20 {
		m.hold(fmt.Sprintf("lock-%02d", i), time.Hour)
	}
	url := serve(t, f, web.WithInterval(web.MinInterval))
	b.open("p", url+"locks", nil)
	b.do("press", args{"id": "p", "key": "Tab"})
	require.Equal(t, "To the content", eval[string](b, "p", `document.activeElement.textContent`))
	b.do("press", args{"id": "p", "key": "/"})
	b.wait("p", `document.activeElement.name === "q"`)
	b.do("fill", args{"id": "p", "selector": "input[name=q]", "text": "lock-1"})
	b.wait("p", tableRows+` === 10`)
	require.Equal(t, "?q=lock-1", eval[string](b, "p", `location.search`))
	b.do("fill", args{"id": "p", "selector": "input[name=q]", "text": ""})
	b.wait("p", tableRows+` === 20`)

	eval[any](b, "p", `document.querySelector("#rows tr:nth-child(3) a").focus()`)
	eval[any](b, "p", `window.before = document.activeElement`)
	f.keep("a-new-first-row", []byte("x"), "")
	b.wait("p", tableRows+` === 21`)
	require.True(t, eval[bool](b, "p", `document.activeElement === window.before`), "a row that stays keeps the focus")
	m.beat() // the session was watched before, and is live from now on: each row changes
	b.wait("p", `document.querySelectorAll("#rows tr.live").length === 20`)
	require.Equal(t, "lock-02", eval[string](b, "p", `document.activeElement.textContent`), "a row that changes does, too")
	require.False(t, eval[bool](b, "p", `document.activeElement === window.before`))
	b.requireQuiet()
}

// widest is an expression that names what is too wide.
const widest = `[...document.querySelectorAll("main *")].filter((e) => e.getBoundingClientRect().right > innerWidth)
	.map((e) => e.outerHTML.slice(0, 120)).slice(0, 5).join("\n")`

func phone(t *testing.T, b *browser) {
	f, _ := town(t)
	m := f.member("a-worker-with-a-very-long-name.of.a.very.long.domain.example.com",
		"a-host-with-a-very-long-name.example.com", time.Hour)
	m.hold("a/key/that/is/as/long/as/keys/may/well/be/when/people/put/a/whole/path/into/it.json", time.Hour)
	url := serve(t, f, web.WithActions(allow))
	for _, path := range []string{"", "locks", "sessions", "elections", "pools", "pool?name=mail", "once",
		"key?key=cache/warm"} {
		for _, width := range []int{320, 390, 700, 1000} {
			b.open("p", url+path, args{"width": width, "height": 800})
			overflow := eval[int](b, "p", `document.documentElement.scrollWidth - document.documentElement.clientWidth`)
			require.LessOrEqual(t, overflow, 0, "/%s at %d: %s", path, width, eval[string](b, "p", widest))
		}
	}
	b.requireQuiet()
}

func lostConnection(t *testing.T, b *browser) {
	f := newFleet(t)
	c := newClient(t, f.store, "page", time.Minute)
	away := make(chan bool, 1)
	away <- false
	handler := web.Handler(c, web.WithInterval(web.MinInterval))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		is := <-away
		away <- is
		if is {
			http.Error(w, "away", http.StatusBadGateway)
			return
		}
		handler.ServeHTTP(w, r)
	}))
	defer server.Close()
	defer server.CloseClientConnections()
	b.open("p", server.URL+"/locks", nil)
	b.wait("p", `document.querySelector("#status .dot")`)
	<-away
	away <- true
	server.CloseClientConnections()
	b.wait("p", `document.getElementById("status").textContent.includes("No connection since")`)
	f.keep("key", []byte("x"), "")
	<-away
	away <- false
	b.wait("p", tableRows+` === 1 && document.querySelector("#status .dot") && !document.body.classList.contains("lost")`)
	require.NotEmpty(t, answer[[]string](b, "complaints", nil), "what browsers say of lost connections")
}

func hiddenPage(t *testing.T, b *browser) {
	f := newFleet(t)
	way := leasetest.NewLink(f.store)
	f.store = way
	url := serve(t, f, web.WithInterval(web.MinInterval))
	b.open("p", url+"locks", nil)
	b.wait("p", `document.querySelector("#status .dot")`)
	show := func(shown bool) {
		eval[any](b, "p", fmt.Sprintf(`Object.defineProperty(document, "hidden", {value: %t, configurable: true});
			document.dispatchEvent(new Event("visibilitychange"))`, !shown))
	}
	show(false)
	require.Eventually(t, func() bool {
		way.Take()
		time.Sleep(4 * web.MinInterval)
		return len(way.Take()) == 0
	}, patience, time.Millisecond)
	f.store.(*leasetest.Link).Take()
	f.keep("key", []byte("x"), "")
	require.Zero(t, eval[int](b, "p", tableRows))
	show(true)
	b.wait("p", tableRows+` === 1`)
	b.requireQuiet()
}
