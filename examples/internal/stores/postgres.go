package stores

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strings"

	_ "github.com/jackc/pgx/v5/stdlib" // the database driver "pgx"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/pgkv"
)

// timeoutParameter is what a Store needs to be set; a role may have it, too.
const timeoutParameter = "statement_timeout"

// openPostgres makes the table if asked to, and sees that the store can be
// used, so that what is missing is said before any work begins.
func openPostgres(ctx context.Context, spec string, create bool) (kv.Store, func() error, error) {
	dsn, shown, err := postgresDSN(spec)
	if err != nil {
		return nil, nil, err
	}
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		return nil, nil, fmt.Errorf("store %s: %w", shown, err)
	}
	store, err := usePostgres(ctx, db, dsn, create)
	if err != nil {
		return nil, nil, fmt.Errorf("store %s: %w", shown, errors.Join(err, db.Close()))
	}
	return store, func() error { return errors.Join(store.Close(), db.Close()) }, nil
}

// postgresDSN returns spec with a time limit for statements, if it has none,
// and how to show it: without a password.
func postgresDSN(spec string) (dsn, shown string, err error) {
	u, err := url.Parse(spec)
	if err != nil {
		return "", "", errors.New("store postgres: not a URL: give postgres://USER@HOST/DATABASE") // err has the password
	}
	shown = u.Redacted()
	if query := u.Query(); !query.Has(timeoutParameter) {
		query.Set(timeoutParameter, "10s")
		u.RawQuery = strings.ReplaceAll(query.Encode(), "+", "%20")
	}
	return u.String(), shown, nil
}

func usePostgres(ctx context.Context, db *sql.DB, dsn string, create bool) (*pgkv.ListeningStore, error) {
	if create {
		ctx, cancel := clock.System.WithTimeout(ctx, createTimeout)
		defer cancel()
		if err := pgkv.EnsureTable(ctx, db); err != nil {
			return nil, err
		}
	}
	store, err := pgkv.NewListening(db, listen(dsn))
	if err != nil {
		return nil, err
	}
	ctx, cancel := clock.System.WithTimeout(ctx, probeTimeout)
	defer cancel()
	_, err = store.Exists(ctx, "probe")
	if errors.Is(err, pgkv.ErrTableNotFound) {
		return nil, errors.New("there is no table dynalock: check the database's name, or add -create-table")
	}
	return store, err
}
