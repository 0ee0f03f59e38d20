package web

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/seam"
	"github.com/dynalock/dynalock/lease"
)

//go:embed assets
var assets embed.FS

// assetTypes are the files in assets.
var assetTypes = map[string]string{
	"page.css": "text/css; charset=utf-8", "page.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml",
}

// policy allows what the pages have, from this handler alone, and nothing inline.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// handler serves the pages.
type handler struct {
	settings
	client *lease.Client
	clock  clock.Clock

	snapshots *feed[*snapshot]
	names     *feed[[]string]
	slots     *feed[[]*slotRow]
	pools     *feeds[*partitions]
	keys      *feeds[keyView]
}

// Handler returns the pages about the store of client. They link to each other by
// relative addresses, so it can be served below any path that ends in a slash, with
// http.StripPrefix.
//
// It needs no session of client's, and starts nothing that goes on without a
// request. Pages that are open hold a request each, which ends when client is
// closed. So close client before or while http.Server.Shutdown waits.
//
// A nil client or a bad option is the answer to each request, with status 500, and is
// logged once.
func Handler(client *lease.Client, options ...Option) http.Handler {
	s := settings{interval: DefaultInterval, log: slog.Default()}
	if err := s.apply(client, options); err != nil {
		s.log.Error(err.Error())
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		})
	}
	return newHandler(client, s).routes()
}

// apply applies the options, and checks the client.
func (s *settings) apply(client *lease.Client, options []Option) error {
	if client == nil {
		return fmt.Errorf("web: Handler: want a client: %w", lease.ErrInvalid)
	}
	for _, option := range options {
		if option == nil {
			return fmt.Errorf("web: Handler: a nil option: %w", lease.ErrInvalid)
		}
		if err := option(s); err != nil {
			return err
		}
	}
	return nil
}

func newHandler(client *lease.Client, s settings) *handler {
	h := &handler{settings: s, client: client, clock: seam.Of(client).Clock}
	snapshots := &reader{client: client, clock: h.clock}
	h.snapshots = newFeed(h.clock, h.snapshotEvery, logged(h, "locks and sessions", snapshots.read))
	h.names = newFeed(h.clock, longInterval[[]string](s.interval), logged(h, "the names of pools",
		func(ctx context.Context) ([]string, error) { return poolNames(ctx, client) }))
	h.slots = newFeed(h.clock, longInterval[[]*slotRow](s.interval), logged(h, "slots",
		func(ctx context.Context) ([]*slotRow, error) { return readSlots(ctx, client) }))
	h.pools = &feeds[*partitions]{make: func(name string) *feed[*partitions] {
		return newFeed(h.clock, longInterval[*partitions](s.interval), logged(h, "partitions",
			func(ctx context.Context) (*partitions, error) { return readPartitions(ctx, client, name) }))
	}}
	h.keys = &feeds[keyView]{make: func(key string) *feed[keyView] {
		return newFeed(h.clock, func(keyView) time.Duration { return s.interval }, logged(h, "a key",
			func(ctx context.Context) (keyView, error) { return readKey(ctx, client, key) }))
	}}
	return h
}

// snapshotEvery is how long a snapshot is good for: short enough that a session which stops
// beating is overdue on the page before it is expired.
func (h *handler) snapshotEvery(k *snapshot) time.Duration {
	if k == nil || k.shortest == 0 {
		return h.interval
	}
	return max(min(h.interval, k.shortest/6), MinInterval)
}

// longInterval is for how long listings of what there may be much of are good.
func longInterval[T any](interval time.Duration) func(T) time.Duration {
	return func(T) time.Duration { return max(10*time.Second, 5*interval) }
}

// logged makes failures of read known to the log.
func logged[T any](h *handler, what string, read func(context.Context) (T, error)) func(context.Context) (T, error) {
	return func(ctx context.Context) (T, error) {
		value, err := read(ctx)
		if err != nil && !errors.Is(err, context.Canceled) {
			h.log.WarnContext(ctx, "web: the store could not be read", "what", what, "error", err)
		}
		return value, err
	}
}

// routes are the pages. Those that write are there only WithActions.
func (h *handler) routes() http.Handler {
	mux := http.NewServeMux()
	for path, build := range map[string]builder{
		"{$}": h.overview, "locks": h.locks, "sessions": h.sessions, "elections": h.elections,
		"pools": h.poolList, "pool": h.pool, "once": h.once, "key": h.key,
	} {
		mux.HandleFunc("GET /"+path, func(w http.ResponseWriter, r *http.Request) { h.serve(w, r, build) })
	}
	for name, kind := range assetTypes {
		mux.HandleFunc("GET /assets/"+name, func(w http.ResponseWriter, _ *http.Request) {
			content, _ := assets.ReadFile("assets/" + name) // it is there: a test reads each
			w.Header().Set("Content-Type", kind)
			_, _ = w.Write(content) // an error: whoever asked is not there any more
		})
	}
	if h.authorize != nil {
		mux.HandleFunc("GET /act", h.ask)
		mux.HandleFunc("POST /act", h.act)
	}
	return secure(http.NewCrossOriginProtection().Handler(mux))
}

// secure sets the headers of all answers.
func secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Content-Security-Policy", policy)
		header.Set("Cache-Control", "no-store")
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("X-Frame-Options", "DENY")
		header.Set("Referrer-Policy", "same-origin") // the address may have a secret in it
		header.Set("Cross-Origin-Opener-Policy", "same-origin")
		header.Set("Cross-Origin-Resource-Policy", "same-origin")
		next.ServeHTTP(w, r)
	})
}

// serve answers with the page, or with a stream of its changes.
func (h *handler) serve(w http.ResponseWriter, r *http.Request, build builder) {
	if strings.Contains(r.Header.Get("Accept"), "text/event-stream") {
		h.stream(w, r, build)
		return
	}
	v, err := build(r.Context(), r.URL.Query())
	if err != nil {
		return // whoever asked is not there any more
	}
	h.show(w, r, v)
}

// show answers with a page.
func (h *handler) show(w http.ResponseWriter, r *http.Request, v *view) {
	page, err := v.render()
	text := ""
	if err == nil {
		text, err = page.whole(v)
	}
	if err != nil {
		h.log.ErrorContext(r.Context(), "web: a page could not be made", "path", r.URL.Path, "error", err)
		http.Error(w, "the page could not be made: see the log", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(v.status)
	_, _ = w.Write([]byte(text)) // an error: whoever asked is not there any more
}
