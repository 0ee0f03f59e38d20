package idempotency_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/dynalock/dynalock/adapters/idempotency"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

func ExampleNew() {
	store := memkv.New()
	client, err := lease.New(store)
	if err != nil {
		log.Fatal(err)
	}
	paid := 0
	pay := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		paid++
		_, _ = fmt.Fprintf(w, "payment %d", paid)
	})
	userOf := func(*http.Request) string { return "alice" }
	mux := http.NewServeMux()
	err = func() error {
		// begin docs/adapters.md
		once := lock.NewOnce(client, "payments")
		wrap, err := idempotency.New(once, store, userOf) // userOf says whose request it is
		if err != nil {
			return err
		}
		mux.Handle("POST /payments", wrap(pay))
		// end docs/adapters.md
		return nil
	}()
	if err != nil {
		log.Fatal(err)
	}
	for range 2 {
		r := httptest.NewRequest(http.MethodPost, "/payments", nil)
		r.Header.Set(idempotency.KeyHeader, "6c2f")
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		fmt.Println(w.Body)
	}
	if err := client.Close(context.Background()); err != nil {
		log.Fatal(err)
	}
	// Output:
	// payment 1
	// payment 1
}
