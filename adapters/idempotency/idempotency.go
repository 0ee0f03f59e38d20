package idempotency

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

// Names of headers.
const (
	// KeyHeader is the request's, with its key.
	KeyHeader = "Idempotency-Key"
	// ReplayedHeader is "true" in an answer that was kept.
	ReplayedHeader = "Idempotency-Replayed"
)

const (
	// keepTimeout bounds the writing of an answer.
	keepTimeout = 10 * time.Second
	// tries is how often a write is sent whose outcome is unknown each time.
	tries = 3
)

// New returns middleware for what changes something: requests other than GET,
// HEAD, OPTIONS and TRACE that have a key. once says what became of each request,
// and store keeps the answers, under "answer/". All processes give the same job
// and store.
//
// scope says whose request it is: keys of different scopes are different. Without
// it a client that guesses another's key would see that client's answers. It gets
// the request with its body unread.
//
// The handler's answer is sent when it is kept. Neither http.Flusher nor
// http.Hijacker works. A handler that panics has its slot recorded as failed, and
// the panic goes on. If the answer cannot be kept, it is sent all the same, and
// the slot has failed.
//
// A replayed answer costs one read. A first one costs a read, what lock.Once.Do
// costs, and a write. Errors match lease.ErrInvalid. New does no I/O.
func New(
	once *lock.Once, store kv.Store, scope func(*http.Request) string, options ...Option,
) (func(http.Handler) http.Handler, error) {
	if once == nil || store == nil || scope == nil {
		return nil, fmt.Errorf("idempotency: New: want a lock.Once, a store and a scope, not nil: %w", lease.ErrInvalid)
	}
	m := &middleware{once: once, store: store, scope: scope}
	m.settings = settings{maxBody: DefaultMaxBody, retention: lock.DefaultRetention, log: slog.New(slog.DiscardHandler)}
	for _, option := range options {
		if option == nil {
			return nil, fmt.Errorf("idempotency: New: a nil option: %w", lease.ErrInvalid)
		}
		if err := option(&m.settings); err != nil {
			return nil, err
		}
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { m.serve(w, r, next) })
	}, nil
}

// Slot returns the slot of the request that a scope has given a key, for
// lock.Once.Outcome and Forget. To repeat a request by hand, delete its answer,
// "answer/" and lock.Once.Key of the slot, before Forget.
func Slot(scope, key string) string {
	h := sha256.New()
	add(h, scope, key)
	return hex.EncodeToString(h.Sum(nil))
}

type middleware struct {
	once  *lock.Once
	store kv.Store
	scope func(*http.Request) string
	settings
}

func (m *middleware) serve(w http.ResponseWriter, r *http.Request, next http.Handler) {
	key := r.Header.Get(KeyHeader)
	switch {
	case harmless(r.Method) || key == "" && !m.required:
		next.ServeHTTP(w, r)
		return
	case key == "" || len(key) > MaxKey:
		refuse(w, http.StatusBadRequest, fmt.Sprintf("want a header %s of 1 to %d bytes", KeyHeader, MaxKey))
		return
	}
	slot := Slot(m.scope(r), key)
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, m.maxBody))
	if err != nil {
		refuseBody(w, err)
		return
	}
	c := &call{middleware: m, slot: slot, request: fingerprint(r, body)}
	kept, err := c.load(r.Context())
	switch {
	case err != nil:
		c.refuse(w, err)
	case kept != nil:
		c.replay(w, kept)
	default:
		c.do(w, r, body, next)
	}
}

func harmless(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return false
}

// call is one request with a key.
type call struct {
	*middleware
	slot, request string
}

