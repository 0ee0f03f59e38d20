package dynamokv_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
)

// wireFault is what becomes of one attempt. What the driver can know of it is
// that it may have been applied, unless it was throttled.
type wireFault struct {
	name    string
	inject  func(late *landings, r *http.Request, send next) (*http.Response, error)
	applied int // how often a blind write is applied before the answer; a conditional one is at most once
}

var wireFaults = []wireFault{
	{"cut before", func(*landings, *http.Request, next) (*http.Response, error) { return nil, errCut }, 0},
	{"cut after", func(_ *landings, r *http.Request, send next) (*http.Response, error) { return cutAnswer(r, send) }, 1},
	{"EOF", func(_ *landings, r *http.Request, send next) (*http.Response, error) {
		_, _ = cutAnswer(r, send)
		return nil, io.EOF
	}, 1},
	{"truncated", func(_ *landings, r *http.Request, send next) (*http.Response, error) { return truncate(r, send) }, 1},
	{"doubled", func(_ *landings, r *http.Request, send next) (*http.Response, error) {
		again := copyOf(r)
		_, _ = cutAnswer(r, send)
		return cutAnswer(again, send)
	}, 2},
	{"500 before", func(_ *landings, r *http.Request, _ next) (*http.Response, error) { return internal(r), nil }, 0},
	{"500 after", func(_ *landings, r *http.Request, send next) (*http.Response, error) {
		_, _ = cutAnswer(r, send)
		return internal(r), nil
	}, 1},
	{"throttle", func(_ *landings, r *http.Request, _ next) (*http.Response, error) { return throttle(r), nil }, 0},
	{"hang", func(_ *landings, r *http.Request, _ next) (*http.Response, error) { return hang(r) }, 0},
	{"late", func(late *landings, r *http.Request, send next) (*http.Response, error) {
		late.add(copyOf(r), send)
		return nil, errCut
	}, 0},
}

func internal(r *http.Request) *http.Response {
	return awsError(r, 500, "InternalServerError", "internal")
}

// copyOf copies a request, body and all, which outlives the attempt.
func copyOf(r *http.Request) *http.Request {
	again := r.Clone(context.WithoutCancel(r.Context()))
	body, _ := io.ReadAll(r.Body) // it is in memory
	r.Body = io.NopCloser(bytes.NewReader(body))
	again.Body = io.NopCloser(bytes.NewReader(body))
	return again
}

// truncate passes on all of an answer but its end.
func truncate(r *http.Request, send next) (*http.Response, error) {
	response, err := send(r)
	if err != nil {
		return nil, err
	}
	body, _ := io.ReadAll(response.Body)
	_ = response.Body.Close()
	response.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body[:len(body)/2]), cutReader{}))
	return response, nil
}

// cutReader is the end of a connection that broke.
type cutReader struct{}

func (cutReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// landings are requests that are still on their way.
type landings struct {
	mu   sync.Mutex
	send []func()
}

func (l *landings) add(r *http.Request, send next) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.send = append(l.send, func() { _, _ = cutAnswer(r, send) })
}

// land lets all of them land.
func (l *landings) land() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, send := range l.send {
		send()
	}
}

// sequel is what happens after the attempt with the fault.
type sequel struct {
	name string
	// next is what becomes of the n-th later attempt.
	next func(t *testing.T, other kv.Store, n int, r *http.Request, send next) (*http.Response, error)
	// want is the outcome: a sentinel, nil for success.
	want func(op wireOperation, f wireFault) error
	// endless: attempts go on until the budget is spent.
	endless bool
}

// unless says how an operation ends that is not applied for sure, or else that it is uncertain.
func unless(op wireOperation, f wireFault, settled error) error {
	if op.read || f.name == "throttle" {
		return settled
	}
	return kv.ErrUncertain
}

var sequels = []sequel{
	{
		name: "all well",
		next: func(_ *testing.T, _ kv.Store, _ int, r *http.Request, send next) (*http.Response, error) {
			return send(r)
		},
		want: func(wireOperation, wireFault) error { return nil },
	},
	{
		name: "refused",
		next: func(_ *testing.T, _ kv.Store, _ int, r *http.Request, _ next) (*http.Response, error) {
			return awsError(r, 400, "AccessDeniedException", "no"), nil
		},
		want: func(op wireOperation, f wireFault) error { return unless(op, f, kv.ErrRefused) },
	},
	{
		name: "throttled for good", endless: true,
		next: func(_ *testing.T, _ kv.Store, _ int, r *http.Request, _ next) (*http.Response, error) {
			return awsError(r, 400, "ThrottlingException", "slow down"), nil
		},
		want: func(op wireOperation, f wireFault) error { return unless(op, f, kv.ErrThrottled) },
	},
	{
		name: "another writer",
		next: func(t *testing.T, other kv.Store, n int, r *http.Request, send next) (*http.Response, error) {
			if n == 1 {
				require.NoError(t, other.Put(t.Context(), "key", kv.WithString("theirs")))
			}
			return send(r)
		},
		want: func(op wireOperation, f wireFault) error {
			switch {
			case !op.conditional:
				return nil
			case op.name == "create":
				return unless(op, f, kv.ErrKeyExists)
			case f.applied > 0: // theirs took the version behind ours
				return kv.ErrUncertain
			default: // theirs took ours
				return kv.ErrKeyModified
			}
		},
	},
}
