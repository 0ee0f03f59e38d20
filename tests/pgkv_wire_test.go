package tests_test

import (
	"context"
	crand "crypto/rand"
	"database/sql"
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/postgreslocal"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/pgkv"
)

// wired is a store behind a faulty wire, and the truth.
type wired struct {
	proxy     *pgProxy
	store     *pgkv.Store // through the proxy
	direct    *pgkv.Store // another client on the same namespace
	db        *sql.DB     // direct
	namespace string
}

func openWired(t *testing.T, options ...pgkv.Option) *wired {
	t.Helper()
	direct := sharedPostgres(t)
	w := &wired{namespace: crand.Text(), db: openPostgres(t, direct)}
	address, err := url.Parse(direct)
	require.NoError(t, err)
	w.proxy = startPgProxy(t, address.Host)
	dsn := postgreslocal.Shared(t).DSN(postgreslocal.Superuser, w.proxy.listener.Addr().String(), pgTimeout,
		"default_query_exec_mode=exec")
	w.store = openPg(t, dsn, w.namespace, options...)
	w.direct = openPg(t, direct, w.namespace)
	return w
}

// version returns that of the row of "k", tombstones included, 0 if there is none.
func (w *wired) version(t *testing.T) (version uint64) {
	t.Helper()
	err := w.db.QueryRowContext(t.Context(), "SELECT COALESCE(max(version), 0) FROM dynalock WHERE ns = $1 AND key = 'k'",
		w.namespace).Scan(&version)
	require.NoError(t, err)
	return version
}

// wireWrites are the five writes of a store. previous is what the key has, nil for a create.
var wireWrites = map[string]func(ctx context.Context, store kv.Store, previous *kv.KVPair) error{
	"create": func(ctx context.Context, s kv.Store, _ *kv.KVPair) error {
		_, err := s.AtomicPut(ctx, "k", kv.WithString("new"))
		return err
	},
	"put": writes["put"], "delete": writes["delete"], "atomic put": writes["atomic put"],
	"atomic delete": writes["atomic delete"],
}

// prepare makes what the write named name finds.
func (w *wired) prepare(t *testing.T, name string) *kv.KVPair {
	t.Helper()
	w.proxy.inject(nil)
	require.NoError(t, w.direct.Delete(t.Context(), "k"))
	if name == "create" {
		return nil
	}
	pair, err := w.direct.AtomicPut(t.Context(), "k", kv.WithString("old"))
	require.NoError(t, err)
	return pair
}

func on(faults ...wireFault) func(int) wireFault {
	return func(request int) wireFault {
		if request < len(faults) {
			return faults[request]
		}
		return ""
	}
}

func always(fault wireFault) func(int) wireFault { return func(int) wireFault { return fault } }

// A write whose first attempts are lost, or their answers, is applied once and is a success.
func TestPostgresWritesThatAreSentAgainAreAppliedOnce(t *testing.T) {
	t.Parallel()
	for name, write := range wireWrites {
		for _, fault := range []wireFault{cutBefore, cutAfter, holeBefore, holeAfter} {
			t.Run(name+", "+string(fault), func(t *testing.T) {
				t.Parallel()
				w := openWired(t)
				require.NoError(t, w.store.Put(t.Context(), "warm"))
				for _, faults := range [][]wireFault{{fault}, {fault, fault}, {"", fault}} {
					previous := w.prepare(t, name)
					before := w.version(t)
					w.proxy.inject(on(faults...))
					require.NoError(t, write(t.Context(), w.store, previous), faults)
					require.NotZero(t, w.proxy.meant())
					pair, err := w.direct.Get(t.Context(), "k")
					switch name {
					case "delete", "atomic delete":
						require.ErrorIs(t, err, kv.ErrKeyNotFound)
					default:
						require.NoError(t, err)
						require.Equal(t, "new", pair.String())
					}
					if name == "create" {
						require.Greater(t, w.version(t), before)
					} else {
						require.Equal(t, before+1, w.version(t), "%v: applied once", faults)
					}
				}
			})
		}
	}
}

// A write that never gets an answer is of unknown outcome, whichever it was,
// and says which version it gives.
func TestPostgresWritesWithoutAnyAnswerAreUncertain(t *testing.T) {
	t.Parallel()
	for name, write := range wireWrites {
		for _, fault := range []wireFault{cutBefore, cutAfter, holeBefore, holeAfter} {
			t.Run(name+", "+string(fault), func(t *testing.T) {
				t.Parallel()
				w := openWired(t)
				require.NoError(t, w.store.Put(t.Context(), "warm"))
				previous := w.prepare(t, name)
				before := w.version(t)
				w.proxy.inject(always(fault))
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				err := write(ctx, w.store, previous)
				applied := w.version(t) != before
				require.Equal(t, fault == cutAfter || fault == holeAfter, applied)
				if applied && (name == "put" || name == "delete") {
					require.NoError(t, err, "a look shows it")
					return
				}
				var uncertain *kv.UncertainError
				require.ErrorAs(t, err, &uncertain)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				switch {
				case name == "put" || name == "delete":
					require.Zero(t, uncertain.Version)
				case applied:
					require.Equal(t, w.version(t), uncertain.Version)
				case name == "create":
					require.Greater(t, uncertain.Version, before)
				default:
					require.Equal(t, before+1, uncertain.Version)
				}
			})
		}
	}
}

