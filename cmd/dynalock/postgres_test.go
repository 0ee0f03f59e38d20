//go:build unix

package main

import (
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/postgreslocal"
)

// emptySchema is a store on PostgreSQL without its table.
func emptySchema(t *testing.T) string {
	t.Helper()
	server, schema := postgreslocal.Shared(t), "cli_"+rand.Text()
	db, err := sql.Open("pgx", server.DSN(postgreslocal.Superuser, ""))
	require.NoError(t, err)
	_, err = db.ExecContext(t.Context(), `CREATE SCHEMA "`+schema+`"`)
	require.NoError(t, err)
	require.NoError(t, db.Close())
	return server.DSN(postgreslocal.Superuser, "", `search_path="`+schema+`"`)
}

// postgresStore is one whose table the command has made.
func postgresStore(t *testing.T) string {
	t.Helper()
	store := emptySchema(t)
	for range 2 { // again it only checks
		output, err := command(t, store, "table", "create").CombinedOutput()
		require.NoError(t, err, "%s", output)
		require.Contains(t, string(output), "table dynalock is fit")
	}
	return store
}

func TestScriptsOnPostgres(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short")
	}
	postgreslocal.Need(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("DYNALOCK_STORE", postgresStore(t))
			return nil
		},
	})
}

func TestWithoutItsTablePostgresIsUnfit(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short")
	}
	output, err := command(t, emptySchema(t), "ls").CombinedOutput()
	var ended *exec.ExitError
	require.ErrorAs(t, err, &ended, "%s", output)
	require.Equal(t, statusUnfit, ended.ExitCode(), "%s", output)
	require.Contains(t, string(output), "dynalock table create")
}

// Processes that take turns at a counter count every turn, though one of them is
// killed while it has the lock.
func TestACrashRunOnPostgresIsComplete(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short")
	}
	store, folder := postgresStore(t), t.TempDir()
	victim := command(t, store, "-q", "run", "--ttl", "3s", "counter", "--", "sh", "-c", "touch held; exec sleep 600")
	victim.Dir = folder
	require.NoError(t, victim.Start())
	require.Eventually(t, exists(folder, "held"), time.Minute, 10*time.Millisecond)

	const others = 4
	count := `n=$(cat count 2>/dev/null || echo 0); sleep 0.05; echo $((n+1)) >count; echo "$DYNALOCK_TOKEN $DYNALOCK_TAKEN_OVER" >>turns`
	ended := make(chan error, others)
	for range others {
		cmd := command(t, store, "-q", "run", "counter", "--", "sh", "-c", count)
		cmd.Dir = folder
		go func() { ended <- cmd.Run() }()
	}
	require.NoError(t, victim.Process.Kill())
	_ = victim.Wait()
	for range others {
		require.NoError(t, <-ended)
	}
	total, err := os.ReadFile(filepath.Join(folder, "count"))
	require.NoError(t, err)
	require.Equal(t, "4\n", string(total))
	turns, err := os.ReadFile(filepath.Join(folder, "turns"))
	require.NoError(t, err)
	require.Regexp(t, `^[0-9]+ true\n`, string(turns), "the first took it from the killed one")

	output, err := command(t, store, "ls", "-o", "json").Output()
	require.NoError(t, err)
	var rows []lockRow
	require.NoError(t, json.Unmarshal(output, &rows), "%s", output)
	require.Empty(t, rows, "nothing is left")
}
