package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	_ "modernc.org/sqlite" // the database driver "sqlite"

	"github.com/dynalock/dynalock/internal/dynamolocal"
	"github.com/dynalock/dynalock/internal/postgreslocal"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/dynamokv"
	"github.com/dynalock/dynalock/kv/sqlkv"
	"github.com/dynalock/dynalock/lease"
)

// rig is what the measurements share: a DynamoDB Local, a PostgreSQL where it is
// installed, and a folder.
type rig struct {
	quick    bool
	endpoint string
	postgres *postgreslocal.Server // nil: not installed
	folder   string
	stop     func()
}

func newRig(ctx context.Context, quick bool) (*rig, error) {
	folder, err := os.MkdirTemp("", "dynalock-bench-")
	if err != nil {
		return nil, err
	}
	endpoint, stop, err := dynamolocal.Start(ctx)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(folder))
	}
	r := &rig{quick: quick, endpoint: endpoint, folder: folder}
	r.stop = func() {
		stop()
		if r.postgres != nil {
			_ = r.postgres.Stop()
		}
		_ = os.RemoveAll(folder)
	}
	r.postgres, err = postgreslocal.New(ctx)
	if err != nil && !errors.Is(err, postgreslocal.ErrNotInstalled) {
		r.stop()
		return nil, err
	}
	return r, nil
}

// pick returns full, or little if the run is a quick one.
func pick[T any](r *rig, full, little T) T {
	if r.quick {
		return little
	}
	return full
}

// wire is the transport under a DynamoDB client. It counts requests, and
// delays, cuts and loses as it is told.
type wire struct {
	base *http.Transport
	// requests counts all, puts the PutItems among them.
	requests, puts atomic.Int64
	// delay is added to every write; loseNext loses the answer of the next
	// write; cut makes requests hang until their context ends.
	delay    atomic.Int64 // of nanoseconds
	loseNext atomic.Bool
	cut      atomic.Bool
}

var errLost = errors.New("connection reset by peer")

// RoundTrip implements http.RoundTripper.
func (w *wire) RoundTrip(request *http.Request) (*http.Response, error) {
	if w.cut.Load() {
		<-request.Context().Done()
		return nil, request.Context().Err()
	}
	w.requests.Add(1)
	if !strings.HasSuffix(request.Header.Get("X-Amz-Target"), ".PutItem") {
		return w.base.RoundTrip(request)
	}
	w.puts.Add(1)
	time.Sleep(time.Duration(w.delay.Load()))
	response, err := w.base.RoundTrip(request)
	if err == nil && w.loseNext.CompareAndSwap(true, false) {
		_ = response.Body.Close()
		return nil, errLost
	}
	return response, err
}

// table makes a table.
func (r *rig) table(ctx context.Context) (string, error) {
	name := "bench-" + rand.Text()
	return name, dynamokv.EnsureTable(ctx, r.db(&wire{base: new(http.Transport)}), name)
}

// db is a client of DynamoDB whose requests go over w.
func (r *rig) db(w *wire) *dynamodb.Client {
	w.base.MaxIdleConnsPerHost = 256
	return dynamodb.New(dynamodb.Options{
		BaseEndpoint: aws.String(r.endpoint), Region: dynamolocal.Region, HTTPClient: &http.Client{Transport: w},
		Credentials: aws.NewCredentialsCache(aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: dynamolocal.AccessKey, SecretAccessKey: dynamolocal.SecretKey}, nil
		})),
	})
}

// client makes a lease client with a way of its own to the table: like a process of its own.
func (r *rig) client(table string, options ...lease.Option) (*lease.Client, *wire, error) {
	w := &wire{base: new(http.Transport)}
	store, err := dynamokv.New(r.db(w), table)
	if err != nil {
		return nil, nil, err
	}
	c, err := lease.New(store, options...)
	return c, w, err
}

// sqlite makes a store in a file.
func (r *rig) sqlite(ctx context.Context) (kv.Store, func() error, error) {
	db, err := sql.Open("sqlite", filepath.Join(r.folder, rand.Text()+".db"))
	if err != nil {
		return nil, nil, err
	}
	store, err := sqlkv.Open(ctx, db)
	if err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	return store, func() error { return errors.Join(store.Close(), db.Close()) }, nil
}

// closeNow ends a client that holds nothing.
func closeNow(c *lease.Client) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return c.Close(ctx)
}

// quantile returns the value below which the share q of values lies.
func quantile[T int | int64 | float64 | time.Duration](values []T, q float64) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}
