package dynamokv

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
)

// ErrTableUnfit says that a table exists but cannot be used. Its keys are other ones, its
// time to live is that of another attribute, or it is a global table whose Regions are not
// strongly consistent. To CheckTable one is also unfit that is not active, or that has no
// time to live.
var ErrTableUnfit = errors.New("dynamokv: table does not fit")

// tablePoll is how often EnsureTable looks whether the table has become active.
const tablePoll = 500 * time.Millisecond

// TableClient is what EnsureTable needs of DynamoDB: *dynamodb.Client has it.
type TableClient interface {
	CreateTable(context.Context, *dynamodb.CreateTableInput,
		...func(*dynamodb.Options)) (*dynamodb.CreateTableOutput, error)
	DescribeTable(context.Context, *dynamodb.DescribeTableInput,
		...func(*dynamodb.Options)) (*dynamodb.DescribeTableOutput, error)
	UpdateTimeToLive(context.Context, *dynamodb.UpdateTimeToLiveInput,
		...func(*dynamodb.Options)) (*dynamodb.UpdateTimeToLiveOutput, error)
	DescribeTimeToLive(context.Context, *dynamodb.DescribeTimeToLiveInput,
		...func(*dynamodb.Options)) (*dynamodb.DescribeTimeToLiveOutput, error)
}

// EnsureTable makes sure that table exists, is active and fits: string keys of the names
// that WithKeyNames sets, time to live on "expires". A table that it creates is on demand,
// unless WithProvisionedCapacity is given.
//
// Many processes may call it at once. It costs two requests when there is nothing to do.
// Without a deadline in ctx it waits for as long as the table takes. An error that matches
// ErrTableUnfit says what is wrong with an existing table. Then nothing was changed.
func EnsureTable(ctx context.Context, client TableClient, table string, options ...Option) error {
	c, err := newConfig(table, options)
	if err != nil {
		return err
	}
	description, err := ensureExists(ctx, client, table, c)
	if err != nil {
		return fmt.Errorf("dynamokv: EnsureTable %q: %w", table, err)
	}
	if err := checkTable(description, c); err != nil {
		return fmt.Errorf("%w: table %q %w", ErrTableUnfit, table, err)
	}
	return ensureTimeToLive(ctx, client, table)
}

// CheckTable checks a table as EnsureTable does, and changes nothing. It says that the
// table's time to live is not enabled too: locks work without, but no deleted row ever goes.
// It costs two requests.
//
// Its errors match ErrTableNotFound, ErrTableUnfit, kv.ErrRefused where the credentials may
// not describe the table, or they are those of the client.
func CheckTable(ctx context.Context, client TableClient, table string, options ...Option) error {
	c, err := newConfig(table, options)
	if err != nil {
		return err
	}
	out, err := client.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: aws.String(table)})
	if err != nil {
		return checkFailed(table, err)
	}
	if err := checkTable(out.Table, c); err != nil {
		return fmt.Errorf("%w: table %q %w", ErrTableUnfit, table, err)
	}
	if ready, err := isReady(out.Table.TableStatus); !ready {
		return cmp.Or(err, fmt.Errorf("%w: table %q is %s", ErrTableUnfit, table, out.Table.TableStatus))
	}
	switch enabled, err := hasTimeToLive(ctx, client, table); {
	case errors.Is(err, ErrTableUnfit):
		return err
	case err != nil:
		return checkFailed(table, err)
	case !enabled:
		return fmt.Errorf("%w: table %q has no time to live, so what is deleted stays: enable it on %q, as EnsureTable does",
			ErrTableUnfit, table, attrExpires)
	}
	return nil
}

// checkFailed is the error of CheckTable where DynamoDB does not describe the table.
func checkFailed(table string, err error) error {
	var missing *types.ResourceNotFoundException
	switch {
	case errors.As(err, &missing):
		return &tableNotFoundError{table: table, err: err}
	case classify(err, written, true) == refused:
		return fmt.Errorf("dynamokv: CheckTable %q: %w: %s%w", table, kv.ErrRefused, remedy(err), err)
	}
	return fmt.Errorf("dynamokv: CheckTable %q: %w", table, err)
}

// ensureExists returns the description of the table once it is active.
func ensureExists(ctx context.Context, client TableClient, table string, c config) (*types.TableDescription, error) {
	created := false
	for {
		out, err := client.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: aws.String(table)})
		var missing *types.ResourceNotFoundException
		switch {
		case err == nil:
			if ready, err := isReady(out.Table.TableStatus); ready || err != nil {
				return out.Table, err
			}
		case !errors.As(err, &missing):
			return nil, err
		case !created: // afterwards, DescribeTable may lag behind
			if err := createTable(ctx, client, table, c); err != nil {
				return nil, err
			}
			created = true
			continue
		}
		if err := clock.Sleep(ctx, c.clock, tablePoll); err != nil {
			return nil, err
		}
	}
}

