package election_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/dynalock/dynalock/election"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
)

func ExampleElection_Health_ready() {
	ctx := context.Background()
	client, err := lease.New(memkv.New())
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	e, err := election.New(client, "jobs")
	if err != nil {
		log.Fatal(err)
	}
	shard, err := client.Acquire(ctx, "shard/7")
	if err != nil {
		log.Fatal(err)
	}
	// begin docs/adapters.md
	mux.Handle("GET /healthz", e.Health()) // with ?leader: 200 on the leader only
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := shard.Err(); err != nil { // a *lease.Lease that this process serves under
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})
	// end docs/adapters.md
	ask := func(path string) {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		fmt.Println(path, w.Code)
	}
	ask("/healthz")
	ask("/healthz?leader")
	ask("/readyz")
	if err := shard.Release(ctx); err != nil {
		log.Fatal(err)
	}
	ask("/readyz")
	if err := client.Close(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// /healthz 200
	// /healthz?leader 503
	// /readyz 200
	// /readyz 503
}
