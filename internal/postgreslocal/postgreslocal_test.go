package postgreslocal_test

import (
	"net"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/postgreslocal"
)

func TestMain(m *testing.M) {
	code := m.Run()
	postgreslocal.Stop()
	os.Exit(code)
}

func TestAServerAnswersAlsoAfterItWasKilled(t *testing.T) {
	t.Parallel()
	server := postgreslocal.Own(t)
	address := server.Address()
	for range 2 {
		conn, err := net.Dial("tcp", address)
		require.NoError(t, err)
		require.NoError(t, conn.Close())
		require.NoError(t, server.Kill())
		_, err = net.Dial("tcp", address)
		require.Error(t, err)
		require.NoError(t, server.Start(t.Context()))
		require.Equal(t, address, server.Address())
	}
}

func TestTheSharedServerIsShared(t *testing.T) {
	t.Parallel()
	server := postgreslocal.Shared(t)
	require.Same(t, server, postgreslocal.Shared(t))
	require.Equal(t, "postgres://app@"+server.Address()+"/postgres?sslmode=disable&statement_timeout=10s",
		server.DSN("app", "", "statement_timeout=10s"))
}
