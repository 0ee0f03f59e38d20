package dynamokv_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/dynalock/dynalock/internal/dynamolocal"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/dynamokv"
)

func TestEnsureTableByManyAtOnce(t *testing.T) {
	t.Parallel()
	client := newClient(dynamolocal.Endpoint(t), &wire{base: sharedTransport})
	table := "ensured-" + rand.Text()
	names := dynamokv.WithKeyNames("pk", "sk")
	g, ctx := errgroup.WithContext(t.Context())
	for range 4 {
		g.Go(func() error { return dynamokv.EnsureTable(ctx, client, table, names) })
	}
	require.NoError(t, g.Wait())
	ttl, err := client.DescribeTimeToLive(t.Context(), &dynamodb.DescribeTimeToLiveInput{TableName: aws.String(table)})
	require.NoError(t, err)
	require.Equal(t, "expires", aws.ToString(ttl.TimeToLiveDescription.AttributeName))

	s, err := dynamokv.New(client, table, names)
	require.NoError(t, err)
	_, err = s.AtomicPut(t.Context(), "key", kv.WithFields(kv.Fields{"owner": "me"}))
	require.NoError(t, err)
	p, err := s.Get(t.Context(), "key")
	require.NoError(t, err)
	require.Equal(t, kv.Fields{"owner": "me"}, p.Fields)
	require.ErrorIs(t, s.Put(t.Context(), "key", kv.WithFields(kv.Fields{"pk": "x"})), kv.ErrReservedField)

	require.ErrorIs(t, dynamokv.EnsureTable(t.Context(), client, table), dynamokv.ErrTableUnfit, "other key names")
}

func TestAMissingTable(t *testing.T) {
	t.Parallel()
	client := newClient(dynamolocal.Endpoint(t), &wire{base: sharedTransport})
	s, err := dynamokv.New(client, "missing-"+rand.Text())
	require.NoError(t, err)
	_, err = s.Get(t.Context(), "key")
	require.ErrorIs(t, err, dynamokv.ErrTableNotFound)
	require.ErrorContains(t, err, "create it with EnsureTable")
	_, err = s.List(t.Context(), "")
	require.ErrorIs(t, err, dynamokv.ErrTableNotFound)
	require.ErrorIs(t, s.Put(t.Context(), "key"), dynamokv.ErrTableNotFound)
	require.ErrorIs(t, s.Delete(t.Context(), "key"), dynamokv.ErrTableNotFound)
}

// describedTable is a table of which DescribeTable says this. Nothing else may
// be called on it but DescribeTimeToLive.
type describedTable struct {
	dynamokv.TableClient
	description types.TableDescription
	ttl         string
}

func (d *describedTable) DescribeTable(context.Context, *dynamodb.DescribeTableInput,
	...func(*dynamodb.Options)) (*dynamodb.DescribeTableOutput, error) {
	return &dynamodb.DescribeTableOutput{Table: &d.description}, nil
}

func (d *describedTable) DescribeTimeToLive(context.Context, *dynamodb.DescribeTimeToLiveInput,
	...func(*dynamodb.Options)) (*dynamodb.DescribeTimeToLiveOutput, error) {
	return &dynamodb.DescribeTimeToLiveOutput{TimeToLiveDescription: &types.TimeToLiveDescription{
		AttributeName: aws.String(d.ttl), TimeToLiveStatus: types.TimeToLiveStatusEnabled,
	}}, nil
}

func TestTablesThatDoNotFit(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(d *describedTable)
		want   string // "": fits
	}{
		"a fitting one": {func(*describedTable) {}, ""},
		"no sort key":   {func(d *describedTable) { d.description.KeySchema = d.description.KeySchema[:1] }, "no sort key"},
		"other key": {func(d *describedTable) { d.description.KeySchema[1].AttributeName = aws.String("sk") },
			`want "name"`},
		"other key type": {func(d *describedTable) {
			d.description.AttributeDefinitions[1].AttributeType = types.ScalarAttributeTypeN
		}, "of type N"},
		"archived":  {func(d *describedTable) { d.description.TableStatus = types.TableStatusArchived }, "it is ARCHIVED"},
		"updating":  {func(d *describedTable) { d.description.TableStatus = types.TableStatusUpdating }, ""},
		"other ttl": {func(d *describedTable) { d.ttl = "ttl" }, `time to live on "ttl"`},
		"global, eventually consistent": {func(d *describedTable) {
			d.description.Replicas = []types.ReplicaDescription{{RegionName: aws.String("eu-west-1")}}
		}, "eventually consistent"},
		"global, of the old kind": {func(d *describedTable) { d.description.GlobalTableVersion = aws.String("2017.11.29") },
			"eventually consistent"},
		"global, strongly consistent": {func(d *describedTable) {
			d.description.Replicas = []types.ReplicaDescription{{RegionName: aws.String("eu-west-1")}}
			d.description.MultiRegionConsistency = types.MultiRegionConsistencyStrong
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := &describedTable{ttl: "expires", description: types.TableDescription{
				TableStatus: types.TableStatusActive,
				AttributeDefinitions: []types.AttributeDefinition{
					{AttributeName: aws.String("id"), AttributeType: types.ScalarAttributeTypeS},
					{AttributeName: aws.String("name"), AttributeType: types.ScalarAttributeTypeS},
				},
				KeySchema: []types.KeySchemaElement{
					{AttributeName: aws.String("id"), KeyType: types.KeyTypeHash},
					{AttributeName: aws.String("name"), KeyType: types.KeyTypeRange},
				},
			}}
			c.change(d)
			for _, err := range []error{
				dynamokv.EnsureTable(t.Context(), d, "table"), dynamokv.CheckTable(t.Context(), d, "table"),
			} {
				if c.want == "" {
					require.NoError(t, err)
					continue
				}
				require.ErrorIs(t, err, dynamokv.ErrTableUnfit)
				require.ErrorContains(t, err, c.want)
			}
		})
	}
}

