package dynamokv_test

import (
	"crypto/rand"
	"strconv"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/dynamolocal"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/dynamokv"
)

// raw reads the item of key as it is in the table.
func (r *rig) raw(t *testing.T, key string) map[string]types.AttributeValue {
	t.Helper()
	out, err := newClient(r.endpoint, &wire{base: r.wire.base}).GetItem(t.Context(), &dynamodb.GetItemInput{
		TableName: aws.String(r.table), ConsistentRead: aws.Bool(true),
		Key: map[string]types.AttributeValue{"id": &types.AttributeValueMemberS{Value: r.partition}, "name": &types.AttributeValueMemberS{Value: key}},
	})
	require.NoError(t, err)
	return out.Item
}

// sweepIn is how far in the future the row may be swept.
func sweepIn(t *testing.T, item map[string]types.AttributeValue) time.Duration {
	t.Helper()
	require.Contains(t, item, "expires")
	seconds, err := strconv.ParseInt(item["expires"].(*types.AttributeValueMemberN).Value, 10, 64)
	require.NoError(t, err)
	return time.Until(time.Unix(seconds, 0)).Round(time.Minute)
}

func TestWhenARowMayBeSwept(t *testing.T) {
	t.Parallel()
	s := newRig(t, dynamokv.WithRetention(2*time.Hour))
	ctx := t.Context()
	p, err := s.AtomicPut(ctx, "key", kv.WithTTL(time.Hour))
	require.NoError(t, err)
	require.Equal(t, 3*time.Hour, sweepIn(t, s.raw(t, "key")))
	p, err = s.AtomicPut(ctx, "key", kv.WithPrevious(p), kv.WithKeepTTL())
	require.NoError(t, err)
	require.Equal(t, 3*time.Hour, sweepIn(t, s.raw(t, "key")))
	p, err = s.AtomicPut(ctx, "key", kv.WithPrevious(p), kv.WithSweepAfter(7*24*time.Hour))
	require.NoError(t, err)
	require.Equal(t, 7*24*time.Hour, sweepIn(t, s.raw(t, "key")))
	require.NotContains(t, s.raw(t, "key"), "deadline")
	p, err = s.AtomicPut(ctx, "key", kv.WithPrevious(p))
	require.NoError(t, err)
	require.NotContains(t, s.raw(t, "key"), "expires")
	require.NoError(t, s.AtomicDelete(ctx, "key", p))
	require.Equal(t, 2*time.Hour, sweepIn(t, s.raw(t, "key")))
	require.NoError(t, s.Put(ctx, "key"))
	require.NotContains(t, s.raw(t, "key"), "expires")
	require.NotContains(t, s.raw(t, "key"), "deleted")
	require.NoError(t, s.Delete(ctx, "key"))
	require.Equal(t, 2*time.Hour, sweepIn(t, s.raw(t, "key")))
	require.NotContains(t, s.raw(t, "key"), "payload")
}

func TestFieldsOfADeadPairDoNotComeBack(t *testing.T) {
	t.Parallel()
	s := newRig(t)
	ctx := t.Context()
	for _, bury := range []func() error{
		func() error { return s.Delete(ctx, "key") },
		func() error {
			p, err := s.Get(ctx, "key")
			require.NoError(t, err)
			return s.AtomicDelete(ctx, "key", p)
		},
	} {
		for _, raise := range []func() error{
			func() error { return s.Put(ctx, "key", kv.WithFields(kv.Fields{"b": 1})) },
			func() error { return s.Put(ctx, "key", kv.WithFields(kv.Fields{"b": 1}), kv.WithKeepTTL()) },
			func() error {
				_, err := s.AtomicPut(ctx, "key", kv.WithFields(kv.Fields{"b": 1}))
				return err
			},
		} {
			require.NoError(t, s.Put(ctx, "key", kv.WithFields(kv.Fields{"a": 1})))
			require.NoError(t, bury())
			require.NoError(t, raise())
			p, err := s.Get(ctx, "key")
			require.NoError(t, err)
			require.Equal(t, kv.Fields{"b": int64(1)}, p.Fields)
		}
	}
}

func TestWhatAPutCosts(t *testing.T) {
	t.Parallel()
	s := newRig(t)
	costs := func(want int, write func() error) {
		t.Helper()
		s.wire.inject(nil)
		require.NoError(t, write())
		require.Equal(t, want, s.wire.requests())
	}
	put := func(options ...kv.WriteOption) func() error {
		return func() error { return s.Put(t.Context(), "key", options...) }
	}
	// The first conflict of a Store that shows no row costs a read: does the endpoint return rows at all?
	require.NoError(t, s.another(t).Put(t.Context(), "other"))
	_, err := s.AtomicPut(t.Context(), "other")
	require.ErrorIs(t, err, kv.ErrKeyExists)

	costs(2, put(kv.WithKeepTTL())) // no row yet
	costs(1, put(kv.WithKeepTTL()))
	costs(1, put())
	p, err := s.Get(t.Context(), "key")
	require.NoError(t, err)
	costs(1, func() error { return s.AtomicDelete(t.Context(), "key", p) })
	costs(1, put()) // over a bare tombstone
	costs(1, func() error { return s.Delete(t.Context(), "key") })
	costs(2, put()) // over one that may still have fields
}

