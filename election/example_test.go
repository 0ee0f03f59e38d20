package election_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"

	"github.com/dynalock/dynalock/election"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
)

// candidate makes a process's part in an election; store is dynamokv or sqlkv in real life.
func candidate(store *memkv.Store) (*election.Election, *lease.Client) {
	client, err := lease.New(store, lease.WithOwner("worker-1"))
	if err != nil {
		panic(err)
	}
	e, err := election.New(client, "scheduler")
	if err != nil {
		panic(err)
	}
	return e, client
}

func ExampleElection_Campaign() {
	ctx := context.Background()
	e, client := candidate(memkv.New())
	defer func() { _ = client.Close(ctx) }()

	term, err := e.Campaign(ctx, []byte("10.0.0.7:8080")) // blocks until this process leads
	if err != nil {
		panic(err)
	}
	leader, err := e.Leader(ctx)
	if err != nil {
		panic(err)
	}
	fmt.Printf("%s leads, ask %s\n", leader.Member.Owner, leader.Value)
	fmt.Println("mine:", leader.Token == term.Token() && e.IsLeader())
	fmt.Println("resigned:", term.Resign(ctx))
	fmt.Println("leads still:", e.IsLeader())
	// Output:
	// worker-1 leads, ask 10.0.0.7:8080
	// mine: true
	// resigned: <nil>
	// leads still: false
}

func ExampleElection_Run() {
	ctx, stop := context.WithCancel(context.Background()) // signal.NotifyContext in real life
	e, client := candidate(memkv.New())

	err := e.Run(ctx, func(ctx context.Context, _ *election.Term) error {
		fmt.Println("leading")
		stop() // SIGTERM
		<-ctx.Done()
		fmt.Println("stopped, and the leader still:", e.IsLeader())
		return nil
	})
	fmt.Println("run:", err)
	fmt.Println("close:", client.Close(context.WithoutCancel(ctx)))
	// Output:
	// leading
	// stopped, and the leader still: true
	// run: <nil>
	// close: <nil>
}

func ExampleElection_Observe() {
	ctx := context.Background()
	store := memkv.New()
	e, client := candidate(store)
	defer func() { _ = client.Close(ctx) }()
	observer, err := election.New(client, "scheduler")
	if err != nil {
		panic(err)
	}

	var term *election.Term
	for leader, err := range observer.Observe(ctx) {
		switch {
		case err != nil:
			fmt.Println("the store fails:", err) // going on is right
		case leader.Vacant() && term != nil:
			fmt.Println("nobody leads any more")
			return
		case leader.Vacant():
			fmt.Println("nobody leads yet")
			if term, err = e.Campaign(ctx, nil); err != nil {
				panic(err)
			}
		default:
			fmt.Println(leader.Member.Owner, "leads")
			if err := term.Resign(ctx); err != nil {
				panic(err)
			}
		}
	}
	// Output:
	// nobody leads yet
	// worker-1 leads
	// nobody leads any more
}

func ExampleElection_Health() {
	ctx := context.Background()
	e, client := candidate(memkv.New())
	defer func() { _ = client.Close(ctx) }()
	server := httptest.NewServer(e.Health()) // mux.Handle("/healthz", e.Health()) in real life
	defer server.Close()
	ask := func(query string) {
		answer, err := http.Get(server.URL + "/healthz" + query)
		if err != nil {
			panic(err)
		}
		defer func() { _ = answer.Body.Close() }()
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			panic(err)
		}
		fmt.Printf("%q: %d %s", query, answer.StatusCode, text)
	}

	ask("")
	ask("?leader")
	term, err := e.Campaign(ctx, nil)
	if err != nil {
		panic(err)
	}
	ask("?leader")
	fmt.Println("resigned:", term.Resign(ctx))
	// Output:
	// "": 200 follower
	// "?leader": 503 follower
	// "?leader": 200 leader
	// resigned: <nil>
}
