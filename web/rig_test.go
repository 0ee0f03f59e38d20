package web_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/leasetest"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/web"
)

// site is a page with its own link to the store. Use it inside a synctest bubble.
type site struct {
	t       *testing.T
	link    *leasetest.Link
	client  *lease.Client
	handler http.Handler
	logged  *bytes.Buffer
}

func newSite(t *testing.T, store kv.Store, options ...web.Option) *site {
	t.Helper()
	s := &site{t: t, link: leasetest.NewLink(store), logged: &bytes.Buffer{}}
	var err error
	s.client, err = lease.New(s.link, lease.WithOwner("page"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.client.Close(context.Background())) })
	log := slog.New(slog.NewTextHandler(s.logged, nil))
	s.handler = web.Handler(s.client, append([]web.Option{web.WithLogger(log)}, options...)...)
	return s
}

// get returns the answer to a GET.
func (s *site) get(path string) *httptest.ResponseRecorder {
	s.t.Helper()
	return s.send(httptest.NewRequestWithContext(s.t.Context(), http.MethodGet, path, nil))
}

// post returns the answer to a form that the page's own site sends.
func (s *site) post(path, form string, change ...func(*http.Request)) *httptest.ResponseRecorder {
	s.t.Helper()
	r := httptest.NewRequestWithContext(s.t.Context(), http.MethodPost, path, strings.NewReader(form))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	for _, c := range change {
		c(r)
	}
	return s.send(r)
}

func (s *site) send(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	return w
}

// text is the page at path.
func (s *site) text(path string) string {
	s.t.Helper()
	w := s.get(path)
	require.Equal(s.t, http.StatusOK, w.Code, w.Body)
	return w.Body.String()
}

// requests are those that the page has made since it was asked last.
func (s *site) requests() map[string]int { return maps.Clone(s.link.Take()) }

// patch is a message of a stream.
type patch struct {
	Title string
	Parts map[string]string
	Rows  map[string]string
	Order []string
}

// viewer is somebody who has a page open.
type viewer struct {
	t     *testing.T
	leave context.CancelFunc
	ended chan struct{}

	mu      sync.Mutex
	status  int
	header  http.Header
	patches []patch
}

// look opens a stream. leave ends it.
func (s *site) look(path string) *viewer {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	v := &viewer{t: s.t, leave: cancel, ended: make(chan struct{}), header: http.Header{}}
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, path, nil)
	r.Header.Set("Accept", "text/event-stream")
	go func() {
		defer close(v.ended)
		s.handler.ServeHTTP(v, r)
	}()
	s.t.Cleanup(func() {
		cancel()
		<-v.ended
	})
	return v
}

// gone ends the stream and waits for its end.
func (v *viewer) gone() {
	v.leave()
	<-v.ended
}

func (v *viewer) Header() http.Header    { return v.header }
func (v *viewer) WriteHeader(status int) { v.status = status }
func (v *viewer) Flush()                 {}

func (v *viewer) Write(text []byte) (int, error) {
	_, message, ok := bytes.Cut(text, []byte("data: "))
	if !ok || !bytes.HasSuffix(message, []byte("\n\n")) {
		return 0, io.ErrShortWrite
	}
	var p patch
	if err := json.Unmarshal(message, &p); err != nil {
		return 0, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.patches = append(v.patches, p)
	return len(text), nil
}

// take returns what was sent since it was called last.
func (v *viewer) take() []patch {
	synctest.Wait()
	v.mu.Lock()
	defer v.mu.Unlock()
	patches := v.patches
	v.patches = nil
	return patches
}
