package dynamokv_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/dynamokv"
)

// raw reads the item of key as it is in the table.
func (r *rig) raw(t *testing.T, key string) map[string]types.AttributeValue {
	t.Helper()
	out, err := newClient(r.endpoint, &wire{base: r.wire.base}).GetItem(t.Context(), &dynamodb.GetItemInput{
		TableName: aws.String(r.table), ConsistentRead: aws.Bool(true),
		Key: map[string]types.AttributeValue{"id": &types.AttributeValueMemberS{Value: r.partition},
			"name": &types.AttributeValueMemberS{Value: key}},
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
	// The first conflict of a Store that shows no row costs a read: does the
	// endpoint return rows at all?
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
