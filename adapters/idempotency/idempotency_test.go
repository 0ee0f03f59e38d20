package idempotency_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/adapters/idempotency"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

func newClient(t *testing.T, store kv.Store) *lease.Client {
	t.Helper()
	c, err := lease.New(store)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = c.Close(ctx)
	})
	return c
}

func scope(r *http.Request) string { return r.Header.Get("User") }

// payments counts what it is asked, and answers with the number.
type payments struct {
	mu    sync.Mutex
	calls int
}

func (p *payments) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(err)
	}
	time.Sleep(time.Second)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls++
	w.Header().Set("Location", fmt.Sprintf("/payments/%d", p.calls))
	w.WriteHeader(http.StatusCreated)
	w.Header().Set("Late", "is not sent")
	_, _ = fmt.Fprintf(w, "%d: %s", p.calls, body)
}

// serve returns a process that serves next.
func serve(
	t *testing.T, store kv.Store, next http.Handler, once []lock.OnceOption, options ...idempotency.Option,
) http.Handler {
	t.Helper()
	wrap, err := idempotency.New(lock.NewOnce(newClient(t, store), "payments", once...), store, scope, options...)
	require.NoError(t, err)
	return wrap(next)
}

// ask sends a request, of alice unless the key names another: "bob:1".
func ask(ctx context.Context, h http.Handler, key, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/payments", strings.NewReader(body))
	user, key, named := strings.Cut(key, ":")
	if !named {
		user, key = "alice", user
	}
	r.Header.Set("User", user)
	if key != "" {
		r.Header.Set(idempotency.KeyHeader, key)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestARepeatedRequestGetsTheSameAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, p := memkv.New(), &payments{}
		a, b := serve(t, store, p, nil), serve(t, store, p, nil)
		first := ask(t.Context(), a, "k", "10 EUR")
		require.Equal(t, http.StatusCreated, first.Code)
		require.Equal(t, "1: 10 EUR", first.Body.String())
		require.Empty(t, first.Result().Header.Get("Late"))
		for _, h := range []http.Handler{a, b} {
			again := ask(t.Context(), h, "k", "10 EUR")
			require.Equal(t, first.Code, again.Code)
			require.Equal(t, first.Body.String(), again.Body.String())
			require.Equal(t, "/payments/1", again.Header().Get("Location"))
			require.Equal(t, "true", again.Header().Get(idempotency.ReplayedHeader))
		}
		require.Empty(t, first.Header().Get(idempotency.ReplayedHeader))
		require.Equal(t, http.StatusUnprocessableEntity, ask(t.Context(), b, "k", "20 EUR").Code)
		require.Equal(t, "2: 20 EUR", ask(t.Context(), b, "k2", "20 EUR").Body.String())
		require.Equal(t, "3: 10 EUR", ask(t.Context(), b, "bob:k", "10 EUR").Body.String(), "another's key")
	})
}

func TestFiftyAtOnceAreOne(t *testing.T) {
	t.Parallel()
	for name, wait := range map[string][]lock.OnceOption{"refused": nil, "waiting": {lock.Wait()}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				store, p := memkv.New(), &payments{}
				var mu sync.Mutex
				codes := map[int]int{}
				var clients sync.WaitGroup
				for range 5 {
					h := serve(t, store, p, wait)
					for range 10 {
						clients.Go(func() {
							w := ask(t.Context(), h, "k", "10 EUR")
							mu.Lock()
							defer mu.Unlock()
							codes[w.Code]++
							switch w.Code {
							case http.StatusCreated:
								if w.Body.String() != "1: 10 EUR" {
									t.Error(w.Body.String())
								}
							default:
								if w.Header().Get("Retry-After") == "" {
									t.Error("no Retry-After", w.Code)
								}
							}
						})
					}
				}
				clients.Wait()
				require.Equal(t, 1, p.calls)
				if wait != nil {
					require.Equal(t, map[int]int{http.StatusCreated: 50}, codes)
				} else {
					require.Equal(t, map[int]int{http.StatusCreated: 1, http.StatusConflict: 49}, codes)
				}
			})
		})
	}
}

func TestWorkGoesOnWhenTheClientHangsUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var canceled error
		h := serve(t, memkv.New(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Second)
			canceled = r.Context().Err()
			_, _ = io.WriteString(w, "done")
		}), nil)
		ctx, hangUp := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer hangUp()
		ask(ctx, h, "k", "")
		require.NoError(t, canceled)
		require.Equal(t, "done", ask(t.Context(), h, "k", "").Body.String())
	})
}

