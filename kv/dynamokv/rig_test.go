package dynamokv_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/dynamolocal"
	"github.com/dynalock/dynalock/kv/dynamokv"
)

func TestMain(m *testing.M) { dynamolocal.Main(m) }

// next sends a request on.
type next func(*http.Request) (*http.Response, error)

// wire is the http.RoundTripper under a client: it counts requests and does to
// each what fault says.
type wire struct {
	base http.RoundTripper

	mu    sync.Mutex
	count int
	fault func(n int, r *http.Request, send next) (*http.Response, error) // n counts from 1; nil: none
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	w.count++
	n, fault := w.count, w.fault
	w.mu.Unlock()
	if fault == nil {
		return w.base.RoundTrip(r)
	}
	return fault(n, r, func(r *http.Request) (*http.Response, error) { return w.base.RoundTrip(r) })
}

// inject counts anew, and lets f act from now on.
func (w *wire) inject(f func(n int, r *http.Request, send next) (*http.Response, error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.count, w.fault = 0, f
}

func (w *wire) requests() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.count
}

var errCut = errors.New("connection reset by peer")

// cutAnswer lets the request through and loses the answer.
func cutAnswer(r *http.Request, send next) (*http.Response, error) {
	response, err := send(r)
	if err != nil {
		return nil, err
	}
	_, _ = io.Copy(io.Discard, response.Body)
	_ = response.Body.Close()
	return nil, errCut
}

// hang keeps the request from the server until the client gives it up.
func hang(r *http.Request) (*http.Response, error) {
	if abandon, ok := r.Context().Value(hangs{}).(context.CancelFunc); ok {
		abandon()
	}
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// answer makes an answer of DynamoDB's.
func answer(r *http.Request, status int, body string) *http.Response {
	return &http.Response{
		StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header:        http.Header{"Content-Type": {"application/x-amz-json-1.0"}},
		ContentLength: int64(len(body)), Body: io.NopCloser(bytes.NewBufferString(body)),
	}
}

func awsError(r *http.Request, status int, code, message string) *http.Response {
	return answer(r, status, fmt.Sprintf(`{"__type":"com.amazonaws.dynamodb.v20120810#%s","message":%q}`, code, message))
}

func throttle(r *http.Request) *http.Response {
	return awsError(r, 400, "ProvisionedThroughputExceededException", "slow down")
}

// newClient makes a client whose requests to endpoint go over w.
func newClient(endpoint string, w *wire) *dynamodb.Client {
	return dynamodb.New(dynamodb.Options{
		BaseEndpoint: aws.String(endpoint), Region: dynamolocal.Region, HTTPClient: &http.Client{Transport: w},
		Credentials: aws.NewCredentialsCache(credentials{}),
	})
}

// shared is the table of all tests that do not need one of their own. Each uses
// another partition of it.
var shared struct {
	once sync.Once
	name string
	err  error
}

func sharedTable(t *testing.T) (endpoint, table string) {
	t.Helper()
	endpoint = dynamolocal.Endpoint(t)
	shared.once.Do(func() {
		shared.name = "shared-" + rand.Text() // the emulator may be shared by several processes
		shared.err = dynamokv.EnsureTable(t.Context(), newClient(endpoint, &wire{base: sharedTransport}), shared.name)
	})
	require.NoError(t, shared.err)
	return endpoint, shared.name
}

// rig is a Store in a new partition of a table, and the wire on which its
// requests can be tampered with.
type rig struct {
	*dynamokv.Store
	wire                       *wire
	endpoint, table, partition string
}

// patientClock is the machine's clock, but attempts have a minute for their
// answers: an answer that a slow machine is late with must not cost an attempt
// that the test does not count. One that hangs is given up at once.
type patientClock struct{ clock.Clock }

func (c patientClock) WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, 60*d)
	return context.WithValue(ctx, hangs{}, cancel), cancel
}

// hangs is the key of the function that ends an attempt as its time-out does.
type hangs struct{}

// newRig makes a rig on the emulator, with a patient clock unless options have another.
func newRig(t *testing.T, options ...dynamokv.Option) *rig {
	t.Helper()
	options = append([]dynamokv.Option{dynamokv.WithClock(patientClock{clock.System})}, options...)
	r := &rig{wire: &wire{base: sharedTransport}, partition: rand.Text()}
	r.endpoint, r.table = sharedTable(t)
	return r.open(t, options)
}

// newMemRig makes a rig on a server in memory, which works inside testing/synctest.
func newMemRig(t *testing.T, options ...dynamokv.Option) *rig {
	t.Helper()
	r := &rig{wire: &wire{base: newMem().Transport()}, partition: "dynalock", endpoint: "http://dynamodb.invalid",
		table: "table"}
	return r.open(t, options)
}

func (r *rig) open(t *testing.T, options []dynamokv.Option) *rig {
	t.Helper()
	var err error
	r.Store, err = dynamokv.New(newClient(r.endpoint, r.wire), r.table,
		append(options, dynamokv.WithPartition(r.partition))...)
	require.NoError(t, err)
	dynamokv.SkipLayout(r.Store) // its tests count requests
	return r
}

// another makes another Store on the same pairs, without faults.
func (r *rig) another(t *testing.T, options ...dynamokv.Option) *dynamokv.Store {
	t.Helper()
	if r.wire.base == sharedTransport {
		options = append([]dynamokv.Option{dynamokv.WithClock(patientClock{clock.System})}, options...)
	}
	other := *r
	other.wire = &wire{base: r.wire.base}
	return other.open(t, options).Store
}

// offsetClock is the machine's clock, its wall clock set wrong.
type offsetClock struct {
	clock.Clock
	offset time.Duration
}

func ahead(d time.Duration) dynamokv.Option { return dynamokv.WithClock(offsetClock{clock.System, d}) }

func (c offsetClock) Now() clock.Reading {
	now := c.Clock.Now()
	now.Wall = now.Wall.Add(c.offset)
	return now
}

// offlineStore makes a Store all of whose requests are answered by f. It works
// inside testing/synctest.
func offlineStore(t *testing.T, f func(n int, r *http.Request) (*http.Response, error),
	options ...dynamokv.Option) (*dynamokv.Store, *wire) {
	t.Helper()
	w := &wire{fault: func(n int, r *http.Request, _ next) (*http.Response, error) { return f(n, r) }}
	s, err := dynamokv.New(newClient("http://dynamodb.invalid", w), "table", options...)
	require.NoError(t, err)
	dynamokv.SkipLayout(s)
	return s, w
}

// sharedTransport keeps connections for as many tests as run at once.
var sharedTransport = &http.Transport{MaxIdleConnsPerHost: 100}

// openOn makes a Store on any client.
func openOn(t *testing.T, client dynamokv.Client) *dynamokv.Store {
	t.Helper()
	s, err := dynamokv.New(client, "table")
	require.NoError(t, err)
	dynamokv.SkipLayout(s)
	return s
}
