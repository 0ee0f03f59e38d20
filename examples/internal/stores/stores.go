// Package stores opens a kv.Store from the text of a -store flag, for the examples.
//
//	memory            in this process only
//	sqlite:PATH       an SQLite file, for processes of one machine; it is made if it is not there
//	postgres://…      a table of PostgreSQL: postgres://USER@HOST/DATABASE
//	dynamodb:TABLE    a DynamoDB table, with the standard AWS configuration (environment, profiles, roles);
//	                  dynamodb:TABLE?shards=N spreads it over N partitions
package stores

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	_ "modernc.org/sqlite" // the database driver "sqlite"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/kv/sqlkv"
)

// Usage is what a -store flag says of itself.
const Usage = "sqlite (a temporary file), sqlite:PATH, memory,\npostgres://USER@HOST/DATABASE or dynamodb:TABLE"

// Open opens the store that spec names. createTable makes a table that is
// missing, of DynamoDB or PostgreSQL; other stores need no such thing.
//
// On success the caller closes the store with the returned function. An error
// is one line that says what to do. Without createTable it comes within 5
// seconds.
func Open(ctx context.Context, spec string, createTable bool) (kv.Store, func() error, error) {
	kind, name, _ := strings.Cut(spec, ":")
	switch {
	case spec == "memory":
		return memkv.New(), func() error { return nil }, nil
	case kind == "sqlite" && name != "":
		return openSQLite(ctx, name)
	case kind == "postgres" && strings.HasPrefix(name, "//"):
		return openPostgres(ctx, spec, createTable)
	case kind == "dynamodb" && name != "":
		return openDynamoDB(ctx, name, createTable)
	}
	return nil, nil, fmt.Errorf(
		"unknown store %q: give memory, sqlite:PATH, postgres://USER@HOST/DATABASE or dynamodb:TABLE", spec)
}

// Files returns the absolute paths of the files in which spec's store keeps its
// pairs, none if it has no files.
func Files(spec string) ([]string, error) {
	path, ok := strings.CutPrefix(spec, "sqlite:")
	if !ok {
		return nil, nil
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	return []string{path, path + "-wal", path + "-shm", path + "-journal"}, nil
}

func openSQLite(ctx context.Context, path string) (kv.Store, func() error, error) {
	if info, err := os.Stat(filepath.Dir(path)); err != nil || !info.IsDir() {
		return nil, nil, fmt.Errorf("store sqlite:%s: there is no folder %s: make it or give another path",
			path, filepath.Dir(path))
	}
	db, err := sql.Open("sqlite", "file:"+url.PathEscape(path))
	if err != nil {
		return nil, nil, fmt.Errorf("store sqlite:%s: %w", path, err)
	}
	store, err := sqlkv.Open(ctx, db)
	if err != nil {
		return nil, nil, fmt.Errorf(
			"store sqlite:%s cannot be opened (give a file that this program made, or a new path): %w",
			path, errors.Join(err, db.Close()))
	}
	return store, func() error { return errors.Join(store.Close(), db.Close()) }, nil
}