func TestCheckTableChangesNothing(t *testing.T) {
	t.Parallel()
	client := newClient(dynamolocal.Endpoint(t), &wire{base: sharedTransport})
	table := "checked-" + rand.Text()
	require.ErrorIs(t, dynamokv.CheckTable(t.Context(), client, table), dynamokv.ErrTableNotFound)
	require.ErrorIs(t, dynamokv.CheckTable(t.Context(), client, ""), kv.ErrInvalidOption)

	_, err := client.CreateTable(t.Context(), &dynamodb.CreateTableInput{
		TableName: aws.String(table), BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{
			{AttributeName: aws.String("id"), AttributeType: types.ScalarAttributeTypeS},
			{AttributeName: aws.String("name"), AttributeType: types.ScalarAttributeTypeS},
		},
		KeySchema: []types.KeySchemaElement{
			{AttributeName: aws.String("id"), KeyType: types.KeyTypeHash},
			{AttributeName: aws.String("name"), KeyType: types.KeyTypeRange},
		},
	})
	require.NoError(t, err)
	for range 2 {
		err = dynamokv.CheckTable(t.Context(), client, table)
		require.ErrorIs(t, err, dynamokv.ErrTableUnfit)
		require.ErrorContains(t, err, `no time to live, so what is deleted stays: enable it on "expires"`)
	}
	require.NoError(t, dynamokv.EnsureTable(t.Context(), client, table))
	require.NoError(t, dynamokv.CheckTable(t.Context(), client, table))
}

// someTable is what DescribeTable answers of a table that fits, with its status.
const someTable = `{"Table":{"TableStatus":%q,
	"AttributeDefinitions":[{"AttributeName":"id","AttributeType":"S"},{"AttributeName":"name","AttributeType":"S"}],
	"KeySchema":[{"AttributeName":"id","KeyType":"HASH"},{"AttributeName":"name","KeyType":"RANGE"}]}}`

func TestCheckTableTellsWhyItCannot(t *testing.T) {
	t.Parallel()
	for _, operation := range []string{"DescribeTable", "DescribeTimeToLive"} {
		client := newClient("http://memory.invalid", &wire{
			fault: func(_ int, r *http.Request, _ next) (*http.Response, error) {
				if strings.HasSuffix(r.Header.Get("X-Amz-Target"), "."+operation) {
					return awsError(r, 400, "AccessDeniedException", "not authorized"), nil
				}
				return answer(r, 200, fmt.Sprintf(someTable, "ACTIVE")), nil
			},
		})
		err := dynamokv.CheckTable(t.Context(), client, "table")
		require.ErrorIs(t, err, kv.ErrRefused, operation)
		require.ErrorContains(t, err, "lack a permission")
		require.NotErrorIs(t, err, dynamokv.ErrTableUnfit)
	}
}

func TestCheckTableDoesNotWait(t *testing.T) {
	t.Parallel()
	client := newClient("http://memory.invalid", &wire{fault: func(_ int, r *http.Request, _ next) (*http.Response, error) {
		return answer(r, 200, fmt.Sprintf(someTable, "CREATING")), nil
	}})
	err := dynamokv.CheckTable(t.Context(), client, "table")
	require.ErrorIs(t, err, dynamokv.ErrTableUnfit)
	require.ErrorContains(t, err, "is CREATING")
}

