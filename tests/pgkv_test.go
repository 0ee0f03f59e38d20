package tests_test

import (
	"context"
	crand "crypto/rand"
	"database/sql"
	"fmt"
	"math"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/postgreslocal"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/kvtest"
	"github.com/dynalock/dynalock/kv/pgkv"
)

// pgTimeout is the parameter without which a Store refuses to work.
const pgTimeout = "statement_timeout=30s"

// openPostgres opens the database at dsn, and closes it at the test's end.
func openPostgres(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", dsn)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

// sharedPostgres returns the shared server's connection string, its table being there.
func sharedPostgres(t *testing.T) string {
	t.Helper()
	dsn := postgreslocal.Shared(t).DSN(postgreslocal.Superuser, "", pgTimeout)
	require.NoError(t, pgkv.EnsureTable(t.Context(), openPostgres(t, dsn)))
	return dsn
}

// openPg opens a store in a namespace, and closes it at the test's end.
func openPg(t *testing.T, dsn, namespace string, options ...pgkv.Option) *pgkv.Store {
	t.Helper()
	store, err := pgkv.New(openPostgres(t, dsn), append([]pgkv.Option{pgkv.WithNamespace(namespace)}, options...)...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	return store
}

// runPostgresChild runs child on the namespace that the environment names.
func runPostgresChild(ctx context.Context, dsn string, child func(context.Context, kv.Store) error) error {
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	store, err := pgkv.New(db, pgkv.WithNamespace(os.Getenv(childNamespace)))
	if err != nil {
		return err
	}
	return child(ctx, store)
}

func TestPostgresConformance(t *testing.T) {
	t.Parallel()
	dsn := sharedPostgres(t)
	var namespaces sync.Map // *pgkv.Store: its namespace
	patient := pgkv.WithClock(patientClock{clock.System})
	kvtest.Run(t, kvtest.Harness{
		Open: func(t *testing.T) kv.Store {
			namespace := crand.Text()
			store := openPg(t, dsn, namespace, patient)
			namespaces.Store(store, namespace)
			return store
		},
		Second: func(t *testing.T, store kv.Store) kv.Store {
			namespace, ok := namespaces.Load(store)
			require.True(t, ok)
			return openPg(t, dsn, namespace.(string), patient)
		},
		CheckHistory: requireLinearizable,
		Process: func(t *testing.T, store kv.Store, prefix string) func() error {
			namespace, ok := namespaces.Load(store)
			require.True(t, ok)
			cmd, _ := child(t, "peer", dsn, childPrefix+"="+prefix, childNamespace+"="+namespace.(string))
			return cmd.Wait
		},
	})
}

// pairExpiry is that of a pair that does not expire.
var pairExpiry time.Time

// sqlOfThePages returns the statements that docs/operations.md shows, for another role than "app".
func sqlOfThePages(t *testing.T, role string) (statements []string) {
	t.Helper()
	page, err := os.ReadFile("../docs/operations.md")
	require.NoError(t, err)
	for _, block := range fence.FindAllStringSubmatch(string(page), -1) {
		if block[1] == "sql" {
			text := strings.NewReplacer("TO app", "TO "+role, "ROLE app", "ROLE "+role).Replace(block[2])
			statements = append(statements, strings.Split(strings.TrimSuffix(strings.TrimSpace(text), ";"), ";\n")...)
		}
	}
	require.Len(t, statements, 4)
	return statements
}

func TestAPostgresPageEndsEarlyWhereItIsLarge(t *testing.T) {
	t.Parallel()
	store := openPg(t, sharedPostgres(t), crand.Text())
	for i := range 8 {
		require.NoError(t, store.Put(t.Context(), fmt.Sprint(i), kv.WithBytes(make([]byte, 300<<10))))
	}
	for _, order := range [][]kv.ReadOption{nil, {kv.Descending()}} {
		page, err := store.ListPage(t.Context(), "", append(order, kv.WithLimit(math.MaxInt))...)
		require.NoError(t, err)
		require.Len(t, page.Pairs, 4)
		page, err = store.ListPage(t.Context(), "", append(order, kv.WithStartKey(page.Next))...)
		require.NoError(t, err)
		require.Len(t, page.Pairs, 4)
		require.Empty(t, page.Next)
	}
}

// A row that expires is swept an hour after that, whatever wrote it and however
// early its hint allows the sweep.
func TestPostgresRowsAreSweptLongAfterTheyHaveExpired(t *testing.T) {
	t.Parallel()
	dsn := sharedPostgres(t)
	namespace := "sweep-" + crand.Text()
	store, db := openPg(t, dsn, namespace), openPostgres(t, dsn)
	expires := []kv.WriteOption{kv.WithTTL(48 * time.Hour), kv.WithSweepAfter(time.Hour)}
	requireKept := func(what string) {
		t.Helper()
		var kept bool
		require.NoError(t, db.QueryRowContext(t.Context(),
			"SELECT sweep >= expires + interval '1 hour' FROM dynalock WHERE ns = $1 AND key = 'k'", namespace).Scan(&kept),
			what)
		require.True(t, kept, what)
	}
	pair, err := store.AtomicPut(t.Context(), "k", expires...)
	require.NoError(t, err)
	requireKept("create")
	pair, err = store.AtomicPut(t.Context(), "k", append(expires, kv.WithPrevious(pair))...)
	require.NoError(t, err)
	requireKept("swap")
	_, err = store.AtomicPut(t.Context(), "k", kv.WithKeepTTL(), kv.WithPrevious(pair))
	require.NoError(t, err)
	requireKept("swap that keeps the expiry")
	require.NoError(t, store.Put(t.Context(), "k", expires...))
	requireKept("put")
	require.NoError(t, store.Put(t.Context(), "k", kv.WithKeepTTL()))
	requireKept("put that keeps the expiry")
}

// The sweep goes round: what dies behind it is found by the next round.
func TestPostgresSweepGoesRound(t *testing.T) {
	t.Parallel()
	dsn := sharedPostgres(t)
	namespace := "round-" + crand.Text()
	store, db := openPg(t, dsn, namespace), openPostgres(t, dsn)
	write := func(n int) {
		for range n {
			require.NoError(t, store.Put(t.Context(), "m"))
		}
	}
	write(130) // it has been at the end
	require.NoError(t, store.Put(t.Context(), "a"))
	require.NoError(t, store.Delete(t.Context(), "a"))
	_, err := db.ExecContext(t.Context(),
		"UPDATE dynalock SET sweep = now() - interval '1 hour' WHERE ns = $1 AND key = 'a'", namespace)
	require.NoError(t, err)
	write(200)
	var rows int
	require.NoError(t, db.QueryRowContext(t.Context(), "SELECT count(*) FROM dynalock WHERE ns = $1",
		namespace).Scan(&rows))
	require.Equal(t, 1, rows)
}
