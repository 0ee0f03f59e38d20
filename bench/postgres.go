package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/dynalock/dynalock/internal/postgreslocal"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/pgkv"
	"github.com/dynalock/dynalock/lease"
)

// dsn is where the server is, with room for a slow machine.
func (r *rig) dsn() string {
	return r.postgres.DSN(postgreslocal.Superuser, "", "statement_timeout=60s")
}

// postgresStore makes a store in a namespace of its own table, over a pool with
// a connection for each of 16 goroutines. tracer sees the statements, nil: none
// does.
func (r *rig) postgresStore(ctx context.Context, namespace string, listens bool,
	tracer pgx.QueryTracer) (kv.Store, func() error, error) {
	settings, err := pgx.ParseConfig(r.dsn())
	if err != nil {
		return nil, nil, err
	}
	settings.Tracer = tracer
	db := stdlib.OpenDB(*settings)
	db.SetMaxIdleConns(16)
	if err := pgkv.EnsureTable(ctx, db); err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	var store interface {
		kv.Store
		Close() error
	}
	if listens {
		store, err = pgkv.NewListening(db, r.listen, pgkv.WithNamespace(namespace))
	} else {
		store, err = pgkv.New(db, pgkv.WithNamespace(namespace))
	}
	if err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	return store, func() error { return errors.Join(store.Close(), db.Close()) }, nil
}

// listen is a pgkv.Listen.
func (r *rig) listen(ctx context.Context, channel string, heard func(string)) error {
	conn, err := pgx.Connect(ctx, r.dsn())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
		return err
	}
	for heard(""); ; {
		n, err := conn.WaitForNotification(ctx)
		if err != nil {
			return err
		}
		heard(n.Payload)
	}
}

// onPostgres measures cycles on PostgreSQL beside pgx and its advisory locks.
func onPostgres(ctx context.Context, r *rig) (section, error) {
	s := section{
		title: "Lock cycles per second on PostgreSQL",
		method: "As above, beside the very statements of a cycle, an INSERT and an UPDATE, sent by pgx alone, and beside pg_advisory_lock and\n" +
			"pg_advisory_unlock. Those write nothing: they do not outlive their connection, and have no fencing token. Connections are open before.",
		table: [][]string{{"Goroutines", "Bare writes per second", "Cycles per second", "Fraction",
			"Advisory cycles per second"}},
	}
	if r.postgres == nil {
		s.method += "\n\nNot measured: PostgreSQL is not installed on this machine."
		return s, nil
	}
	for _, goroutines := range []int{1, 16} {
		row, err := r.postgresRow(ctx, goroutines)
		if err != nil {
			return s, err
		}
		s.table = append(s.table, row)
	}
	return s, nil
}

// postgresRow measures with so many goroutines.
func (r *rig) postgresRow(ctx context.Context, goroutines int) (row []string, err error) {
	var seen statements
	store, closeStore, err := r.postgresStore(ctx, rand.Text(), false, &seen)
	if err != nil {
		return nil, err
	}
	client, err := lease.New(store)
	if err != nil {
		return nil, errors.Join(err, closeStore())
	}
	locked := func(ctx context.Context, key int) error {
		l, err := client.TryAcquire(ctx, "key-"+strconv.Itoa(key))
		if err != nil {
			return err
		}
		return l.Release(ctx)
	}
	if err := locked(ctx, 0); err != nil { // the session, and the statements
		return nil, err
	}
	create, remove := seen.stop()
	conns := make([]*pgx.Conn, goroutines)
	for i := range conns {
		if conns[i], err = pgx.Connect(ctx, r.dsn()); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, conns[i].Close(context.WithoutCancel(ctx))) }()
	}
	contestants := []operation{bareStatements(conns, create, remove), locked, advisory(conns)}
	figures := make([][]float64, len(contestants))
	var fraction []float64
	for round := range pick(r, 6, 1) {
		var each [3]float64
		for i, op := range contestants {
			if each[i], err = rate(ctx, r, goroutines, op); err != nil {
				return nil, err
			}
		}
		if round == 0 && !r.quick {
			continue // to warm up
		}
		each[0] *= 2 // two writes
		for i := range each {
			figures[i] = append(figures[i], each[i])
		}
		fraction = append(fraction, each[1]/each[0])
	}
	return []string{strconv.Itoa(goroutines), spread(figures[0], "%.0f"), spread(figures[1], "%.0f"),
			spread(fraction, "%.2f"), spread(figures[2], "%.0f")},
		errors.Join(closeNow(client), closeStore())
}

