package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/smithy-go/logging"
	_ "github.com/jackc/pgx/v5/stdlib" // the database driver "pgx"
	"github.com/spf13/pflag"
	_ "modernc.org/sqlite" // the database driver "sqlite"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/dynamokv"
	"github.com/dynalock/dynalock/kv/pgkv"
	"github.com/dynalock/dynalock/kv/sqlkv"
	"github.com/dynalock/dynalock/lease"
)

// storeVariable names the store where --store does not.
const storeVariable = "DYNALOCK_STORE"

// cli is one call of the command.
type cli struct {
	in       *os.File
	out, err io.Writer

	store          string
	ttl, timeout   time.Duration
	owner, output  string
	metadata       map[string]string
	quiet, verbose bool
}

// flags are those of all commands.
func (c *cli) flags(f *pflag.FlagSet) {
	f.StringVar(&c.store, "store", "", "where the locks are (default $"+storeVariable+", or a file of this user's)")
	f.DurationVar(&c.ttl, "ttl", lease.DefaultTTL, "how long a lock outlives a process that dies")
	f.StringVar(&c.owner, "owner", "",
		"a name for people to recognize this process by (default host, pid and a random number)")
	f.StringToStringVar(&c.metadata, "meta", nil, "what people may want to know of this process, such as --meta build=17")
	f.DurationVar(&c.timeout, "timeout", 10*time.Second, "how long a command that does not wait may take")
	f.StringVarP(&c.output, "output", "o", "table", "table, wide, json, jsonl or name")
	f.BoolVarP(&c.quiet, "quiet", "q", false, "say nothing but what went wrong")
	f.BoolVarP(&c.verbose, "verbose", "v", false, "log on standard error")
}

// opened is a store with a client on it.
type opened struct {
	*lease.Client
	store kv.Store
	spec  string
	close func() error
}

// open opens the store and makes a client. The caller closes it.
func (c *cli) open(ctx context.Context, options ...lease.Option) (*opened, error) {
	switch c.output {
	case "table", "wide", "json", "jsonl", "name":
	default:
		return nil, usage(fmt.Errorf("--output %q: want table, wide, json, jsonl or name", c.output))
	}
	spec := c.spec()
	if spec == "" {
		path, err := ownFile()
		if err != nil {
			return nil, err
		}
		spec = "sqlite:" + path
		if !c.quiet || os.Getuid() == 0 {
			_, _ = fmt.Fprintf(c.err,
				"dynalock: locks are in %s: only processes of this user on this machine (--store changes it)\n", path)
		}
	}
	store, closeStore, err := openStore(ctx, spec)
	if err != nil {
		return nil, err
	}
	all := append([]lease.Option{
		lease.WithTTL(c.ttl), lease.WithLogger(c.logger()), lease.WithMetadata(c.metadata),
	}, options...)
	if c.owner != "" {
		all = append(all, lease.WithOwner(c.owner))
	}
	client, err := lease.New(store, all...)
	if err != nil {
		return nil, errors.Join(err, closeStore())
	}
	return &opened{Client: client, store: store, spec: spec, close: closeStore}, nil
}

// spec names the store: --store, or else the variable, which may have a password
// and is no default that --help would show.
func (c *cli) spec() string {
	if c.store != "" {
		return c.store
	}
	return os.Getenv(storeVariable)
}

// Close closes client and store.
func (o *opened) Close(ctx context.Context) error { return errors.Join(o.Client.Close(ctx), o.close()) }

// ownFile is the file of this user's locks, which it makes if it is not there, for
// this user alone.
func ownFile() (string, error) {
	folder := os.Getenv("XDG_STATE_HOME")
	if folder == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("no store: give --store, or set %s: %w", storeVariable, err)
		}
		folder = filepath.Join(home, ".local", "state")
	}
	path := filepath.Join(folder, "dynalock", "dynalock.db")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	return path, touch(path)
}

