// Http-service is a service of several instances that all answer requests, and
// of which one at a time does a background job.
//
//	go run ./examples/http-service -store sqlite:/tmp/demo.db          in several terminals; kill -9 the one that leads
//	go run ./examples/http-service -store dynamodb:TABLE -create-table
//
//	curl http://127.0.0.1:PORT/                  who leads, and how far the job is
//	curl http://127.0.0.1:PORT/healthz           200: this instance is well; for the liveness probe
//	curl http://127.0.0.1:PORT/healthz?leader    200 on the leader, 503 on the others
//
// ^C or SIGTERM stops it: the job ends, the leadership is given up, and another
// instance leads within a poll. The exit status is 0 then, 1 if something
// failed and 2 if it could not begin. Start reading at service.go.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/dynalock/dynalock/examples/internal/stores"
	"github.com/dynalock/dynalock/lease"
)

// settings are the flags.
type settings struct {
	store       string
	createTable bool
	listen      string
	instance    string
	ttl, every  time.Duration
}

func main() {
	var s settings
	flag.StringVar(&s.store, "store", "memory", "memory, sqlite:PATH, postgres://USER@HOST/DATABASE or dynamodb:TABLE")
	flag.BoolVar(&s.createTable, "create-table", false, "make the table of DynamoDB or PostgreSQL if there is none")
	flag.StringVar(&s.listen, "listen", "127.0.0.1:0", "`address` to listen on")
	flag.DurationVar(&s.ttl, "ttl", lease.DefaultTTL, "time after which a dead leader is succeeded, 3s or more")
	flag.DurationVar(&s.every, "every", time.Second, "how often the leader's job has a round")
	flag.Parse()
	host, _ := os.Hostname()
	s.instance = fmt.Sprintf("%s-%d", host, os.Getpid())
	status, err := run(s)
	if err != nil {
		fmt.Fprintln(os.Stderr, "http-service:", err)
	}
	os.Exit(status)
}

// run returns the exit status.
func run(s settings) (status int, err error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if s.every <= 0 {
		return 2, fmt.Errorf("-every %v: give more than 0", s.every)
	}
	store, closeStore, err := stores.Open(ctx, s.store, s.createTable)
	if err != nil {
		return 2, err
	}
	defer func() { err = errors.Join(err, closeStore()) }()
	listener, err := net.Listen("tcp", s.listen)
	if err != nil {
		return 2, err
	}
	fmt.Printf("%s listens on http://%s\n", s.instance, listener.Addr())
	if err := serve(ctx, listener, store, s); err != nil {
		return 1, err
	}
	return 0, nil
}
