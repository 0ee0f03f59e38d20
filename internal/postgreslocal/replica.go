package postgreslocal

import (
	"context"
	"fmt"
	"os"
	"testing"
)

// Replica returns a server that follows this one, as a copy that takes no
// writes, and stops it at t's end.
func (s *Server) Replica(t testing.TB) *Server {
	t.Helper()
	replica, err := s.follow(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := replica.Stop(); err != nil {
			t.Error(err)
		}
	})
	return replica
}

func (s *Server) follow(ctx context.Context) (*Server, error) {
	replica := &Server{programs: s.programs, settings: s.settings, as: s.as}
	var err error
	if replica.dir, err = os.MkdirTemp("", "dynalock-postgres-"); err != nil {
		return nil, fmt.Errorf("postgreslocal: %w", err)
	}
	if err := s.as.give(replica.dir); err != nil {
		return nil, fmt.Errorf("postgreslocal: %w", err)
	}
	if err := replica.run(ctx, "pg_basebackup", "-D", replica.data(), "-d", s.DSN(Superuser, ""), "--write-recovery-conf",
		"--no-sync", "--checkpoint=fast"); err != nil {
		return nil, err
	}
	return replica, replica.Start(ctx)
}
