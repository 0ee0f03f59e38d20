package tests_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"

	"github.com/dynalock/dynalock/internal/dynamolocal"
	"github.com/dynalock/dynalock/internal/postgreslocal"
	"github.com/dynalock/dynalock/internal/proctest"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/kvtest"
	"github.com/dynalock/dynalock/kv/sqlkv"
)

// childMode makes the test binary a process of one of the tests below.
const (
	childMode = "DYNALOCK_TEST_CHILD"
	childFile = "DYNALOCK_TEST_FILE"
	// childPrefix is that of the keys of peer, childRound of those of writeForEver.
	childPrefix = "DYNALOCK_TEST_PREFIX"
	childRound  = "DYNALOCK_TEST_ROUND"
	// childNamespace is that of a store in PostgreSQL, whose connection string stands for the file.
	childNamespace = "DYNALOCK_TEST_NAMESPACE"
)

func TestMain(m *testing.M) {
	children := map[string]func(context.Context, kv.Store) error{
		"increment": increment, "write": writeForEver, "peer": peer, "elect": elect,
	}
	child, ok := children[os.Getenv(childMode)]
	if !ok {
		parallel()
		code := m.Run()
		dynamolocal.Stop()
		postgreslocal.Stop()
		os.Exit(code)
	}
	if err := runChild(child); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// parallel lets two tests run at once for each processor, unless -parallel says
// otherwise: most wait for other processes.
func parallel() {
	if err := flag.Set("test.parallel", strconv.Itoa(2*runtime.GOMAXPROCS(0))); err != nil {
		panic(err)
	}
}

func runChild(child func(context.Context, kv.Store) error) error {
	ctx := context.Background()
	if dsn := os.Getenv(childFile); strings.HasPrefix(dsn, "postgres://") {
		return runPostgresChild(ctx, dsn, child)
	}
	db, err := sql.Open("sqlite", os.Getenv(childFile))
	if err != nil {
		return err
	}
	store, err := sqlkv.Open(ctx, db)
	if err != nil {
		return err
	}
	return errors.Join(child(ctx, store), store.Close(), db.Close())
}

// openFile opens a store on file and closes it at the test's end.
func openFile(t *testing.T, file string) *sqlkv.Store {
	t.Helper()
	db, err := sql.Open("sqlite", file)
	require.NoError(t, err)
	store, err := sqlkv.Open(t.Context(), db)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, store.Close())
		require.NoError(t, db.Close())
	})
	return store
}

func TestSQLiteConformance(t *testing.T) {
	t.Parallel()
	var files sync.Map // *sqlkv.Store: its file
	kvtest.Run(t, kvtest.Harness{
		Open: func(t *testing.T) kv.Store {
			file := filepath.Join(t.TempDir(), "kv.db")
			store := openFile(t, file)
			files.Store(store, file)
			return store
		},
		Second: func(t *testing.T, store kv.Store) kv.Store {
			file, ok := files.Load(store)
			require.True(t, ok)
			return openFile(t, file.(string))
		},
		CheckHistory: requireLinearizable,
		Process: func(t *testing.T, store kv.Store, prefix string) func() error {
			file, ok := files.Load(store)
			require.True(t, ok)
			cmd, _ := child(t, "peer", file.(string), childPrefix+"="+prefix)
			return cmd.Wait
		},
	})
}

// peer is the suite's second process.
func peer(ctx context.Context, store kv.Store) error {
	return kvtest.Peer(ctx, store, os.Getenv(childPrefix))
}

const (
	processes  = 4
	increments = 100
)

func increment(ctx context.Context, store kv.Store) error {
	for range increments {
		_, err := kv.Update(ctx, store, "n", func(current *kv.KVPair) ([]byte, error) {
			n := 0
			if current != nil {
				var err error
				if n, err = strconv.Atoi(current.String()); err != nil {
					return nil, err
				}
			}
			return strconv.AppendInt(nil, int64(n+1), 10), nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// child starts a process of this binary.
func child(t *testing.T, mode, file string, environment ...string) (*exec.Cmd, io.Reader) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childMode+"="+mode, childFile+"="+file)
	cmd.Env = append(cmd.Env, environment...)
	out, _, err := proctest.Pipe(t, cmd, mode)
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	return cmd, out
}

func TestProcessesOnOneFileSumUp(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "kv.db") // the processes race to create the tables, too
	var running []*exec.Cmd
	for range processes {
		cmd, _ := child(t, "increment", file)
		running = append(running, cmd)
	}
	for _, cmd := range running {
		require.NoError(t, cmd.Wait())
	}
	pair, err := openFile(t, file).Get(t.Context(), "n")
	require.NoError(t, err)
	require.Equal(t, strconv.Itoa(processes*increments), pair.String())
	require.EqualValues(t, processes*increments, pair.Version, "a write that is not applied takes no version")
}

// writeForEver writes 0, 1, 2 … under their own keys and says each number once
// its write is acknowledged.
func writeForEver(ctx context.Context, store kv.Store) error {
	for i := 0; ; i++ {
		if _, err := store.AtomicPut(ctx, fmt.Sprintf("%s/%d", os.Getenv(childRound), i),
			kv.WithString(strconv.Itoa(i))); err != nil {
			return err
		}
		if _, err := fmt.Println(i); err != nil {
			return err
		}
	}
}

func TestAcknowledgedWritesSurviveKill(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "kv.db")
	for round := range 20 {
		cmd, out := child(t, "write", file, fmt.Sprintf("%s=%d", childRound, round))
		acknowledged := -1
		for lines := bufio.NewScanner(out); lines.Scan(); {
			n, err := strconv.Atoi(lines.Text())
			require.NoError(t, err)
			require.Equal(t, acknowledged+1, n)
			if acknowledged = n; n == 20+7*round {
				require.NoError(t, cmd.Process.Kill()) // what it says until it is dead counts
			}
		}
		require.Error(t, cmd.Wait())
		store := openFile(t, file)
		for i := range acknowledged + 1 {
			pair, err := store.Get(t.Context(), fmt.Sprintf("%d/%d", round, i))
			require.NoError(t, err, "round %d: %d of %d is lost", round, i, acknowledged)
			require.Equal(t, strconv.Itoa(i), pair.String())
		}
		pairs, err := store.List(t.Context(), fmt.Sprintf("%d/", round))
		require.NoError(t, err)
		require.LessOrEqual(t, len(pairs), acknowledged+2, "one write may have lost its acknowledgement")
	}
}