func TestConditionCheckGuardsATransaction(t *testing.T) {
	t.Parallel()
	s := newRig(t)
	p, err := s.AtomicPut(t.Context(), "key", kv.WithFields(kv.Fields{"acq": "mine"}))
	require.NoError(t, err)
	client := newClient(s.endpoint, &wire{base: sharedTransport})
	transact := func(key, value string) error {
		check, err := s.ConditionCheck(kv.Condition{Key: key, Field: "acq", Value: value})
		require.NoError(t, err)
		_, err = client.TransactWriteItems(t.Context(), &dynamodb.TransactWriteItemsInput{TransactItems: []types.TransactWriteItem{check, {
			Put: &types.Put{TableName: aws.String(s.table), Item: map[string]types.AttributeValue{
				"id": &types.AttributeValueMemberS{Value: rand.Text()}, "name": &types.AttributeValueMemberS{Value: "data"},
			}},
		}}})
		return err
	}
	require.NoError(t, transact("key", "mine"))
	var canceled *types.TransactionCanceledException
	require.ErrorAs(t, transact("key", "theirs"), &canceled)
	require.ErrorAs(t, transact("other", "mine"), &canceled)
	require.NoError(t, s.AtomicDelete(t.Context(), "key", p))
	require.ErrorAs(t, transact("key", "mine"), &canceled)

	_, err = s.ConditionCheck(kv.Condition{Key: "key", Field: "version", Value: 1})
	require.ErrorIs(t, err, kv.ErrReservedField)
	_, err = s.ConditionCheck(kv.Condition{Key: "", Field: "acq", Value: 1})
	require.ErrorIs(t, err, kv.ErrInvalidKey)
}

func TestListingByIndexes(t *testing.T) {
	t.Parallel()
	endpoint := dynamolocal.Endpoint(t)
	client, table := newClient(endpoint, &wire{base: sharedTransport}), "indexed-"+rand.Text()
	createIndexed(t, client, table)
	open := func(partition string) *dynamokv.Store {
		s, err := dynamokv.New(client, table, dynamokv.WithPartition(partition))
		require.NoError(t, err)
		return s
	}
	s, other := open("a"), open("b")
	for i, key := range []string{"k1", "k2", "k3", "k4"} {
		fields := kv.WithFields(kv.Fields{"owner": "me", "rank": "r" + strconv.Itoa(9-i)})
		require.NoError(t, s.Put(t.Context(), key, fields))
		require.NoError(t, other.Put(t.Context(), "x"+key, fields))
	}
	require.NoError(t, s.Delete(t.Context(), "k2"))
	want := []string{"k4", "k3", "k1"}
	local := kv.WithLocalIndex("by-rank", "rank")
	global := kv.WithGlobalIndex("by-owner", "owner", "me", "rank")
	require.Equal(t, want, keysByPages(t, s, local))
	require.Equal(t, want, keysByPages(t, s, local, kv.WithoutValues()))
	require.Equal(t, want, keysByPages(t, s, global, kv.EventuallyConsistent()))
	require.Equal(t, []string{"k1", "k3", "k4"}, keysByPages(t, s, local, kv.Descending()))

	_, err := s.List(t.Context(), "r", global)
	require.ErrorIs(t, err, kv.ErrUnsupported)
	_, err = s.List(t.Context(), "r", kv.WithGlobalIndex("by-owner", "owner", "me", ""), kv.EventuallyConsistent())
	require.ErrorIs(t, err, kv.ErrInvalidOption)
}

// keysByPages lists the pairs whose index field begins with r, one to a page.
func keysByPages(t *testing.T, s kv.Store, options ...kv.ReadOption) []string {
	t.Helper()
	var keys []string
	for token := ""; ; {
		page, err := s.ListPage(t.Context(), "r", append(options, kv.WithLimit(1), kv.WithStartKey(token))...)
		require.NoError(t, err)
		for _, p := range page.Pairs {
			keys = append(keys, p.Key)
		}
		if token = page.Next; token == "" {
			return keys
		}
	}
}

func createIndexed(t *testing.T, client *dynamodb.Client, table string) {
	t.Helper()
	key := func(partition, sort string) []types.KeySchemaElement {
		return []types.KeySchemaElement{
			{AttributeName: aws.String(partition), KeyType: types.KeyTypeHash}, {AttributeName: aws.String(sort), KeyType: types.KeyTypeRange},
		}
	}
	all := &types.Projection{ProjectionType: types.ProjectionTypeAll}
	var attributes []types.AttributeDefinition
	for _, name := range []string{"id", "name", "rank", "owner"} {
		attributes = append(attributes, types.AttributeDefinition{AttributeName: aws.String(name), AttributeType: types.ScalarAttributeTypeS})
	}
	_, err := client.CreateTable(t.Context(), &dynamodb.CreateTableInput{
		TableName: aws.String(table), BillingMode: types.BillingModePayPerRequest, AttributeDefinitions: attributes, KeySchema: key("id", "name"),
		LocalSecondaryIndexes:  []types.LocalSecondaryIndex{{IndexName: aws.String("by-rank"), KeySchema: key("id", "rank"), Projection: all}},
		GlobalSecondaryIndexes: []types.GlobalSecondaryIndex{{IndexName: aws.String("by-owner"), KeySchema: key("owner", "rank"), Projection: all}},
	})
	require.NoError(t, err)
	require.NoError(t, dynamokv.EnsureTable(t.Context(), client, table))
}
