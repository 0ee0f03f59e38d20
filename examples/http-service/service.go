package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/dynalock/dynalock/election"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// stopTimeout bounds each part of a shutdown: together less than the 30 s after
// which ECS and Kubernetes kill.
const stopTimeout = 8 * time.Second

// serve answers requests and, on the instance that leads, does the background
// job, until ctx ends. It returns when both have stopped and the leadership was
// given up.
//
// The order of the shutdown matters: the job stops, then it resigns, and only
// then the session ends. Meanwhile the server goes on to answer what it was
// asked; it is told to stop at the same time as the job, since neither waits
// for the other.
func serve(ctx context.Context, listener net.Listener, store kv.Store, s settings) (err error) {
	client, err := lease.New(store, lease.WithTTL(s.ttl), lease.WithOwner(s.instance))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, within(stopTimeout, client.Close)) }()
	e, err := election.New(client, "http-service", election.WithValue([]byte(listener.Addr().String())))
	if err != nil {
		return err
	}
	server := &http.Server{Handler: routes(e, store), ReadHeaderTimeout: 5 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	led := make(chan error, 1)
	go func() {
		led <- e.Run(ctx, func(ctx context.Context, t *election.Term) error { return job(ctx, t, store, s.every) })
	}()
	select {
	case <-ctx.Done():
	case err = <-failed:
		cancel(err)
	}
	err = errors.Join(err, within(stopTimeout, server.Shutdown))
	if leading := <-led; !errors.Is(leading, context.Canceled) { // which it returns when it was stopped as a candidate
		err = errors.Join(err, leading)
	}
	return err
}

// within calls stop with a context that ends after d.
func within(d time.Duration, stop func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return stop(ctx)
}

// routes are what the service answers: every instance the same, whether it leads or not.
func routes(e *election.Election, store kv.Store) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /healthz", e.Health()) // the liveness probe; with ?leader, 200 on the leader only
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		leader, err := e.Leader(r.Context())
		if errors.Is(err, election.ErrNoLeader) {
			http.Error(w, "nobody leads", http.StatusServiceUnavailable)
			return
		}
		state, found := readState(r.Context(), store)
		if err := errors.Join(err, found); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		// the client is gone if it fails
		_, _ = fmt.Fprintf(w, "leader %s at %s\nrounds %d\n", leader.Member.Owner, leader.Value, state.Rounds)
	})
	return mux
}