func TestABusyDatabaseHoldsAWriteAsLongAsItsContext(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "kv.db")
	store := openFile(t, file)
	require.NoError(t, store.Put(t.Context(), "k", kv.WithString("before")))
	db, err := sql.Open("sqlite", file)
	require.NoError(t, err)
	defer db.Close()
	conn, err := db.Conn(t.Context())
	require.NoError(t, err)
	defer conn.Close()
	_, err = conn.ExecContext(t.Context(), "BEGIN IMMEDIATE")
	require.NoError(t, err)

	ctx, cancel := context.WithTimeout(t.Context(), 120*time.Millisecond)
	defer cancel()
	err = store.Put(ctx, "k", kv.WithString("never"))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NotErrorIs(t, err, kv.ErrUncertain, "it never began")
	pair, err := store.Get(t.Context(), "k")
	require.NoError(t, err, "reads do not wait for writers")
	require.Equal(t, "before", pair.String())

	done := make(chan error, 1)
	go func() { done <- store.Put(t.Context(), "k", kv.WithString("after")) }()
	_, err = conn.ExecContext(t.Context(), "ROLLBACK")
	require.NoError(t, err)
	require.NoError(t, <-done)
	pair, err = store.Get(t.Context(), "k")
	require.NoError(t, err)
	require.Equal(t, "after", pair.String())
}

// Contexts that end at any moment leave no connection in a transaction, and no write half done.
func TestEndingContextsLeaveTheStoreUsable(t *testing.T) {
	t.Parallel()
	store := openFile(t, filepath.Join(t.TempDir(), "kv.db"))
	acknowledged, unknown := 0, 0
	for i := range 200 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i*5)*time.Microsecond)
		_, err := store.AtomicPut(ctx, fmt.Sprintf("k/%d", i))
		cancel()
		switch {
		case err == nil:
			acknowledged++
		case errors.Is(err, kv.ErrUncertain):
			unknown++
		default:
			require.ErrorIs(t, err, context.DeadlineExceeded)
		}
	}
	pairs, err := store.List(t.Context(), "k/")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(pairs), acknowledged)
	require.LessOrEqual(t, len(pairs), acknowledged+unknown)
	require.NoError(t, store.Put(t.Context(), "last"))
}

func TestOpenRefusesWhatItCannotKeepItsPromisesOn(t *testing.T) {
	t.Parallel()
	open := func(dsn string) (*sql.DB, error) {
		db, err := sql.Open("sqlite", dsn)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, db.Close()) })
		_, err = sqlkv.Open(t.Context(), db)
		return db, err
	}
	_, err := open(":memory:")
	require.ErrorContains(t, err, "journal_mode")

	file := filepath.Join(t.TempDir(), "kv.db")
	db, err := open(file)
	require.NoError(t, err)
	_, err = db.ExecContext(t.Context(), "UPDATE kv_meta SET value = 2 WHERE name = 'schema'")
	require.NoError(t, err)
	_, err = open(file)
	require.ErrorIs(t, err, kv.ErrFormat)
	require.ErrorContains(t, err, "version 2")

	db, err = sql.Open("sqlite", file)
	require.NoError(t, err)
	defer db.Close()
	db.SetMaxOpenConns(1)
	_, err = sqlkv.Open(t.Context(), db)
	require.ErrorContains(t, err, "pool")
}

func TestRowsThatTheDriverDidNotWrite(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "kv.db")
	store := openFile(t, file)
	require.NoError(t, store.Put(t.Context(), "k"))
	db, err := sql.Open("sqlite", file)
	require.NoError(t, err)
	defer db.Close()
	for _, damage := range []string{
		"version = 0", "version = -1", "version = 'x'", "version = 1.5", "version = x'00'", "expires = 'soon'",
		"expires = 1e300",
		"fields = 'x'", "fields = x'00'", "fields = '[]'", `fields = '{"a":["?","b"]}'`, `fields = '{"a":["N","b"]}'`,
		`fields = '{"a":["B","?"]}'`,
	} {
		_, err = db.ExecContext(t.Context(), "UPDATE kv SET version = 1, expires = NULL, fields = NULL")
		require.NoError(t, err)
		_, err = db.ExecContext(t.Context(), "UPDATE kv SET "+damage)
		require.NoError(t, err)
		_, err = store.Get(t.Context(), "k")
		require.ErrorIs(t, err, kv.ErrFormat, damage)
		require.ErrorContains(t, err, `"k"`, damage)
		_, err = store.List(t.Context(), "")
		require.ErrorIs(t, err, kv.ErrFormat, damage)
		_, err = store.AtomicPut(t.Context(), "k")
		require.ErrorIs(t, err, kv.ErrFormat, damage)
	}
	require.NoError(t, store.Delete(t.Context(), "k"))
	require.NoError(t, store.Put(t.Context(), "k"))
}