func TestTheHandlersContextEndsWithTheLease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		client := newClient(t, store)
		var cause error
		wrap, err := idempotency.New(lock.NewOnce(client, "payments"), store, scope)
		require.NoError(t, err)
		h := wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			go func() { _ = client.Close(context.Background()) }()
			<-r.Context().Done()
			cause = context.Cause(r.Context())
		}))
		require.Equal(t, http.StatusOK, ask(t.Context(), h, "k", "").Code)
		require.ErrorIs(t, cause, lease.ErrLost)
	})
}

func TestAPanicIsNotRepeatedUnlessAskedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, calls := memkv.New(), 0
		next := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			if calls++; calls == 1 {
				panic("oh")
			}
		})
		h := serve(t, store, next, nil)
		require.PanicsWithValue(t, "oh", func() { ask(t.Context(), h, "k", "") })
		require.Equal(t, http.StatusInternalServerError, ask(t.Context(), h, "k", "").Code)
		require.Equal(t, 1, calls)
		h = serve(t, store, next, []lock.OnceOption{lock.RetryFailed()})
		require.Equal(t, http.StatusOK, ask(t.Context(), h, "k", "").Code)
		require.Equal(t, 2, calls)
	})
}

// cut is a store that can be cut off.
type cut struct {
	kv.Store
	mu  sync.Mutex
	off bool
}

func newCut(store kv.Store) *cut {
	c := &cut{}
	c.Store = kv.Instrument(store, func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
		c.mu.Lock()
		off := c.off
		c.mu.Unlock()
		if off {
			return &kv.UncertainError{Key: call.Key, Err: errors.New("cut off")}
		}
		return next(ctx)
	})
	return c
}

func (c *cut) set(off bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off = off
}

func TestARequestOfADeadProcessIsNotRepeatedUnlessAskedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, calls := memkv.New(), 0
		link := newCut(store)
		die := make(chan struct{})
		dead := serve(t, link, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			calls++
			<-die
		}), nil)
		go ask(context.Background(), dead, "k", "")
		synctest.Wait()
		link.set(true)
		next := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { calls++ })
		h, again := serve(t, store, next, nil), serve(t, store, next, []lock.OnceOption{lock.TakeOver()})
		require.Equal(t, http.StatusConflict, ask(t.Context(), h, "k", "").Code)
		time.Sleep(time.Minute)
		for range 2 {
			require.Equal(t, http.StatusInternalServerError, ask(t.Context(), h, "k", "").Code)
		}
		require.Equal(t, http.StatusOK, ask(t.Context(), again, "k", "").Code)
		require.Equal(t, 2, calls)
		close(die)
		synctest.Wait()
	})
}

func TestWithoutTheStoreTheHandlerIsNotCalled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		link, p, said := newCut(memkv.New()), &payments{}, &bytes.Buffer{}
		link.set(true)
		h := serve(t, link, p, nil, idempotency.WithLogger(slog.New(slog.NewTextHandler(said, nil))))
		w := ask(t.Context(), h, "k", "")
		require.Equal(t, http.StatusServiceUnavailable, w.Code)
		require.Equal(t, "1", w.Header().Get("Retry-After"))
		require.NotContains(t, w.Body.String(), "cut off")
		require.Contains(t, said.String(), "cut off")
		require.Zero(t, p.calls)
		link.set(false)
		require.Equal(t, http.StatusCreated, ask(t.Context(), h, "k", "").Code)
	})
}

func TestAnAnswerThatCannotBeKeptIsSentAndNotRepeated(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		link := newCut(store)
		wrap, err := idempotency.New(lock.NewOnce(newClient(t, store), "payments"), link, scope)
		require.NoError(t, err)
		calls := 0
		h := wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			calls++
			link.set(true)
			w.WriteHeader(http.StatusTeapot)
		}))
		require.Equal(t, http.StatusTeapot, ask(t.Context(), h, "k", "").Code)
		link.set(false)
		require.Equal(t, http.StatusInternalServerError, ask(t.Context(), h, "k", "").Code)
		require.Equal(t, 1, calls)
	})
}

func TestALostAnswerOfTheStoreIsAskedForAgain(t *testing.T) {
	t.Parallel()
	for _, applied := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			lost := 0
			hook := func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
				if lost == 2 || call.Op != "AtomicPut" || !strings.HasPrefix(call.Key, "answer/") {
					return next(ctx)
				}
				lost++
				if applied {
					if err := next(ctx); err != nil {
						return err
					}
				}
				return &kv.UncertainError{Key: call.Key, Err: errors.New("lost")}
			}
			p := &payments{}
			store := kv.Instrument(memkv.New(), hook)
			h, once := serve(t, store, p, nil), lock.NewOnce(newClient(t, store), "payments")
			for range 2 {
				require.Equal(t, http.StatusCreated, ask(t.Context(), h, "k", "").Code)
			}
			require.Equal(t, 1, p.calls)
			outcome, err := once.Outcome(t.Context(), idempotency.Slot("alice", "k"))
			require.NoError(t, err)
			require.Equal(t, lock.StateDone, outcome.State)
		})
	}
}

