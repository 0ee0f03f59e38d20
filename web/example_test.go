package web_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/web"
)

// The page of a program's own locks, below a path of its server.
func ExampleHandler() {
	client, err := lease.New(memkv.New())
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = client.Close(context.Background()) }()
	// begin docs/web.md
	http.Handle("/dynalock/", http.StripPrefix("/dynalock", web.Handler(client)))
	// end docs/web.md

	answer := httptest.NewRecorder()
	http.DefaultServeMux.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/dynalock/locks", nil))
	fmt.Println(answer.Code, answer.Header().Get("Content-Type"))
	// Output: 200 text/html; charset=utf-8
}

// Only those whom authorize knows may act.
func ExampleWithActions() {
	client, err := lease.New(memkv.New())
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = client.Close(context.Background()) }()
	onCall := map[string]bool{"alice": true}
	// begin docs/web.md
	authorize := func(r *http.Request, a web.Action) (who string, err error) {
		who = r.Header.Get("X-Forwarded-User") // set by the proxy that asks for passwords, and by nobody else
		if !onCall[who] {
			return who, errors.New("only who is on call may do this")
		}
		return who, nil
	}
	page := web.Handler(client, web.WithActions(authorize))
	// end docs/web.md

	answer := httptest.NewRecorder()
	request := httptest.NewRequest(http.MethodPost, "/act?do=break&key=nightly-report&token=7", nil)
	request.Header.Set("X-Forwarded-User", "mallory")
	page.ServeHTTP(answer, request)
	fmt.Println(answer.Code)
	// Output: 403
}
