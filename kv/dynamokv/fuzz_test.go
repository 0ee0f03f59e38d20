package dynamokv_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/dynamokv"
)

// rowClient answers everything with one row: as found, or as what failed a condition.
type rowClient struct {
	row map[string]types.AttributeValue
}

func (c rowClient) GetItem(context.Context, *dynamodb.GetItemInput,
	...func(*dynamodb.Options)) (*dynamodb.GetItemOutput, error) {
	return &dynamodb.GetItemOutput{Item: c.row}, nil
}

func (c rowClient) PutItem(context.Context, *dynamodb.PutItemInput,
	...func(*dynamodb.Options)) (*dynamodb.PutItemOutput, error) {
	return nil, &types.ConditionalCheckFailedException{Item: c.row}
}

func (c rowClient) UpdateItem(context.Context, *dynamodb.UpdateItemInput,
	...func(*dynamodb.Options)) (*dynamodb.UpdateItemOutput, error) {
	return nil, &types.ConditionalCheckFailedException{Item: c.row}
}

func (c rowClient) Query(context.Context, *dynamodb.QueryInput,
	...func(*dynamodb.Options)) (*dynamodb.QueryOutput, error) {
	return &dynamodb.QueryOutput{Items: []map[string]types.AttributeValue{c.row}, Count: 1, ScannedCount: 1}, nil
}

// fuzzValue makes an attribute of any kind out of text; nil: the row has none.
func fuzzValue(kind byte, text string) types.AttributeValue {
	switch kind % 12 {
	case 0:
		return nil
	case 1:
		return &types.AttributeValueMemberS{Value: text}
	case 2:
		return &types.AttributeValueMemberB{Value: []byte(text)}
	case 3, 4, 5:
		return &types.AttributeValueMemberN{Value: text}
	case 6:
		return &types.AttributeValueMemberBOOL{Value: text != ""}
	case 7:
		return &types.AttributeValueMemberNULL{Value: true}
	case 8:
		return &types.AttributeValueMemberL{}
	case 9:
		return &types.AttributeValueMemberM{}
	case 10:
		return &types.AttributeValueMemberSS{Value: []string{text}}
	default:
		return &types.UnknownUnionMember{Tag: text}
	}
}

// FuzzRow requires that a row is read, or is an error that names it.
func FuzzRow(f *testing.F) {
	f.Add([]byte{3, 1, 1, 0, 0, 0, 1}, "7", "payload", "writer", "", "", "", "field")
	f.Add([]byte{3, 2, 1, 3, 3, 0, 3}, "7", "payload", "writer", "1", "1", "", "1e40")
	f.Add([]byte{3, 0, 1, 3, 3, 6, 0}, "18446744073709551614", "", "w", "0", "-1", "x", "")
	f.Add([]byte{3, 1, 1, 3, 3, 7, 8}, "1", "p", "w", "9223372036854775807", "1", "x", "NaN")
	f.Add([]byte{11, 11, 11, 11, 11, 11, 11}, "", "", "", "", "", "", "")
	f.Fuzz(func(t *testing.T, kinds []byte, version, payload, writer, deadline, expires, deleted, field string) {
		row := map[string]types.AttributeValue{"id": fuzzValue(1, "dynalock"), "name": fuzzValue(1, "key")}
		names := []string{"version", "payload", "writer", "deadline", "expires", "deleted", "field"}
		for i, text := range []string{version, payload, writer, deadline, expires, deleted, field} {
			if i < len(kinds) && kinds[i]%12 != 0 {
				row[names[i]] = fuzzValue(kinds[i], text)
			}
		}
		s, err := dynamokv.New(rowClient{row}, "table")
		require.NoError(t, err)
		dynamokv.SkipLayout(s)
		ctx := t.Context()
		p, err := s.Get(ctx, "key")
		dead := errors.Is(err, kv.ErrKeyNotFound)
		if err == nil {
			require.NotZero(t, p.Version)
			require.NotNil(t, p.Bytes())
		}
		requireFormat(t, err, kv.ErrKeyNotFound)
		_, err = s.Exists(ctx, "key")
		requireFormat(t, err)
		_, err = s.List(ctx, "")
		requireFormat(t, err)
		_, err = s.ListPage(ctx, "", kv.WithoutValues())
		requireFormat(t, err)
		fuzzCreate(t, s, dead)
		err = s.AtomicDelete(ctx, "key", kv.NewPair("key", 7, nil, time.Time{}, nil))
		require.Error(t, err)
		requireFormat(t, err, kv.ErrKeyModified)
	})
}