func TestAnswersAreKeptForAWhileAndUpToASize(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		next := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			calls++
			n := 0
			_, _ = fmt.Fscan(r.Body, &n)
			_, _ = w.Write(make([]byte, n))
		})
		h := serve(t, memkv.New(), next, nil, idempotency.WithRetention(time.Hour))
		for _, n := range []int{idempotency.MaxAnswer, idempotency.MaxAnswer + 1} {
			w := ask(t.Context(), h, fmt.Sprint(n), fmt.Sprint(n))
			require.Equal(t, http.StatusOK, w.Code)
			require.Equal(t, n, w.Body.Len())
		}
		kept, long := fmt.Sprint(idempotency.MaxAnswer), fmt.Sprint(idempotency.MaxAnswer+1)
		require.Equal(t, http.StatusOK, ask(t.Context(), h, kept, kept).Code)
		w := ask(t.Context(), h, long, long)
		require.Equal(t, http.StatusGone, w.Code)
		require.Contains(t, w.Body.String(), "status 200")
		time.Sleep(time.Hour)
		require.Equal(t, http.StatusGone, ask(t.Context(), h, kept, kept).Code)
		require.Equal(t, 2, calls)
	})
}

func TestRequestsWithoutAKeyPassUnlessOneIsRequired(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &payments{}
		h := serve(t, memkv.New(), p, nil)
		for range 2 {
			require.Equal(t, http.StatusCreated, ask(t.Context(), h, "", "x").Code)
		}
		require.Equal(t, 2, p.calls)
		h = serve(t, memkv.New(), p, nil, idempotency.WithRequired(), idempotency.WithMaxBody(3))
		require.Equal(t, http.StatusBadRequest, ask(t.Context(), h, "", "x").Code)
		tooLong := strings.Repeat("k", idempotency.MaxKey+1)
		require.Equal(t, http.StatusBadRequest, ask(t.Context(), h, tooLong, "x").Code)
		require.Equal(t, http.StatusRequestEntityTooLarge, ask(t.Context(), h, "k", "four").Code)
		require.Equal(t, http.StatusCreated, ask(t.Context(), h, strings.Repeat("k", idempotency.MaxKey), "two").Code)
		require.Equal(t, 3, p.calls)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/payments", nil))
		require.Equal(t, http.StatusCreated, w.Code, "a GET changes nothing")
	})
}

func TestARequestIsRepeatedByHand(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, p := memkv.New(), &payments{}
		h, once := serve(t, store, p, nil), lock.NewOnce(newClient(t, store), "payments")
		ask(t.Context(), h, "k", "x")
		slot := idempotency.Slot("alice", "k")
		outcome, err := once.Outcome(t.Context(), slot)
		require.NoError(t, err)
		require.Equal(t, lock.StateDone, outcome.State)
		require.NoError(t, store.Delete(t.Context(), "answer/"+once.Key(slot)))
		require.NoError(t, once.Forget(t.Context(), slot))
		ask(t.Context(), h, "k", "x")
		require.Equal(t, 2, p.calls)
	})
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	once, store := lock.NewOnce(newClient(t, memkv.New()), "payments"), memkv.New()
	for want, option := range map[string]idempotency.Option{
		"nil option":              nil,
		"WithMaxBody(0)":          idempotency.WithMaxBody(0),
		"WithMaxBody(1073741825)": idempotency.WithMaxBody(1<<30 + 1),
		"WithRetention(1s)":       idempotency.WithRetention(time.Second),
		"WithRetention(876001h":   idempotency.WithRetention(876001 * time.Hour),
		"WithLogger(nil)":         idempotency.WithLogger(nil),
	} {
		_, err := idempotency.New(once, store, scope, option)
		require.ErrorIs(t, err, lease.ErrInvalid)
		require.ErrorContains(t, err, want)
	}
	for _, err := range []error{
		second(idempotency.New(nil, store, scope)),
		second(idempotency.New(once, nil, scope)),
		second(idempotency.New(once, store, nil)),
	} {
		require.ErrorIs(t, err, lease.ErrInvalid)
	}
}

func second[T any](_ T, err error) error { return err }
