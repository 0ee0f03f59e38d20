// Package dynamolocal runs DynamoDB Local, Amazon's own emulator, for tests.
//
// If DYNALOCK_TEST_ENDPOINT names an endpoint, that is used, and nothing is
// started. Else the emulator is fetched once into the user's cache directory
// (57 MB, by npm, its checksum verified) and started with java on a free port.
// It has no setting for the address it listens on: it answers on all interfaces
// for as long as the tests run.
//
// What it never does: throttle, lose an answer, read stale. Tests inject those
// with an http.RoundTripper.
package dynamolocal

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dynalock/dynalock/internal/boundprocess"
	"github.com/dynalock/dynalock/internal/npmpack"
)

// EndpointVariable is the environment variable that names a running emulator,
// such as http://127.0.0.1:8000.
const EndpointVariable = "DYNALOCK_TEST_ENDPOINT"

// What the emulator takes for credentials: any letters and digits. The access
// key and Region pick the database.
const (
	Region    = "us-east-1"
	AccessKey = "dynalocktest"
	SecretKey = "dynalocktestsecret"
)

// archive is the npm package by AWS that carries DynamoDB Local.
var archive = npmpack.Archive{
	Name: "amplify-dynamodb-simulator", Version: "2.9.30",
	SHA256: "3503ffac19f183407909fecdacf4db51ab1fdad1da7b2f177016670b2d80e4b9",
	Folder: "package/emulator/", File: "DynamoDBLocal.jar",
}

const (
	advice = "install it, or start a DynamoDB Local yourself and set " + EndpointVariable + " to its URL"
	// startTimeout is for a busy machine on which many tests start one at once.
	startTimeout = 5 * time.Minute
)

// Start returns the URL of an emulator, and a function that stops it if Start
// started it. The emulator has served some requests then: its first ones take
// seconds on a busy machine, longer than an attempt of a driver. ctx bounds the
// start only, and so do five minutes. The error of a start that fails has what
// java printed.
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
	for {
		port, err := freePort()
		if err != nil {
			return "", nil, err
		}
		endpoint, stop, err = launch(ctx, java, dir, port)
		if !errors.Is(err, errPortTaken) {
			return endpoint, stop, err
		}
	}
}

// fetch returns the folder of the emulator.
func fetch(ctx context.Context) (string, error) {
	dir, err := archive.Fetch(ctx)
	if err != nil {
		return "", fmt.Errorf("dynamolocal: %w: %s", err, advice)
	}
	return dir, nil
}

// launch starts the emulator on port and waits until it has served requests.
func launch(ctx context.Context, java, dir string, port int) (string, func(), error) {
	cmd := exec.Command(java,
		"-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", // half of the processor's time until it is up
		"-Djava.library.path="+filepath.Join(dir, "DynamoDBLocal_lib"),
		"-jar", "DynamoDBLocal.jar", "-inMemory", "-disableTelemetry", "-port", strconv.Itoa(port))
	e := &emulator{endpoint: fmt.Sprintf("http://127.0.0.1:%d", port), name: rand.Text() + ".invalid"}
	cmd.Args = append(cmd.Args, "-cors", e.name)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &e.printed, &e.printed
	var err error
	if e.exited, err = boundprocess.Start(cmd, syscall.SIGKILL); err != nil {
		return "", nil, fmt.Errorf("dynamolocal: %w", err)
	}
	stop := func() {
		_ = cmd.Process.Kill() // an error means that it has exited
		<-e.exited
	}
	if err = e.await(ctx); err == nil {
		err = e.warmUp(ctx)
	}
	if err != nil {
		stop()
		return "", nil, fmt.Errorf("%w; it printed:\n%s", err, e.printed.String())
	}
	return e.endpoint, stop, nil
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

// shared is the emulator of a test process. Main stops it.
var shared struct {
	once     sync.Once
	endpoint string
	stop     func()
	err      error
}

// Endpoint returns the URL of the emulator that all tests of a process share:
// each should use a table of its own. The package's TestMain must be Main.
// Under -short the test is skipped; without java or npm it fails.
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
	Stop()
	os.Exit(code)
}

// Stop is for a TestMain that has more to stop than the emulator: it stops the
// one that Endpoint started, if it did.
func Stop() {
	if shared.stop != nil {
		shared.stop()
	}
}
