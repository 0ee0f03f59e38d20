// Webhook is an HTTP endpoint that is told of each event at least once, and must
// act on it once. Every delivery of one event gets the same answer, whichever
// process it reaches. The program delivers one event to itself three times. Start
// it again: the answer is that of the first time.
//
//	go run ./examples/patterns/webhook
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"github.com/dynalock/dynalock/examples/internal/stores"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

func main() { stores.Main(serve) }

// receipt is what the sender of an event is answered.
type receipt struct{ Event, Number string }

// payments answers deliveries.
type payments struct{ once *lock.Once }

// ServeHTTP runs book for the first delivery of an event. The others wait for
// that, and get what it has returned.
func (p payments) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	event := r.Header.Get("Event-Id")
	answer, err := lock.OnceValue(r.Context(), p.once, event, func(ctx context.Context, l *lease.Lease) (receipt, error) {
		return book(ctx, event, l.Token())
	})
	if err != nil { // the sender delivers it again
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	_ = json.NewEncoder(w).Encode(answer)
}

// book would write to a ledger, which refuses smaller tokens.
func book(_ context.Context, event string, token uint64) (receipt, error) {
	fmt.Println("books", event, "with fencing token", token)
	return receipt{event, rand.Text()}, nil
}

func serve(ctx context.Context, store kv.Store) error {
	client, err := lease.New(store) // one client per process
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = client.Close(ctx)
	}()
	server := httptest.NewServer(payments{lock.NewOnce(client, "payments", lock.Wait())})
	defer server.Close()
	var deliveries sync.WaitGroup
	for range 3 {
		deliveries.Go(func() { fmt.Println("answer:", deliver(ctx, server.URL, "evt-1")) })
	}
	deliveries.Wait()
	return nil
}

// deliver is what the sender does.
func deliver(ctx context.Context, url, event string) string {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, nil)
	if err != nil {
		return err.Error()
	}
	request.Header.Set("Event-Id", event)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = response.Body.Close() }()
	body, _ := io.ReadAll(response.Body)
	return strings.TrimSpace(string(body))
}
