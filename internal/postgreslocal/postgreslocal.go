// Package postgreslocal runs PostgreSQL servers for tests, from the programs
// that are installed on the machine.
//
// A server has its data in a temporary folder and listens on a free port of the
// loopback interface. It trusts every role. As root the programs run as the
// user postgres or nobody, since they refuse root.
package postgreslocal

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dynalock/dynalock/internal/boundprocess"
	"github.com/dynalock/dynalock/internal/notrun"
)

// Superuser is the role that owns everything, and Database the one there is.
const (
	Superuser = "postgres"
	Database  = "postgres"
)

const startTimeout = 2 * time.Minute

// ErrNotInstalled says that this machine has no PostgreSQL.
var ErrNotInstalled = errors.New("postgreslocal: PostgreSQL is not installed")

// Server is a PostgreSQL server. Its methods are not safe for concurrent use, but for DSN.
type Server struct {
	// MaxFile, unless it is 0, is to how many bytes a file of the server's may
	// grow, from its next start on: like a disk that is full for tables, not
	// for the log, whose segments are of a megabyte.
	MaxFile int64

	programs, dir string
	port          int
	settings      []string
	as            account
	process       *os.Process
	exited        <-chan struct{}
}

// Programs returns the folder of the newest server's programs: what Debian has
// installed, or the one of initdb on the PATH.
func Programs() (string, error) {
	folders, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return "", fmt.Errorf("postgreslocal: %w", err)
	}
	version := func(folder string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(folder))) // anything else comes last
		return n
	}
	slices.SortFunc(folders, func(a, b string) int { return version(b) - version(a) })
	if path, err := exec.LookPath("initdb"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			folders = append(folders, filepath.Dir(path))
		}
	}
	for _, folder := range folders {
		if complete(folder) {
			return folder, nil
		}
	}
	return "", ErrNotInstalled
}

// complete reports whether folder has all the programs that a Server runs.
func complete(folder string) bool {
	for _, program := range []string{"initdb", "postgres", "pg_isready"} {
		if _, err := os.Stat(filepath.Join(folder, program)); err != nil {
			return false
		}
	}
	return true
}

// New makes a server's data, in a new folder, and starts it with settings:
// "fsync=off". Stop removes it.
func New(ctx context.Context, settings ...string) (*Server, error) {
	programs, err := Programs()
	if err != nil {
		return nil, err
	}
	s := &Server{programs: programs, settings: settings, as: unprivileged()}
	if s.dir, err = os.MkdirTemp("", "dynalock-postgres-"); err != nil {
		return nil, fmt.Errorf("postgreslocal: %w", err)
	}
	if err := s.initialize(ctx); err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.dir))
	}
	if err := s.Start(ctx); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// initialize runs initdb. Segments of a megabyte let a small disk be full of
// something else than the log.
func (s *Server) initialize(ctx context.Context) error {
	if err := s.as.give(s.dir); err != nil {
		return fmt.Errorf("postgreslocal: %w", err)
	}
	return s.run(ctx, "initdb", "-D", s.data(), "-U", Superuser, "--auth=trust", "--encoding=UTF8", "--locale=C",
		"--no-sync", "--wal-segsize=1")
}

// run runs one of the programs to its end.
func (s *Server) run(ctx context.Context, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(s.programs, program), args...)
	cmd.Dir, cmd.SysProcAttr = s.dir, s.as.attributes()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("postgreslocal: %s: %w: %s", program, err, out)
	}
	return nil
}

// Start starts the server, or starts it again after Kill, on the port that it
// had. It returns once it answers.
func (s *Server) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		if s.port == 0 {
			port, err := freePort()
			if err != nil {
				return err
			}
			s.port = port
		}
		err := s.launch(ctx)
		if err == nil || ctx.Err() != nil {
			return err
		}
		if s.process == nil { // it could not be started at all
			return err
		}
		// Somebody took the port first, or what is left of a killed server still holds its memory.
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func (s *Server) launch(ctx context.Context) error {
	args := []string{"-D", s.data(), "-p", strconv.Itoa(s.port)}
	for _, setting := range append([]string{
		"listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=200", "shared_buffers=32MB",
		"log_min_messages=log",
		// After a crash PostgreSQL syncs its files one by one, which takes
		// minutes where others write to the disk.
		"recovery_init_sync_method=syncfs",
	}, s.settings...) {
		args = append(args, "-c", setting)
	}
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("postgreslocal: %w", err)
	}
	defer func() { _ = log.Close() }() // the server has its own
	cmd := exec.Command(filepath.Join(s.programs, "postgres"), args...)
	if s.MaxFile > 0 { // in a shell's blocks of 512 bytes
		cmd = exec.Command("sh",
			append([]string{"-c", `ulimit -S -f "$0" && exec "$@"`, strconv.FormatInt(s.MaxFile/512, 10), cmd.Path}, args...)...)
	}
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = s.dir, log, log, s.as.attributes()
	if s.exited, err = boundprocess.Start(cmd, syscall.SIGQUIT); err != nil {
		return fmt.Errorf("postgreslocal: %w", err)
	}
	s.process = cmd.Process
	return s.await(ctx)
}

