package pgkv

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"time"
)

// each sends one statement, and calls take for each row, once into has it. nil:
// the statement has ended, with its COMMIT.
//
// It speaks to the driver itself, on a connection of database/sql's pool: for
// the rows of each query database/sql starts a goroutine, which makes a write
// that the server answers in half a millisecond a fifth longer. The drivers for
// PostgreSQL watch the context themselves.
func each(ctx context.Context, conn *sql.Conn, query string, args []any, take func(),
	into ...any) (found bool, err error) {
	asked := false
	err = conn.Raw(func(c any) error {
		queryer, ok := c.(driver.QueryerContext)
		if !ok {
			return nil
		}
		values, err := namedValues(args)
		if err != nil {
			return err
		}
		rows, err := queryer.QueryContext(ctx, query, values)
		if errors.Is(err, driver.ErrSkip) {
			return nil
		}
		asked = true
		if err != nil {
			return err
		}
		found, err = readRows(rows, take, into)
		return err
	})
	if asked || err != nil {
		return found, err
	}
	return eachPrepared(ctx, conn, query, args, take, into...)
}

// eachPrepared is each for a driver that prepares each statement.
func eachPrepared(
	ctx context.Context, conn *sql.Conn, query string, args []any, take func(), into ...any,
) (found bool, err error) {
	rows, err := conn.QueryContext(ctx, query, args...)
	for err == nil && rows.Next() {
		found = true
		if err = rows.Scan(into...); err == nil {
			take()
		}
	}
	if rows != nil {
		err = errors.Join(err, rows.Close(), rows.Err())
	}
	return found, err
}

// namedValues are args as drivers take them.
func namedValues(args []any) ([]driver.NamedValue, error) {
	values := make([]driver.NamedValue, len(args))
	for i, arg := range args {
		value, err := driver.DefaultParameterConverter.ConvertValue(arg)
		if err != nil {
			return nil, fmt.Errorf("parameter $%d: %w", i+1, err)
		}
		values[i] = driver.NamedValue{Ordinal: i + 1, Value: value}
	}
	return values, nil
}

// readRows reads rows to their end, and closes them.
func readRows(rows driver.Rows, take func(), into []any) (found bool, err error) {
	row := make([]driver.Value, len(rows.Columns()))
	if len(row) != len(into) {
		return false, errors.Join(fmt.Errorf("%d columns, want %d", len(row), len(into)), rows.Close())
	}
	for err == nil {
		if err = rows.Next(row); err != nil {
			break
		}
		found = true
		for i, value := range row {
			err = errors.Join(err, assign(into[i], value))
		}
		if err == nil {
			take()
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return found, errors.Join(err, rows.Close())
}

// assign does for a column what Rows.Scan of database/sql does.
func assign(into any, value driver.Value) error {
	switch into := into.(type) {
	case sql.Scanner:
		return into.Scan(value)
	case *[]byte:
		return convert(into, value, true)
	case *string:
		return convert(into, value, false)
	case *bool:
		return convert(into, value, false)
	case *int64:
		return convert(into, value, false)
	case *time.Time:
		return convert(into, value, false)
	}
	return fmt.Errorf("a column into %T", into)
}

// convert copies value, as its driver may use its memory again.
func convert[T any](into *T, value driver.Value, nullable bool) error {
	var converted sql.Null[T]
	if err := converted.Scan(value); err != nil {
		return err
	}
	if !converted.Valid && !nullable {
		return fmt.Errorf("NULL, want %T", converted.V)
	}
	*into = converted.V
	return nil
}