// isReady fails if waiting cannot make it so.
func isReady(status types.TableStatus) (bool, error) {
	switch status {
	case types.TableStatusActive, types.TableStatusUpdating:
		return true, nil
	case types.TableStatusCreating, types.TableStatusDeleting:
		return false, nil
	}
	return false, fmt.Errorf("%w: it is %s", ErrTableUnfit, status)
}

// createTable succeeds also if another process is creating the table.
func createTable(ctx context.Context, client TableClient, table string, c config) error {
	in := &dynamodb.CreateTableInput{
		TableName:   aws.String(table),
		BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{
			{AttributeName: aws.String(c.idName), AttributeType: types.ScalarAttributeTypeS},
			{AttributeName: aws.String(c.nameName), AttributeType: types.ScalarAttributeTypeS},
		},
		KeySchema: []types.KeySchemaElement{
			{AttributeName: aws.String(c.idName), KeyType: types.KeyTypeHash},
			{AttributeName: aws.String(c.nameName), KeyType: types.KeyTypeRange},
		},
	}
	if c.readUnits > 0 {
		in.BillingMode = types.BillingModeProvisioned
		in.ProvisionedThroughput = &types.ProvisionedThroughput{
			ReadCapacityUnits: aws.Int64(c.readUnits), WriteCapacityUnits: aws.Int64(c.writeUnits),
		}
	}
	_, err := client.CreateTable(ctx, in)
	var exists *types.ResourceInUseException
	if errors.As(err, &exists) {
		return nil
	}
	return err
}

// checkTable says what is wrong with a table that exists.
func checkTable(t *types.TableDescription, c config) error {
	kinds := map[string]types.ScalarAttributeType{}
	for _, a := range t.AttributeDefinitions {
		kinds[aws.ToString(a.AttributeName)] = a.AttributeType
	}
	want := map[types.KeyType]string{types.KeyTypeHash: c.idName, types.KeyTypeRange: c.nameName}
	for _, key := range t.KeySchema {
		name := aws.ToString(key.AttributeName)
		if name != want[key.KeyType] {
			return fmt.Errorf("has %s key %q, want %q: see WithKeyNames", key.KeyType, name, want[key.KeyType])
		}
		if kinds[name] != types.ScalarAttributeTypeS {
			return fmt.Errorf("has key %q of type %s, want S", name, kinds[name])
		}
	}
	if len(t.KeySchema) != len(want) {
		return fmt.Errorf("has no sort key, want %q", c.nameName)
	}
	if global := len(t.Replicas) > 0 || aws.ToString(t.GlobalTableVersion) != ""; global &&
		t.MultiRegionConsistency != types.MultiRegionConsistencyStrong {
		return errors.New("is a global table whose Regions are eventually consistent: two Regions could hold one lock; " +
			"make it strongly consistent, or use a table of one Region")
	}
	return nil
}

// ensureTimeToLive lets DynamoDB sweep by attrExpires.
func ensureTimeToLive(ctx context.Context, client TableClient, table string) error {
	enabled, err := hasTimeToLive(ctx, client, table)
	if enabled || err != nil {
		return err
	}
	_, err = client.UpdateTimeToLive(ctx, &dynamodb.UpdateTimeToLiveInput{
		TableName: aws.String(table),
		TimeToLiveSpecification: &types.TimeToLiveSpecification{
			AttributeName: aws.String(attrExpires), Enabled: aws.Bool(true),
		},
	})
	if err == nil {
		return nil
	}
	// Another process may have been faster, which DynamoDB refuses as it does a wrong request.
	if enabled, _ := hasTimeToLive(ctx, client, table); enabled {
		return nil
	}
	return fmt.Errorf("dynamokv: EnsureTable %q: time to live: %w", table, err)
}

func hasTimeToLive(ctx context.Context, client TableClient, table string) (bool, error) {
	out, err := client.DescribeTimeToLive(ctx, &dynamodb.DescribeTimeToLiveInput{TableName: aws.String(table)})
	if err != nil {
		return false, fmt.Errorf("dynamokv: table %q: time to live: %w", table, err)
	}
	ttl := out.TimeToLiveDescription
	if ttl == nil || (ttl.TimeToLiveStatus != types.TimeToLiveStatusEnabled &&
		ttl.TimeToLiveStatus != types.TimeToLiveStatusEnabling) {
		return false, nil
	}
	if name := aws.ToString(ttl.AttributeName); name != attrExpires {
		return false, fmt.Errorf("%w: table %q has its time to live on %q, want %q", ErrTableUnfit, table, name, attrExpires)
	}
	return true, nil
}