// slowTable is a table that takes its time: to be created, and to be shown.
type slowTable struct {
	dynamokv.TableClient
	statuses []types.TableStatus // of the next DescribeTables, "": there is none
	looks    int
	created  *dynamodb.CreateTableInput
	ttl      *dynamodb.UpdateTimeToLiveInput
}

func (s *slowTable) DescribeTable(context.Context, *dynamodb.DescribeTableInput,
	...func(*dynamodb.Options)) (*dynamodb.DescribeTableOutput, error) {
	status := s.statuses[min(s.looks, len(s.statuses)-1)]
	s.looks++
	if status == "" {
		return nil, &types.ResourceNotFoundException{}
	}
	return &dynamodb.DescribeTableOutput{Table: &types.TableDescription{
		TableStatus: status, KeySchema: s.created.KeySchema, AttributeDefinitions: s.created.AttributeDefinitions,
	}}, nil
}

func (s *slowTable) CreateTable(_ context.Context, in *dynamodb.CreateTableInput,
	_ ...func(*dynamodb.Options)) (*dynamodb.CreateTableOutput, error) {
	s.created = in
	return &dynamodb.CreateTableOutput{}, nil
}

func (s *slowTable) DescribeTimeToLive(context.Context, *dynamodb.DescribeTimeToLiveInput,
	...func(*dynamodb.Options)) (*dynamodb.DescribeTimeToLiveOutput, error) {
	return &dynamodb.DescribeTimeToLiveOutput{TimeToLiveDescription: &types.TimeToLiveDescription{TimeToLiveStatus: types.TimeToLiveStatusDisabled}}, nil
}

func (s *slowTable) UpdateTimeToLive(_ context.Context, in *dynamodb.UpdateTimeToLiveInput,
	_ ...func(*dynamodb.Options)) (*dynamodb.UpdateTimeToLiveOutput, error) {
	s.ttl = in
	return &dynamodb.UpdateTimeToLiveOutput{}, nil
}

func TestEnsureTableWaitsUntilTheTableIsActive(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &slowTable{statuses: []types.TableStatus{"", "", types.TableStatusCreating, types.TableStatusCreating,
			types.TableStatusActive}}
		start := time.Now()
		require.NoError(t, dynamokv.EnsureTable(t.Context(), s, "table"))
		require.Equal(t, 5, s.looks)
		require.Equal(t, 1500*time.Millisecond, time.Since(start))
		require.Equal(t, types.BillingModePayPerRequest, s.created.BillingMode)
		require.Nil(t, s.created.ProvisionedThroughput)
		require.Equal(t, "expires", aws.ToString(s.ttl.TimeToLiveSpecification.AttributeName))
		require.True(t, aws.ToBool(s.ttl.TimeToLiveSpecification.Enabled))
	})
	synctest.Test(t, func(t *testing.T) {
		s := &slowTable{statuses: []types.TableStatus{"", types.TableStatusCreating}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.ErrorIs(t, dynamokv.EnsureTable(ctx, s, "table"), context.DeadlineExceeded)
		require.Nil(t, s.ttl)
	})
}

func TestATableOfProvisionedCapacity(t *testing.T) {
	t.Parallel()
	client := newClient(dynamolocal.Endpoint(t), &wire{base: sharedTransport})
	table := "provisioned-" + rand.Text()
	require.NoError(t, dynamokv.EnsureTable(t.Context(), client, table, dynamokv.WithProvisionedCapacity(7, 3)))
	out, err := client.DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: aws.String(table)})
	require.NoError(t, err)
	require.Equal(t, int64(7), aws.ToInt64(out.Table.ProvisionedThroughput.ReadCapacityUnits))
	require.Equal(t, int64(3), aws.ToInt64(out.Table.ProvisionedThroughput.WriteCapacityUnits))
	require.NoError(t, dynamokv.EnsureTable(t.Context(), client, table), "a table of other capacity fits")

	for _, units := range [][2]int64{{0, 1}, {1, 0}, {-1, 1}} {
		err := dynamokv.EnsureTable(t.Context(), client, table, dynamokv.WithProvisionedCapacity(units[0], units[1]))
		require.ErrorIs(t, err, kv.ErrInvalidOption)
	}
}

func TestWhatKeyNamesAreAllowed(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("n", 255)
	_, err := dynamokv.New(newMem().Client(), "table", dynamokv.WithKeyNames(long, "sk"))
	require.NoError(t, err)
	for _, names := range [][2]string{
		{"", "sk"}, {"pk", ""}, {"pk", "pk"}, {"pk", "version"}, {"payload", "sk"}, {long + "n", "sk"}, {"pk", long + "n"},
	} {
		_, err := dynamokv.New(newMem().Client(), "table", dynamokv.WithKeyNames(names[0], names[1]))
		require.ErrorIs(t, err, kv.ErrInvalidOption, "%q", names)
	}
}
