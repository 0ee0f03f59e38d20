package kv_test

import (
	"math"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
)

// FuzzKeys: a key is valid for every method or for none, and a pair is found
// under the key that it was written with, alone and below a prefix of its own.
func FuzzKeys(f *testing.F) {
	for _, key := range []string{"", "k", "a/b", "\x00", "ü", "\xff", "a\xc3", "\U0010ffff",
		strings.Repeat("k", kv.MaxKeySize), strings.Repeat("k", kv.MaxKeySize+1)} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		ctx := t.Context()
		valid := key != "" && len(key) <= kv.MaxKeySize && utf8.ValidString(key)
		err := kv.CheckKey(key)
		require.Equal(t, valid, err == nil)
		inner := memkv.New()
		for _, store := range []kv.Store{inner, kv.Prefixed(inner, "p/")} {
			err := store.Put(ctx, key)
			if !valid {
				require.ErrorIs(t, err, kv.ErrInvalidKey)
				continue
			}
			if err != nil { // with the prefix it is too long
				require.ErrorIs(t, err, kv.ErrInvalidKey)
				require.Greater(t, len("p/")+len(key), kv.MaxKeySize)
				continue
			}
			pair, err := store.Get(ctx, key)
			require.NoError(t, err)
			require.Equal(t, key, pair.Key)
			pairs, err := store.List(ctx, key)
			require.NoError(t, err)
			require.Equal(t, key, pairs[0].Key, "nothing with its prefix is before it")
		}
	})
}

// FuzzFields: fields that are taken are returned as they are documented to be,
// and survive being written as text.
func FuzzFields(f *testing.F) {
	f.Add("f", "text", []byte{0, 255}, int64(1), 0.5)
	f.Add("", "\xff", []byte(nil), int64(math.MinInt64), math.NaN())
	f.Add("id", "", []byte{}, int64(math.MaxInt64), math.Inf(1))
	f.Add("x", "", []byte{}, int64(1)<<53, 1e126)
	f.Add("x", "", []byte{}, int64(0), math.Copysign(0, -1))
	f.Add("x", "", []byte{}, int64(0), 1e-131)
	f.Add("x", "", []byte{}, int64(0), float64(1<<53))
	f.Fuzz(func(t *testing.T, name, text string, raw []byte, whole int64, float float64) {
		ctx := t.Context()
		store := memkv.New()
		for _, value := range []any{text, raw, whole, float} {
			err := store.Put(ctx, "k", kv.WithFields(kv.Fields{name: value}))
			if err != nil {
				continue
			}
			pair, err := store.Get(ctx, "k")
			require.NoError(t, err)
			switch got := pair.Fields[name].(type) {
			case string:
				require.Equal(t, text, got)
			case []byte:
				require.Equal(t, string(raw), string(got))
			case int64, float64:
				back, err := kv.ParseNumber(kv.FormatNumber(got))
				require.NoError(t, err)
				require.Equal(t, got, back)
				if n, ok := value.(float64); ok {
					text := kv.FormatNumber(got)
					parsed, err := strconv.ParseFloat(text, 64)
					require.NoError(t, err)
					if n != parsed {
						t.Fatalf("%g became %s", n, text)
					}
				}
			default:
				t.Fatalf("field of type %T", got)
			}
			require.NoError(t, store.Delete(ctx, "k"))
		}
	})
}

// FuzzNumbers: text is a number that survives, or an error.
func FuzzNumbers(f *testing.F) {
	for _, text := range []string{"0", "-0", "1e3", "9223372036854775808", "0x10", "1_0", "NaN", "Inf", "1e400", " 1",
		"9007199254740993.0"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		number, err := kv.ParseNumber(text)
		if err != nil {
			require.ErrorIs(t, err, kv.ErrFormat)
			return
		}
		if float, ok := number.(float64); ok && math.IsNaN(float) {
			return // no store holds one: WithFields refuses it
		}
		back, err := kv.ParseNumber(kv.FormatNumber(number))
		require.NoError(t, err)
		require.Equal(t, number, back)
	})
}

// FuzzTokens: a token is one of the listing that it is used for, or an
// ErrInvalidOption; it never panics and never loses its way.
func FuzzTokens(f *testing.F) {
	store := memkv.New()
	for _, key := range []string{"a", "b", "p/1", "p/2", "p/3"} {
		require.NoError(f, store.Put(f.Context(), key))
	}
	for _, prefix := range []string{"", "p/"} {
		page, err := store.ListPage(f.Context(), prefix, kv.WithLimit(1))
		require.NoError(f, err)
		f.Add(prefix, page.Next, false)
		f.Add(prefix, page.Next, true)
		f.Add("b", page.Next, false)
		f.Add(prefix, page.Next[:len(page.Next)-1], false)
	}
	f.Add("", "!", false)
	f.Add("", "MQ", false)
	f.Fuzz(func(t *testing.T, prefix, token string, descending bool) {
		options := []kv.ReadOption{kv.WithStartKey(token)}
		if descending {
			options = append(options, kv.Descending())
		}
		settings, err := kv.ListSettings(prefix, options)
		if err != nil {
			require.ErrorIs(t, err, kv.ErrInvalidKey)
			return
		}
		cursor, resumed, err := kv.ParseCursor(prefix, settings)
		page, listErr := store.ListPage(t.Context(), prefix, options...)
		if err != nil {
			require.ErrorIs(t, err, kv.ErrInvalidOption)
			require.ErrorIs(t, listErr, kv.ErrInvalidOption)
			return
		}
		require.NoError(t, listErr)
		require.Equal(t, token != "", resumed)
		for _, pair := range page.Pairs {
			require.True(t, strings.HasPrefix(pair.Key, prefix))
			if resumed && descending {
				require.Less(t, pair.Key, cursor.Key)
			} else if resumed {
				require.Greater(t, pair.Key, cursor.Key)
			}
		}
		if !resumed {
			return
		}
		require.Equal(t, prefix, cursor.Prefix)
		settings.StartKey = cursor.Token()
		again, _, err := kv.ParseCursor(prefix, settings)
		require.NoError(t, err)
		require.Equal(t, cursor, again)
	})
}
