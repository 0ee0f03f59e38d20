package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/dynalock/dynalock/kv/dynamokv"
	"github.com/dynalock/dynalock/lease"
)

// connections counts those that the SDK's HTTP client opens.
func connections(ctx context.Context, r *rig) (section, error) {
	s := section{
		title: "Connections",
		method: "A hundred goroutines of a process take and release keys of their own, twenty times each, on DynamoDB Local, over the HTTP client of\n" +
			"the AWS SDK. It keeps ten idle connections by default. What is beyond is closed after its request, and opened anew, with TLS on AWS, for\n" +
			"another.",
		table: [][]string{{"Idle connections kept", "Requests", "Connections opened"}},
	}
	table, err := r.table(ctx)
	if err != nil {
		return s, err
	}
	for _, kept := range []int{awshttp.DefaultHTTPTransportMaxIdleConnsPerHost, 100} {
		requests, opened, err := r.countConnections(ctx, table, kept)
		if err != nil {
			return s, err
		}
		s.table = append(s.table, []string{strconv.Itoa(kept), strconv.FormatInt(requests, 10),
			strconv.FormatInt(opened, 10)})
	}
	return s, nil
}

// countConnections has a hundred goroutines lock, over a client that keeps so many
// idle connections.
func (r *rig) countConnections(ctx context.Context, table string, kept int) (requests, opened int64, err error) {
	var dials, sent atomic.Int64
	client := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		dial := t.DialContext
		t.MaxIdleConnsPerHost = kept
		t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			dials.Add(1)
			return dial(ctx, network, address)
		}
	})
	options := r.db(&wire{base: new(http.Transport)}).Options()
	options.HTTPClient = counted{client, &sent}
	store, err := dynamokv.New(dynamodb.New(options), table)
	if err != nil {
		return 0, 0, err
	}
	c, err := lease.New(store)
	if err != nil {
		return 0, 0, err
	}
	var group sync.WaitGroup
	errs := make([]error, 100)
	for i := range errs {
		group.Go(func() {
			for range pick(r, 20, 1) {
				l, err := c.Acquire(ctx, fmt.Sprint(kept, "/", i))
				if err == nil {
					err = l.Release(ctx)
				}
				errs[i] = errors.Join(errs[i], err)
			}
		})
	}
	group.Wait()
	return sent.Load(), dials.Load(), errors.Join(append(errs, closeNow(c))...)
}

// counted counts the requests of a client.
type counted struct {
	dynamodb.HTTPClient
	sent *atomic.Int64
}

// Do implements dynamodb.HTTPClient.
func (c counted) Do(r *http.Request) (*http.Response, error) {
	c.sent.Add(1)
	return c.HTTPClient.Do(r)
}