// Between a lost attempt and the next one another client writes: what the row
// then shows proves or proves nothing.
func TestPostgresConflictsAfterALostAttempt(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		write string
		fault wireFault
		// others is how many writes another client makes on what it finds.
		others int
		proven bool
	}{
		{"atomic put", cutBefore, 1, true}, // it took the only version that ours could have
		{"atomic delete", cutBefore, 1, true},
		{"atomic put", cutBefore, 2, false},
		{"atomic put", cutAfter, 1, false}, // ours was applied, and overwritten
		{"atomic delete", cutBefore, 2, false},
		{"create", cutBefore, 1, false}, // once the row is free again, a first attempt might still land
		{"create", cutAfter, 1, false},
	} {
		t.Run(fmt.Sprint(c.write, " ", c.fault, " ", c.others), func(t *testing.T) {
			t.Parallel()
			w := openWired(t)
			require.NoError(t, w.store.Put(t.Context(), "warm"))
			previous := w.prepare(t, c.write)
			w.proxy.inject(func(request int) wireFault {
				if request == 0 {
					return c.fault
				}
				if request == 1 { // the second attempt: before it arrives the others write
					for range c.others {
						current, err := w.direct.Get(t.Context(), "k")
						if err != nil {
							current = nil
						}
						if _, err := w.direct.AtomicPut(t.Context(), "k", kv.WithPrevious(current), kv.WithString("other")); err != nil {
							t.Error(err)
						}
					}
				}
				return ""
			})
			err := wireWrites[c.write](t.Context(), w.store, previous)
			current, getErr := w.direct.Get(t.Context(), "k")
			require.NoError(t, getErr)
			require.Equal(t, "other", current.String())
			if c.proven {
				var conflict *kv.ConflictError
				require.ErrorAs(t, err, &conflict)
				require.Equal(t, current.Version, conflict.Version)
				require.Equal(t, current, conflict.Current)
				return
			}
			var uncertain *kv.UncertainError
			require.ErrorAs(t, err, &uncertain)
			require.Equal(t, current, uncertain.Current)
			require.GreaterOrEqual(t, current.Version, uncertain.Version, "the caller sees that it cannot be applied any more")
		})
	}
}

// turnedBack is a clock that can be set back, which makes everything on the wire so much later.
type turnedBack struct {
	patientClock
	by time.Duration
}

func (c *turnedBack) Now() clock.Reading {
	now := clock.System.Now()
	return clock.Reading{Mono: now.Mono - c.by, Boot: now.Boot - c.by, Wall: now.Wall.Add(-c.by)}
}

// A statement that arrives three minutes late applies nothing. One in time
// does, which shows that it is the time that matters.
func TestAPostgresStatementThatArrivesThreeMinutesLateAppliesNothing(t *testing.T) {
	t.Parallel()
	for name := range wireWrites {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.False(t, lands(t, name, 3*time.Minute))
			inTime := false
			for try := 0; try < 5 && !inTime; try++ { // where a busy client gave up before it had sent all
				inTime = lands(t, name, 0)
			}
			require.True(t, inTime)
		})
	}
}

// lands lets a write of which nobody waits for the answer any more reach the
// server so late by its clock, and reports whether it is applied.
func lands(t *testing.T, name string, late time.Duration) bool {
	t.Helper()
	c := &turnedBack{patientClock: patientClock{clock.System}}
	w := openWired(t, pgkv.WithClock(c))
	require.NoError(t, w.store.Put(t.Context(), "warm"))
	previous := w.prepare(t, name)
	before := w.version(t)
	c.by = late
	w.proxy.inject(always(heldBack))
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	require.ErrorIs(t, wireWrites[name](ctx, w.store, previous), kv.ErrUncertain)
	require.Equal(t, before, w.version(t))
	close(w.proxy.letGo)
	w.proxy.settled(t, w.db)
	for limit := time.Now().Add(5 * time.Second); late == 0 && w.version(t) == before && time.Now().Before(limit); {
		time.Sleep(10 * time.Millisecond)
	}
	return w.version(t) != before
}

// This machine's clock stood still for three minutes, so that the deadline of a
// write has passed by the server's before it is sent. The next attempt asks for the
// time, and has another one.
func TestAPostgresWriteOutlivesAClockThatStoodStill(t *testing.T) {
	t.Parallel()
	for name, write := range wireWrites {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := &turnedBack{patientClock: patientClock{clock.System}}
			w := openWired(t, pgkv.WithClock(c))
			require.NoError(t, w.store.Put(t.Context(), "warm"))
			previous := w.prepare(t, name)
			before := w.version(t)
			c.by = 3 * time.Minute
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			require.NoError(t, write(ctx, w.store, previous))
			require.Greater(t, w.version(t), before)
		})
	}
}