// fuzzCreate requires that a create, which always fails on the row, is refused
// only by a live pair. A dead row is tried over until the time is up.
func fuzzCreate(t *testing.T, s *dynamokv.Store, dead bool) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		_, err := s.AtomicPut(t.Context(), "key")
		require.Error(t, err)
		if dead && !errors.Is(err, kv.ErrFormat) {
			requireOnly(t, err, kv.ErrThrottled)
			return
		}
		requireFormat(t, err, kv.ErrKeyExists)
		if conflict, ok := errors.AsType[*kv.ConflictError](err); ok {
			require.NotNil(t, conflict.Current)
		}
	})
}

// requireFormat requires success, one of the other errors, or a FormatError that names the row.
func requireFormat(t *testing.T, err error, others ...error) {
	t.Helper()
	if err == nil || slices.ContainsFunc(others, func(other error) bool { return errors.Is(err, other) }) {
		return
	}
	requireOnly(t, err, kv.ErrFormat)
	var format *kv.FormatError
	require.ErrorAs(t, err, &format)
	require.Equal(t, "key", format.Key)
	require.NotEmpty(t, format.Problem)
}

// FuzzStartKey requires that a token is one of the listing's own, or refused
// before anything is sent.
func FuzzStartKey(f *testing.F) {
	server := newMem()
	for _, prefix := range []string{"", "a/"} {
		for _, options := range [][]kv.ReadOption{nil, {kv.Descending()}} {
			settings, err := kv.ListSettings(prefix, options)
			require.NoError(f, err)
			f.Add(prefix, kv.NewCursor(prefix, settings, "a/1").Token(), len(options) > 0)
		}
	}
	f.Add("b", kv.Cursor{Prefix: "b", Key: "a"}.Token(), false)
	f.Add("", "MQ", false)
	f.Add("", "!", true)
	f.Fuzz(func(t *testing.T, prefix, token string, descending bool) {
		s, client := memStore(t, server)
		options := []kv.ReadOption{kv.WithStartKey(token), kv.WithLimit(1)}
		if descending {
			options = append(options, kv.Descending())
		}
		page, err := s.ListPage(t.Context(), prefix, options...)
		if err == nil {
			require.Empty(t, page.Pairs)
			return
		}
		require.Zero(t, client.Requests(), "%v", err)
		require.True(t, errors.Is(err, kv.ErrInvalidOption) || errors.Is(err, kv.ErrInvalidKey), "%v", err)
	})
}

// FuzzKey requires that a key is refused before anything is sent, or works everywhere.
func FuzzKey(f *testing.F) {
	for _, key := range append(strings.Split("a,a/b,:v0,#n0,\x00,\xff,é", ","), "", strings.Repeat("k", kv.MaxKeySize+1)) {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		s, client := memStore(t, newMem())
		ctx := t.Context()
		first, err := s.AtomicPut(ctx, key, kv.WithString(key))
		if kv.CheckKey(key) != nil {
			require.ErrorIs(t, err, kv.ErrInvalidKey)
			require.ErrorIs(t, s.Delete(ctx, key), kv.ErrInvalidKey)
			_, err = s.Get(ctx, key)
			require.ErrorIs(t, err, kv.ErrInvalidKey)
			require.Zero(t, client.Requests())
			return
		}
		require.NoError(t, err)
		require.NoError(t, s.Put(ctx, key, kv.WithString(key)))
		p, err := s.Get(ctx, key)
		require.NoError(t, err)
		require.Equal(t, key, p.String())
		require.Equal(t, first.Version+1, p.Version)
		pairs, err := s.List(ctx, key)
		require.NoError(t, err)
		require.Len(t, pairs, 1)
		require.Equal(t, key, pairs[0].Key)
		require.NoError(t, s.AtomicDelete(ctx, key, p))
	})
}
