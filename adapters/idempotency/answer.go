package idempotency

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"net/http"
)

// answer is what a handler said, as it is kept.
type answer struct {
	Status int         `json:"status"`
	Header http.Header `json:"header,omitempty"`
	Body   []byte      `json:"body,omitempty"`
	// Request is the fingerprint of the request.
	Request string `json:"request"`
	// TooLong tells that header and body were left out.
	TooLong bool `json:"too_long,omitempty"`
}

// kept returns the answer as it is to be kept.
func (a *answer) kept() *answer {
	size := len(a.Body)
	for name, values := range a.Header {
		for _, value := range values {
			size += len(name) + len(value)
		}
	}
	if size <= MaxAnswer {
		return a
	}
	return &answer{Status: a.Status, Request: a.Request, TooLong: true}
}

func (a *answer) send(w http.ResponseWriter) {
	for name, values := range a.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(a.Status)
	_, _ = w.Write(a.Body) // a client that has hung up asks again
}

// recorder is the http.ResponseWriter of the handler. It sends nothing.
type recorder struct {
	header http.Header // as it is when the handler returns, until WriteHeader
	sent   http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header { return r.header }

func (r *recorder) WriteHeader(status int) {
	if r.status != 0 || status < 200 { // informational answers are not kept
		return
	}
	r.status, r.sent = status, r.header.Clone()
}

func (r *recorder) Write(p []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	return r.body.Write(p)
}

func (r *recorder) answer(request string) *answer {
	r.WriteHeader(http.StatusOK)
	return &answer{Status: r.status, Header: r.sent, Body: r.body.Bytes(), Request: request}
}

// fingerprint tells requests apart that have the same key.
func fingerprint(r *http.Request, body []byte) string {
	h := sha256.New()
	add(h, r.Method, r.Host, r.URL.RequestURI(), string(body))
	return hex.EncodeToString(h.Sum(nil))
}

// add hashes parts so that no two lists of parts are alike.
func add(h hash.Hash, parts ...string) {
	for _, part := range parts {
		_, _ = fmt.Fprintf(h, "%d:%s", len(part), part) // a hash never fails
	}
}
