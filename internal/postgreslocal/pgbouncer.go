package postgreslocal

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/dynalock/dynalock/internal/boundprocess"
	"github.com/dynalock/dynalock/internal/notrun"
)

// Pgbouncer starts pgbouncer in front of the server, in transaction mode, with
// three connections as role, whoever its clients say they are. It stops at t's
// end. It returns its address.
func (s *Server) Pgbouncer(t testing.TB, role string) string {
	t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		program = "/usr/sbin/pgbouncer" // which is not on every PATH
	}
	if _, err := os.Stat(program); err != nil {
		notrun.Skip(t, "the test behind pgbouncer", "it is not installed (on Debian: apt-get install pgbouncer)")
	}
	address, stop, err := s.pgbouncer(t.Context(), program, role)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return address
}

func (s *Server) pgbouncer(ctx context.Context, program, role string) (address string, stop func() error, err error) {
	dir, err := os.MkdirTemp("", "dynalock-pgbouncer-")
	if err != nil {
		return "", nil, fmt.Errorf("postgreslocal: %w", err)
	}
	port, err := freePort()
	if err != nil {
		return "", nil, err
	}
	file := filepath.Join(dir, "pgbouncer.ini")
	config := fmt.Sprintf(`[databases]
%s = host=127.0.0.1 port=%d user=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 3
`, Database, s.port, role, port)
	if err := errors.Join(os.WriteFile(file, []byte(config), 0o644), s.as.give(dir), s.as.give(file)); err != nil {
		return "", nil, fmt.Errorf("postgreslocal: %w", err)
	}
	cmd := exec.Command(program, "-q", file)
	cmd.Dir, cmd.SysProcAttr = dir, s.as.attributes()
	exited, err := boundprocess.Start(cmd, syscall.SIGKILL)
	if err != nil {
		return "", nil, fmt.Errorf("postgreslocal: %w", err)
	}
	stop = func() error {
		_ = cmd.Process.Kill() // an error means that it has exited
		<-exited
		return os.RemoveAll(dir)
	}
	address = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	for {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			return address, stop, conn.Close()
		}
		select {
		case <-exited:
			return "", nil, errors.Join(errors.New("postgreslocal: pgbouncer exited at once"), stop())
		case <-ctx.Done():
			return "", nil, errors.Join(ctx.Err(), stop())
		case <-time.After(20 * time.Millisecond):
		}
	}
}
