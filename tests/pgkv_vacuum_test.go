package tests_test

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/postgreslocal"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/pgkv"
)

// long reports whether the tests that can take minutes do: in the night.
func long() bool { return os.Getenv("DYNALOCK_TEST_LONG") != "" }

// tableStats are what PostgreSQL says of the table.
type tableStats struct{ size, updates, hot, wal int64 }

func statsOf(t *testing.T, db *sql.DB) (s tableStats) {
	t.Helper()
	conn, err := db.Conn(t.Context())
	require.NoError(t, err)
	defer conn.Close()
	_, err = conn.ExecContext(t.Context(), "SELECT pg_stat_clear_snapshot()")
	require.NoError(t, err)
	err = conn.QueryRowContext(t.Context(), `SELECT pg_total_relation_size('dynalock'), n_tup_upd, n_tup_hot_upd, pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint
		FROM pg_stat_user_tables WHERE relname = 'dynalock'`).Scan(&s.size, &s.updates, &s.hot, &s.wal)
	require.NoError(t, err)
	return s
}

// Heartbeats keep the table small: almost all are HOT updates, whose dead rows
// the page itself gets rid of.
func TestPostgresHeartbeatsDoNotBloatTheTable(t *testing.T) {
	t.Parallel()
	const sessions, first = 100, 5_000
	all := 15_000
	if long() {
		all = 100_000
	}
	server := postgreslocal.Own(t)
	dsn := server.DSN(postgreslocal.Superuser, "", pgTimeout)
	db := openPostgres(t, dsn)
	db.SetMaxIdleConns(8)
	require.NoError(t, pgkv.EnsureTable(t.Context(), db))
	store, err := pgkv.New(db, pgkv.WithClock(patientClock{clock.System}))
	require.NoError(t, err)
	options := []kv.WriteOption{kv.WithString(strings.Repeat("a session's row ", 20)),
		kv.WithSweepAfter(7 * 24 * time.Hour)}
	rows := make([]*kv.KVPair, sessions)
	for i := range rows {
		rows[i], err = store.AtomicPut(t.Context(), fmt.Sprint("session/", i), options...)
		require.NoError(t, err)
	}
	// A round is a heartbeat of each session. The next begins when it has ended,
	// so that a server's process that a busy machine stops in the middle of a
	// statement, and whose snapshot keeps dead rows, holds up all sessions.
	// They would do dozens of heartbeats meanwhile, where real ones do one.
	beat := func(rounds int) {
		for range rounds {
			group, ctx := errgroup.WithContext(t.Context())
			for worker := range 8 {
				group.Go(func() error { return beats(ctx, store, rows, worker, options) })
			}
			require.NoError(t, group.Wait())
		}
	}
	beat(first / sessions)
	before := statsOf(t, db)
	beat((all - first) / sessions)
	var after tableStats
	require.Eventually(t, func() bool { // the servers' processes tell of their updates now and then
		after = statsOf(t, db)
		return after.updates >= int64(all)*99/100
	}, time.Minute, 100*time.Millisecond)
	hot := float64(after.hot) / float64(after.updates)
	t.Logf("size %d after %d heartbeats, %d after %d; %.1f %% HOT; %d bytes of WAL a heartbeat",
		before.size, first, after.size, all, 100*hot, (after.wal-before.wal)/int64(all-first))
	require.LessOrEqual(t, after.size, 2*before.size)
	require.GreaterOrEqual(t, hot, 0.9)
}

// beats writes every eighth of rows once, from worker on, in a random order:
// sessions beat by their own clocks.
func beats(ctx context.Context, store kv.Store, rows []*kv.KVPair, worker int, options []kv.WriteOption) (err error) {
	own := (len(rows) - worker + 7) / 8
	for _, n := range rand.Perm(own) {
		i := worker + 8*n
		rows[i], err = store.AtomicPut(ctx, rows[i].Key, append(options, kv.WithPrevious(rows[i]))...)
		if err != nil {
			return err
		}
	}
	return nil
}
