package stores

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/smithy-go/logging"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/dynamokv"
)

const (
	credentialsTimeout = 2 * time.Second
	// probeTimeout is short, since it is the answer to a mistake. Whoever lets
	// a table be created has patience, and then a slow store is no mistake.
	probeTimeout       = 2500 * time.Millisecond
	createTimeout      = 2 * time.Minute
	createProbeTimeout = time.Minute
)

// openDynamoDB checks Region, credentials and table, in this order, so that
// what is missing is said before any work begins.
func openDynamoDB(ctx context.Context, rest string, create bool) (kv.Store, func() error, error) {
	table, options, err := tableOf(rest)
	if err != nil {
		return nil, nil, err
	}
	client, err := dynamoClient(ctx)
	if err != nil {
		return nil, nil, err
	}
	patience := probeTimeout
	if create {
		patience = createProbeTimeout
		if err := createTable(ctx, client, table); err != nil {
			return nil, nil, err
		}
	}
	store, err := dynamokv.New(client, table, options...)
	if err != nil {
		return nil, nil, fmt.Errorf("store dynamodb:%s: %w", table, err)
	}
	if err := probe(ctx, store, table, patience); err != nil {
		return nil, nil, err
	}
	return store, func() error { return nil }, nil
}

// tableOf takes TABLE?shards=N apart.
func tableOf(rest string) (table string, options []dynamokv.Option, err error) {
	table, query, found := strings.Cut(rest, "?")
	if !found {
		return table, nil, nil
	}
	shards, err := strconv.Atoi(strings.TrimPrefix(query, "shards="))
	if err != nil {
		return "", nil, fmt.Errorf("store dynamodb:%s: want dynamodb:TABLE or dynamodb:TABLE?shards=N", rest)
	}
	return table, []dynamokv.Option{dynamokv.WithShards(shards)}, nil
}

// dynamoClient returns a client of the standard configuration, having seen that
// there are a Region and credentials.
func dynamoClient(ctx context.Context) (*dynamodb.Client, error) {
	ctx, cancel := clock.System.WithTimeout(ctx, credentialsTimeout)
	defer cancel()
	// what it warns of comes as an error too
	settings, err := config.LoadDefaultConfig(ctx, config.WithLogger(logging.Nop{}))
	if err != nil {
		return nil, fmt.Errorf("AWS configuration (check AWS_PROFILE and ~/.aws/config): %w", err)
	}
	if settings.Region == "" {
		return nil, errors.New("no AWS Region: set AWS_REGION, or region in the profile that AWS_PROFILE names")
	}
	if _, err := settings.Credentials.Retrieve(ctx); err != nil {
		return nil, fmt.Errorf("no AWS credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and "+
			"AWS_SECRET_ACCESS_KEY, or sign in with aws sso login: %w", err)
	}
	return dynamodb.NewFromConfig(settings), nil
}

func createTable(ctx context.Context, client *dynamodb.Client, table string) error {
	ctx, cancel := clock.System.WithTimeout(ctx, createTimeout)
	defer cancel()
	if err := dynamokv.EnsureTable(ctx, client, table); err != nil {
		return fmt.Errorf("creating table %s (check Region, endpoint and permissions): %w", table, err)
	}
	return nil
}

// probe reads one key, to see that the table is there and may be read.
func probe(ctx context.Context, store kv.Store, table string, patience time.Duration) error {
	ctx, cancel := clock.System.WithTimeout(ctx, patience)
	defer cancel()
	_, err := store.Exists(ctx, "probe", kv.WithAttemptTimeout(time.Second))
	switch {
	case errors.Is(err, dynamokv.ErrTableNotFound):
		return fmt.Errorf("there is no DynamoDB table %s in this Region: check the name and AWS_REGION, or add -create-table",
			table)
	case err != nil:
		return fmt.Errorf("DynamoDB table %s cannot be read (check Region, AWS_ENDPOINT_URL_DYNAMODB and permissions): %w",
			table, err)
	}
	return nil
}