// statements remembers the statements that write.
type statements struct {
	mu      sync.Mutex
	ignores bool
	all     []pgx.TraceQueryStartData
}

// TraceQueryStart implements pgx.QueryTracer.
func (s *statements) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ignores && (strings.HasPrefix(data.SQL, "INSERT") || strings.HasPrefix(data.SQL, "UPDATE")) {
		s.all = append(s.all, data)
	}
	return ctx
}

// TraceQueryEnd implements pgx.QueryTracer.
func (s *statements) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// stop returns the last two: those of a cycle.
func (s *statements) stop() (create, remove pgx.TraceQueryStartData) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ignores = true
	for i := range s.all {
		s.all[i].Args = s.all[i].Args[1:] // the first is database/sql's, for the results
	}
	n := len(s.all)
	return s.all[n-2], s.all[n-1]
}

// bareStatements sends the statements of a cycle on keys of its own. Parameters:
// see kv/pgkv/statements.go.
func bareStatements(conns []*pgx.Conn, create, remove pgx.TraceQueryStartData) operation {
	versions := make([]int64, len(conns))
	for i := range versions {
		versions[i] = time.Now().UnixMicro()
	}
	deadline := time.Now().Add(24 * time.Hour)
	return func(ctx context.Context, key int) error {
		var expires sql.NullTime
		var now time.Time
		version := versions[key] + 2
		versions[key] = version
		name := []byte("bare/" + strconv.Itoa(key))
		args := slices.Clone(create.Args)
		args[1], args[2], args[8] = name, version, deadline
		if err := conns[key].QueryRow(ctx, create.SQL, args...).Scan(&expires, &now); err != nil {
			return fmt.Errorf("bare create: %w", err)
		}
		args = slices.Clone(remove.Args)
		args[1], args[3], args[4], args[5] = name, deadline, version+1, version
		if err := conns[key].QueryRow(ctx, remove.SQL, args...).Scan(&expires, &now); err != nil {
			return fmt.Errorf("bare delete: %w", err)
		}
		return nil
	}
}

// advisory takes and gives back an advisory lock.
func advisory(conns []*pgx.Conn) operation {
	return func(ctx context.Context, key int) error {
		if _, err := conns[key].Exec(ctx, "SELECT pg_advisory_lock($1)", key); err != nil {
			return err
		}
		_, err := conns[key].Exec(ctx, "SELECT pg_advisory_unlock($1)", key)
		return err
	}
}

// handOverOnPostgres is handOver with and without notifications.
func handOverOnPostgres(ctx context.Context, r *rig) (section, error) {
	s := section{
		title:  "Hand-over after a release, on PostgreSQL",
		method: "As above, across clients: with polls, and with a pgkv.ListeningStore, which hears of the release.",
		table:  [][]string{{"Store", "Held for", "Times", "p50", "p99"}},
	}
	if r.postgres == nil {
		s.method += "\n\nNot measured: PostgreSQL is not installed on this machine."
		return s, nil
	}
	for _, listens := range []bool{false, true} {
		rows, err := r.postgresHandOvers(ctx, listens)
		if err != nil {
			return s, err
		}
		s.table = append(s.table, rows...)
	}
	return s, nil
}

func (r *rig) postgresHandOvers(ctx context.Context, listens bool) (rows [][]string, err error) {
	var clients [2]*lease.Client
	namespace, name := rand.Text(), "polls"
	if listens {
		name = "listens"
	}
	for i := range clients {
		store, closeStore, err := r.postgresStore(ctx, namespace, listens, nil)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, closeStore()) }()
		if clients[i], err = lease.New(store); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, closeNow(clients[i])) }()
	}
	for _, c := range []struct {
		hold  time.Duration
		times int
	}{{200 * time.Millisecond, 60}, {time.Second, 30}, {5 * time.Second, 12}} {
		var took []time.Duration
		for i := range pick(r, c.times, 1) {
			hold := c.hold*9/10 + c.hold*time.Duration(i)/time.Duration(5*c.times)
			d, err := oneHandOver(ctx, clients[0], clients[1], c.hold.String(), pick(r, hold, 10*time.Millisecond))
			if err != nil {
				return nil, err
			}
			took = append(took, d)
		}
		rows = append(rows, []string{name, c.hold.String(), strconv.Itoa(len(took)), ms(quantile(took, 0.5)),
			ms(quantile(took, 0.99))})
	}
	return rows, nil
}