// await returns when the server takes connections.
func (s *Server) await(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if s.run(ctx, "pg_isready", "-q", "-h", "127.0.0.1", "-p", strconv.Itoa(s.port), "-d", Database, "-U",
			Superuser) == nil {
			return nil
		}
		select {
		case <-s.exited:
			return fmt.Errorf("postgreslocal: the server exited at once: %s", s.Log())
		case <-ctx.Done():
			return fmt.Errorf("postgreslocal: the server does not answer: %w; it said: %s", ctx.Err(), s.Log())
		case <-tick.C:
		}
	}
}

// Log returns the end of what the server logged.
func (s *Server) Log() string {
	text, err := os.ReadFile(filepath.Join(s.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-4000):])
}

// Address returns the server's host and port.
func (s *Server) Address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// Process returns the server's first process.
func (s *Server) Process() *os.Process { return s.process }

// DSN returns a connection string for a role, with parameters such as
// "statement_timeout=10s". address is where to connect, a proxy's perhaps; ""
// is the server's own.
func (s *Server) DSN(role, address string, parameters ...string) string {
	if address == "" {
		address = s.Address()
	}
	query := url.Values{"sslmode": {"disable"}}
	for _, parameter := range parameters {
		name, value, _ := strings.Cut(parameter, "=")
		query.Set(name, value)
	}
	u := url.URL{Scheme: "postgres", User: url.User(role), Host: address, Path: Database,
		RawQuery: strings.ReplaceAll(query.Encode(), "+", "%20")}
	return u.String()
}

// Kill kills the server and its processes with SIGKILL, as a crash of the
// machine would but for the disk, which keeps what was written to it. It
// returns when all are gone.
func (s *Server) Kill() error {
	err := s.process.Kill()
	<-s.exited
	// Now none is added. One that lived on would keep the next server from starting.
	for pids := s.processes(); len(pids) > 0; pids = s.processes() {
		for _, pid := range pids {
			kill(pid)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return err
}

// processes returns those that work in the server's folder.
func (s *Server) processes() (pids []int) {
	// where there is no /proc they notice themselves that the first is gone
	folders, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, folder := range folders {
		if target, err := os.Readlink(folder); err != nil || target != s.data() {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(folder))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Stop ends the server, without saving anything, and removes its data.
func (s *Server) Stop() error {
	if s.process != nil {
		_ = s.process.Signal(syscall.SIGQUIT) // an error means that it has exited
		<-s.exited
	}
	return os.RemoveAll(s.dir)
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("postgreslocal: %w", err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		return 0, fmt.Errorf("postgreslocal: %w", err)
	}
	return port, nil
}

// shared is the server of a test process.
var shared struct {
	once   sync.Once
	server *Server
	err    error
}

// ShortVariable is the environment variable that, set to 1, lets tests have a
// server under -short too.
const ShortVariable = "DYNALOCK_TEST_POSTGRES"

// Need leaves t out where it cannot run: under -short, and without PostgreSQL.
func Need(t testing.TB) {
	t.Helper()
	if testing.Short() && os.Getenv(ShortVariable) != "1" {
		t.Skip("needs PostgreSQL: left out by -short")
	}
	if _, err := Programs(); errors.Is(err, ErrNotInstalled) {
		notrun.Skip(t, "the tests on PostgreSQL", "it is not installed (on Debian: apt-get install postgresql)")
	}
}

// Shared returns the server that all tests of a process share: each should use
// a namespace or table of its own, and leave the server alone. The package's
// TestMain calls Stop at its end.
func Shared(t testing.TB) *Server {
	t.Helper()
	Need(t)
	shared.once.Do(func() { shared.server, shared.err = New(context.Background()) })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.server
}

// Own returns a server for t alone, and stops it at t's end.
func Own(t testing.TB, settings ...string) *Server {
	t.Helper()
	Need(t)
	server, err := New(t.Context(), settings...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	return server
}

// Stop stops the server that Shared started, if it did. It is for TestMain.
func Stop() {
	if shared.server != nil {
		if err := shared.server.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
}