// touch makes a file for this user alone, unless it is there.
func touch(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

func openStore(ctx context.Context, spec string) (kv.Store, func() error, error) {
	scheme, rest, _ := strings.Cut(spec, ":")
	switch scheme {
	case "sqlite":
		return openSQLite(ctx, rest)
	case "dynamodb":
		return openDynamoDB(ctx, rest)
	case "postgres", "postgresql":
		return openPostgres(spec)
	}
	return nil, nil, usage(fmt.Errorf("store %q: want dynamodb:TABLE, postgres://USER@HOST/DATABASE or sqlite:PATH",
		scheme))
}

func openSQLite(ctx context.Context, path string) (kv.Store, func() error, error) {
	if path == "" {
		return nil, nil, usage(errors.New("store sqlite: want sqlite:PATH"))
	}
	if err := touch(path); err != nil {
		return nil, nil, err
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		return nil, nil, err
	}
	store, err := sqlkv.Open(ctx, db)
	if err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	return store, func() error { return errors.Join(store.Close(), db.Close()) }, nil
}

// dynamoDB is what a store of DynamoDB is called, taken apart. options are those of
// a Store.
func dynamoDB(ctx context.Context, rest string) (
	client *dynamodb.Client, table string, options []dynamokv.Option, err error,
) {
	table, query, _ := strings.Cut(rest, "?")
	values, err := url.ParseQuery(query)
	if err != nil || table == "" {
		return nil, "", nil,
			usage(errors.New("store dynamodb: want dynamodb:TABLE, and perhaps ?partition=P&shards=N&region=R&endpoint=URL"))
	}
	if options, err = storeOptions(values); err != nil {
		return nil, "", nil, err
	}
	// what it warns of comes as an error too
	loading := []func(*config.LoadOptions) error{config.WithLogger(logging.Nop{})}
	if region := values.Get("region"); region != "" {
		loading = append(loading, config.WithRegion(region))
	}
	settings, err := config.LoadDefaultConfig(ctx, loading...)
	if err != nil {
		return nil, "", nil, fmt.Errorf("AWS configuration: %w", err)
	}
	if settings.Region == "" {
		return nil, "", nil, usage(errors.New("no AWS Region: set AWS_REGION, or add ?region=R to the store"))
	}
	client = dynamodb.NewFromConfig(settings, func(o *dynamodb.Options) {
		if endpoint := values.Get("endpoint"); endpoint != "" {
			o.BaseEndpoint = &endpoint
		}
	})
	return client, table, options, nil
}

// storeOptions reads what the name of a store says of its partition.
func storeOptions(values url.Values) (options []dynamokv.Option, err error) {
	for name := range values {
		switch value := values.Get(name); name {
		case "region", "endpoint":
		case "partition":
			options = append(options, dynamokv.WithPartition(value))
		case "shards":
			n, err := strconv.Atoi(value)
			if err != nil {
				return nil, usage(fmt.Errorf("store dynamodb: shards=%s: want a number", value))
			}
			options = append(options, dynamokv.WithShards(n))
		default:
			return nil, usage(fmt.Errorf("store dynamodb: %q: want partition, shards, region or endpoint", name))
		}
	}
	return options, nil
}

func openDynamoDB(ctx context.Context, rest string) (kv.Store, func() error, error) {
	client, table, options, err := dynamoDB(ctx, rest)
	if err != nil {
		return nil, nil, err
	}
	store, err := dynamokv.New(client, table, options...)
	if err != nil {
		return nil, nil, usage(err)
	}
	return store, func() error { return nil }, nil
}

func openPostgres(dsn string) (kv.Store, func() error, error) {
	db, err := postgresDB(dsn)
	if err != nil {
		return nil, nil, err
	}
	store, err := pgkv.New(db)
	if err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	return store, func() error { return errors.Join(store.Close(), db.Close()) }, nil
}

// postgresDB is the database of a store, with a time limit for statements if the
// URL sets none.
func postgresDB(dsn string) (*sql.DB, error) {
	u, err := url.Parse(dsn)
	if err != nil {
		// err has the password
		return nil, usage(errors.New("store postgres: not a URL: give postgres://USER@HOST/DATABASE"))
	}
	const timeout = "statement_timeout"
	if query := u.Query(); !query.Has(timeout) {
		query.Set(timeout, "10s")
		u.RawQuery = query.Encode()
	}
	return sql.Open("pgx", u.String())
}
