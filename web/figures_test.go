package web_test

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/web"
)

var update = flag.Bool("update-figures", false, "write the pictures of docs/figures")

// town is a fleet as one might have it: most is well, a few things are not.
func town(t *testing.T) (*fleet, *member) {
	f := newFleet(t)
	var workers []*member
	for i := range 6 {
		joined := []string{"pool/mail"}
		if i < 3 {
			joined = append(joined, "election/scheduler")
		}
		if i == 5 {
			joined = append(joined, "pool-cordoned/mail")
		}
		m := f.member(fmt.Sprintf("worker-%d", i+1), fmt.Sprintf("ip-10-0-%d-%d", i/3, 17+i), 15*time.Second, joined...)
		m.row.Since = f.now().Add(-time.Duration(i*i+1) * 7 * time.Hour)
		m.row.Metadata = map[string]string{"version": "2.14.0"}
		workers = append(workers, m)
	}
	api := f.member("api-1", "ip-10-0-2-40", 30*time.Second, "election/billing")
	api.row.Since = f.now().Add(-50 * time.Hour)
	workers[1].hold("election/scheduler", 26*time.Hour+11*time.Minute,
		func(r *rows.Lease) { r.Value = []byte("10.0.0.18:8080") })
	workers[0].hold("nightly-report/2026-11-26", 13*time.Minute)
	workers[0].hold("invoices/acme", 42*time.Second)
	workers[2].hold("invoices/globex", 3*time.Minute)
	workers[2].hold("crawl/example.org", 8*time.Second)
	workers[3].hold("reindex/products", 5*time.Hour+12*time.Minute,
		func(r *rows.Lease) { r.MaxHold = (6 * time.Hour).Milliseconds() })
	workers[3].hold("crawl/example.com", 71*time.Second)
	workers[4].hold("billing/close-month", 26*time.Minute)
	workers[4].hold("exports/eu", 2*time.Minute)
	api.hold("schema-migration", 19*time.Second)
	api.hold("cache/warm", 4*time.Minute)
	f.keep("imports/cursor", []byte("2026-11-26T04:00:00Z"), "")
	for i := range 40 {
		key, saved := fmt.Sprintf("pool/mail/shard-%02d", i), f.now().Add(-time.Duration(i*i%37)*time.Second)
		switch i {
		case 7:
			f.keep(key, partitionValue(saved, "offset=81"), `{"f":1,"paused":true}`)
		case 21:
			f.keep(key, partitionValue(time.Time{}, ""), "")
		default:
			workers[i%5].hold(key, time.Duration(i)*time.Minute, checkpointed(saved, fmt.Sprintf("offset=%d", i*1021), ""))
		}
	}
	return f, workers[4]
}

// serve serves the page of a fleet.
func serve(t *testing.T, f *fleet, options ...web.Option) string {
	t.Helper()
	c, err := lease.New(f.store, lease.WithOwner("page"))
	require.NoError(t, err)
	server := httptest.NewServer(http.StripPrefix("/here", web.Handler(c, options...)))
	t.Cleanup(func() {
		require.NoError(t, c.Close(context.Background())) // before the server, which waits for streams
		server.Close()
	})
	return server.URL + "/here/"
}

func TestThePicturesOfTheDocs(t *testing.T) {
	b := newBrowser(t)
	f, sick := town(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go f.run(ctx)
	url := serve(t, f)
	b.open("watch", url+"sessions", nil)
	b.wait("watch", `document.querySelectorAll("tr.live").length === 7`)
	f.freeze(sick)
	b.wait("watch", `document.querySelectorAll("tr.overdue").length === 1`)
	folder := t.TempDir()
	if *update {
		folder = "../docs/figures"
	}
	for name, with := range map[string]args{
		"web-overview": {"url": url, "width": 1120, "height": 640},
		"web-sessions": {"url": url + "sessions", "width": 1120, "height": 460, "dark": true},
		"web-locks":    {"url": url + "locks", "width": 1120, "height": 520},
		"web-pool":     {"url": url + "pool?name=mail", "width": 1120, "height": 720},
		"web-phone":    {"url": url + "locks", "width": 390, "height": 760},
	} {
		with["id"] = name
		b.do("open", with)
		b.wait(name, `document.querySelector("#status .dot")`)
		overflow := eval[int](b, name, `document.documentElement.scrollWidth - document.documentElement.clientWidth`)
		require.LessOrEqual(t, overflow, 0, "%s is wider than the screen", name)
		b.do("screenshot", args{"id": name, "path": filepath.Join(folder, name+".png")})
	}
	b.requireQuiet()
}
