package pgkv

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// scripted is a driver whose statements return rows, and then an error. It has
// the ways of a conn: as a plain one it prepares each statement.
type scripted struct {
	rows     [][]driver.Value
	next     error // after the last row, in the place of io.EOF
	closing  error
	query    error // in the place of rows
	got      []driver.Value
	prepares int
	closed   int
}

func (s *scripted) Connect(context.Context) (driver.Conn, error) { return s, nil }
func (s *scripted) Driver() driver.Driver                        { return nil }
func (s *scripted) Begin() (driver.Tx, error)                    { return nil, errors.New("no transactions") }
func (s *scripted) Close() error                                 { return nil }

func (s *scripted) Prepare(string) (driver.Stmt, error) {
	s.prepares++
	return statement{s}, nil
}

func (s *scripted) answer(args []driver.Value) (driver.Rows, error) {
	if s.query != nil {
		return nil, s.query
	}
	s.got = args
	return &scriptedRows{scripted: s}, nil
}

type statement struct{ *scripted }

func (statement) NumInput() int                                 { return -1 }
func (statement) Exec([]driver.Value) (driver.Result, error)    { return nil, errors.New("no results") }
func (s statement) Query(v []driver.Value) (driver.Rows, error) { return s.answer(v) }

type scriptedRows struct {
	*scripted
	n int
}

func (r *scriptedRows) Columns() []string { return []string{"a", "b", "c", "d", "e"} }

func (r *scriptedRows) Close() error {
	r.closed++
	return r.closing
}

func (r *scriptedRows) Next(row []driver.Value) error {
	if r.n == len(r.rows) {
		if r.next != nil {
			return r.next
		}
		return io.EOF
	}
	copy(row, r.rows[r.n])
	r.n++
	return nil
}

// queryer is a conn that takes queries at once.
type queryer struct {
	*scripted
	skips bool
}

func (q queryer) Connect(context.Context) (driver.Conn, error) { return q, nil }

func (q queryer) QueryContext(_ context.Context, _ string, args []driver.NamedValue) (driver.Rows, error) {
	if q.skips {
		return nil, driver.ErrSkip
	}
	values := make([]driver.Value, len(args))
	for i, arg := range args {
		values[i] = arg.Value
	}
	return q.answer(values)
}

// ways are a driver's ways to run a query.
var ways = map[string]func(s *scripted) driver.Connector{
	"prepares":           func(s *scripted) driver.Connector { return s },
	"queries":            func(s *scripted) driver.Connector { return queryer{s, false} },
	"skips and prepares": func(s *scripted) driver.Connector { return queryer{s, true} },
}

// five is what a row of five columns is read into.
type five struct {
	number  int64
	bytes   []byte
	text    sql.NullString
	yes     bool
	instant time.Time
}

func (f *five) each(t *testing.T, connector driver.Connector) (rows []five, found bool, err error) {
	t.Helper()
	db := sql.OpenDB(connector)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	conn, err := db.Conn(t.Context())
	require.NoError(t, err)
	defer func() { _ = conn.Close() }() // a broken one is closed already
	args := []any{"text", []byte("bytes"), int64(7), 8, sql.NullInt64{}, sql.NullString{String: "there", Valid: true}}
	found, err = each(t.Context(), conn, "a statement", args, func() { rows = append(rows, *f) },
		&f.number, &f.bytes, &f.text, &f.yes, &f.instant)
	return rows, found, err
}

func TestEachReadsWhateverWayTheDriverHas(t *testing.T) {
	t.Parallel()
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
			buffer := []byte("one")
			s := &scripted{rows: [][]driver.Value{{int64(1), buffer, "text", true, at}, {int64(2), nil, nil, false, at}}}
			rows, found, err := new(five).each(t, way(s))
			require.NoError(t, err)
			require.True(t, found)
			buffer[0] = 'X' // the driver's own
			require.Equal(t, []five{
				{1, []byte("one"), sql.NullString{String: "text", Valid: true}, true, at},
				{2, nil, sql.NullString{}, false, at},
			}, rows)
			require.Equal(t, []driver.Value{"text", []byte("bytes"), int64(7), int64(8), nil, "there"}, s.got)
			require.Equal(t, 1, s.closed)
			if name == "queries" {
				require.Zero(t, s.prepares)
			}
			_, found, err = new(five).each(t, way(&scripted{}))
			require.NoError(t, err)
			require.False(t, found)
		})
	}
}

// No error is lost, whenever it comes: the one at the end may be the COMMIT's.
func TestEachReturnsEveryError(t *testing.T) {
	t.Parallel()
	failed := errors.New("failed")
	row := []driver.Value{int64(1), []byte("one"), "text", true, time.Time{}}
	for name, way := range ways {
		for when, s := range map[string]*scripted{
			"at once":          {query: failed},
			"for a row":        {next: failed},
			"after the rows":   {rows: [][]driver.Value{row}, next: failed},
			"by a broken conn": {query: driver.ErrBadConn},
		} {
			t.Run(name+", "+when, func(t *testing.T) {
				t.Parallel()
				_, _, err := new(five).each(t, way(s))
				require.True(t, errors.Is(err, failed) || errors.Is(err, driver.ErrBadConn), err)
			})
		}
		t.Run(name+", NULL where there is none", func(t *testing.T) {
			t.Parallel()
			_, _, err := new(five).each(t, way(&scripted{rows: [][]driver.Value{{nil, nil, nil, true, time.Time{}}}}))
			require.ErrorContains(t, err, "NULL")
		})
	}
	_, _, err := new(five).each(t, ways["queries"](&scripted{closing: failed}))
	require.ErrorIs(t, err, failed)
}