// do lets the handler answer, unless another did or does.
func (c *call) do(w http.ResponseWriter, r *http.Request, body []byte, next http.Handler) {
	var given *answer
	_, err := c.once.Do(r.Context(), c.slot, func(ctx context.Context, l *lease.Lease) (err error) {
		ctx, stop := working(ctx, l)
		defer stop()
		r := r.Clone(ctx)
		r.Body = io.NopCloser(bytes.NewReader(body))
		rec := &recorder{header: http.Header{}}
		next.ServeHTTP(rec, r)
		given = rec.answer(c.request)
		return c.keep(ctx, given)
	})
	switch {
	case given != nil:
		if err != nil {
			c.log.Error("idempotency: answered, and not recorded", "slot", c.slot, "error", err)
		}
		given.send(w)
	case err != nil:
		c.refuse(w, err)
	default: // another was faster
		c.again(w, r)
	}
}

// working returns the handler's context: it ends with the lease, and not with the
// request.
func working(ctx context.Context, l *lease.Lease) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	detach := context.AfterFunc(l.Context(), func() { cancel(context.Cause(l.Context())) })
	return ctx, func() {
		detach()
		cancel(nil)
	}
}

// again answers a request that another has done while this one looked.
func (c *call) again(w http.ResponseWriter, r *http.Request) {
	kept, err := c.load(r.Context())
	switch {
	case err != nil:
		c.refuse(w, err)
	case kept == nil:
		refuse(w, http.StatusGone, "done before; the answer is not kept any more")
	default:
		c.replay(w, kept)
	}
}

func (c *call) replay(w http.ResponseWriter, kept *answer) {
	switch {
	case kept.Request != c.request:
		refuse(w, http.StatusUnprocessableEntity, KeyHeader+" was used for another request")
	case kept.TooLong:
		text := fmt.Sprintf("done before, with status %d; the answer was too long to be kept", kept.Status)
		refuse(w, http.StatusGone, text)
	default:
		w.Header().Set(ReplayedHeader, "true")
		kept.send(w)
	}
}

// pairKey is the key of the answer.
func (c *call) pairKey() string { return "answer/" + c.once.Key(c.slot) }

// load returns the answer that is kept, nil if there is none.
func (c *call) load(ctx context.Context) (*answer, error) {
	pair, err := c.store.Get(ctx, c.pairKey())
	if errors.Is(err, kv.ErrKeyNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	a := &answer{}
	if err := pair.Decode(a); err != nil {
		return nil, fmt.Errorf("idempotency: the answer at %q: %w", pair.Key, err)
	}
	return a, nil
}

// keep writes the answer, before it is sent. One that is there already is left:
// somebody may have seen it.
func (c *call) keep(ctx context.Context, given *answer) (err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keepTimeout)
	defer cancel()
	for range tries {
		_, err = c.store.AtomicPut(ctx, c.pairKey(), kv.WithJSON(given.kept()), kv.WithTTL(c.retention))
		if errors.Is(err, kv.ErrKeyExists) {
			return nil
		}
		if !errors.Is(err, kv.ErrUncertain) || ctx.Err() != nil {
			break
		}
	}
	return err
}

// refuse answers for a handler that was not called.
func (c *call) refuse(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, lease.ErrHeld):
		w.Header().Set("Retry-After", "1")
		refuse(w, http.StatusConflict, "the request is being worked on")
	case errors.Is(err, lock.ErrFailed):
		refuse(w, http.StatusInternalServerError, "the request failed before")
	case errors.Is(err, lock.ErrAbandoned):
		refuse(w, http.StatusInternalServerError, "the request was begun before, and how far it got is unknown")
	default:
		c.log.Error("idempotency: the handler was not called", "slot", c.slot, "error", err)
		w.Header().Set("Retry-After", "1")
		refuse(w, http.StatusServiceUnavailable, "try again")
	}
}

func refuseBody(w http.ResponseWriter, err error) {
	var tooLong *http.MaxBytesError
	if errors.As(err, &tooLong) {
		refuse(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("want at most %d bytes", tooLong.Limit))
		return
	}
	refuse(w, http.StatusBadRequest, "the body could not be read")
}

func refuse(w http.ResponseWriter, status int, text string) { http.Error(w, text, status) }
