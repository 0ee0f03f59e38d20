package web

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
)

// writeTimeout is how long somebody who looks may take for one message.
const writeTimeout = 10 * time.Second

// patch is what has changed of a page, as the script takes it.
type patch struct {
	Title string `json:"title"`
	// Parts and Rows are the HTML of those that have changed.
	Parts map[string]string `json:"parts,omitempty"`
	Rows  map[string]string `json:"rows,omitempty"`
	// Order are the rows there are. null: those of before.
	Order []string `json:"order"`
}

// since says what has changed from before, nil: nothing was sent yet.
func (p *rendered) since(before *rendered) patch {
	all := patch{Title: p.title, Parts: p.parts, Rows: p.rows, Order: p.order}
	if all.Order == nil {
		all.Order = []string{}
	}
	if before == nil {
		return all
	}
	all.Parts, all.Rows = maps.Clone(p.parts), maps.Clone(p.rows)
	same := func(old map[string]string) func(string, string) bool {
		return func(name, html string) bool { return old[name] == html }
	}
	maps.DeleteFunc(all.Parts, same(before.parts))
	maps.DeleteFunc(all.Rows, same(before.rows))
	if slices.Equal(p.order, before.order) {
		all.Order = nil
	}
	return all
}

// stream sends the page's changes until whoever looks goes away, or the client is
// closed.
func (h *handler) stream(w http.ResponseWriter, r *http.Request, build builder) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(h.client.Context(), cancel)()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // proxies that collect answers
	var before *rendered
	for {
		v, err := build(ctx, r.URL.Query())
		if err != nil {
			return
		}
		page, err := v.render()
		if err != nil {
			h.log.ErrorContext(ctx, "web: a page could not be made", "path", r.URL.Path, "error", err)
			return
		}
		if err := h.send(w, page.since(before)); err != nil {
			return // nobody looks any more
		}
		before = page
		if clock.Sleep(ctx, h.clock, max(v.next, time.Millisecond)) != nil {
			return
		}
	}
}

// send sends one message.
func (h *handler) send(w http.ResponseWriter, p patch) error {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false) // it is HTML, most of it
	if err := encoder.Encode(p); err != nil {
		return err
	}
	connection := http.NewResponseController(w)
	// Not all writers have deadlines. Those of a server have.
	_ = connection.SetWriteDeadline(h.clock.Now().Wall.Add(writeTimeout))
	if _, err := fmt.Fprintf(w, "retry: 2000\ndata: %s\n", &text); err != nil {
		return err
	}
	return connection.Flush()
}
