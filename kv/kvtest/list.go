package kvtest

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
)

var listScenarios = []scenario{
	{"PrefixAndOrder", testListPrefixAndOrder},
	{"EmptyPrefix", testListEmptyPrefix},
	{"NothingIsNoError", testListNothing},
	{"PairsAreWhole", testListPairsAreWhole},
	{"Limit", testListLimit},
	{"Descending", testListDescending},
	{"WithoutValues", testListWithoutValues},
	{"PagesOfEverySize", testPagesOfEverySize},
	{"TokenGoesOnBehindADeletedPair", testTokenBehindADeletedPair},
	{"ListFromAToken", testListFromAToken},
	{"StartAfterAKey", testListStartAfterAKey},
	{"MoreThanAPage", testListMoreThanAPage},
	{"UnderWrites", testListUnderWrites},
	{"DeletedPairsAreHidden", testListHidesDeleted},
}

// fill writes pairs whose values are their names, and returns their keys in order.
func (e *env) fill(t *testing.T, names ...string) []string {
	t.Helper()
	keys := make([]string, 0, len(names))
	for _, name := range names {
		e.put(t, name, kv.WithString(name))
		keys = append(keys, e.key(name))
	}
	slices.Sort(keys)
	return keys
}

// pagesOf returns what all pages hold together, and requires that none holds more than limit says.
func pagesOf(t *testing.T, e *env, store kv.Store, prefix string, options ...kv.ReadOption) []*kv.KVPair {
	t.Helper()
	settings, err := kv.ListSettings(prefix, options)
	require.NoError(t, err)
	var pairs []*kv.KVPair
	token := ""
	for range maxPages {
		page, err := store.ListPage(e.ctx, prefix, append(options[:len(options):len(options)], kv.WithStartKey(token))...)
		require.NoError(t, err)
		if settings.Limit > 0 {
			require.LessOrEqual(t, len(page.Pairs), settings.Limit)
		}
		pairs = append(pairs, page.Pairs...)
		if page.Next == "" {
			return pairs
		}
		require.NotEqual(t, token, page.Next, "the listing does not move on")
		token = page.Next
	}
	require.FailNow(t, "the listing does not end")
	return nil
}

func testListPrefixAndOrder(t *testing.T, e *env) {
	e.fill(t, "b", "a/b/c", "a", "ab", "a/", "a/b/", "a0", "a/b", "a.", "B", "a/😀", "a/\uffff")
	for prefix, want := range map[string][]string{
		"a/":   {"a/", "a/b", "a/b/", "a/b/c", "a/\uffff", "a/😀"},
		"a":    {"a", "a.", "a/", "a/b", "a/b/", "a/b/c", "a/\uffff", "a/😀", "a0", "ab"},
		"a/b/": {"a/b/", "a/b/c"},
		"b":    {"b"},
		"":     {"B", "a", "a.", "a/", "a/b", "a/b/", "a/b/c", "a/\uffff", "a/😀", "a0", "ab", "b"},
	} {
		for i := range want {
			want[i] = e.key(want[i])
		}
		pairs, err := e.other.List(e.ctx, e.key(prefix))
		require.NoError(t, err)
		require.Equal(t, want, keysOf(pairs), "prefix %q", prefix)
		require.Equal(t, want, keysOf(pagesOf(t, e, e.other, e.key(prefix))), "prefix %q", prefix)
	}
}

func testListEmptyPrefix(t *testing.T, e *env) {
	want := e.fill(t, "a", "b", "c")
	pairs, err := e.other.List(e.ctx, "")
	require.NoError(t, err)
	got := keysOf(pairs)
	require.True(t, slices.IsSorted(got))
	got = slices.DeleteFunc(got, func(key string) bool { return !strings.HasPrefix(key, e.prefix) })
	require.Equal(t, want, got)
}

func testListNothing(t *testing.T, e *env) {
	e.fill(t, "a")
	pairs, err := e.store.List(e.ctx, e.key("nothing"))
	require.NoError(t, err)
	require.Empty(t, pairs)
	page, err := e.store.ListPage(e.ctx, e.key("nothing"), kv.WithLimit(1))
	require.NoError(t, err)
	require.Empty(t, page.Pairs)
	require.Empty(t, page.Next)
}

func testListPairsAreWhole(t *testing.T, e *env) {
	e.put(t, "plain", kv.WithString("v"))
	e.put(t, "whole", kv.WithString("w"), kv.WithTTL(long), kv.WithFields(kv.Fields{"n": 1}))
	pairs, err := e.other.List(e.ctx, e.prefix)
	require.NoError(t, err)
	require.Len(t, pairs, 2)
	samePair(t, e.get(t, "plain"), pairs[0])
	samePair(t, e.get(t, "whole"), pairs[1])
}

func testListLimit(t *testing.T, e *env) {
	keys := e.fill(t, "1", "2", "3", "4", "5")
	for n := 1; n <= 7; n++ {
		pairs, err := e.other.List(e.ctx, e.prefix, kv.WithLimit(n))
		require.NoError(t, err)
		require.Equal(t, keys[:min(n, 5)], keysOf(pairs))
	}
}

func testListDescending(t *testing.T, e *env) {
	keys := e.fill(t, "1", "2", "3", "4", "5")
	slices.Reverse(keys)
	pairs, err := e.other.List(e.ctx, e.prefix, kv.Descending())
	require.NoError(t, err)
	require.Equal(t, keys, keysOf(pairs))
	pairs, err = e.other.List(e.ctx, e.prefix, kv.Descending(), kv.WithLimit(2))
	require.NoError(t, err)
	require.Equal(t, keys[:2], keysOf(pairs))
}

func testListWithoutValues(t *testing.T, e *env) {
	e.put(t, "k", kv.WithString("v"), kv.WithTTL(long), kv.WithFields(kv.Fields{"n": 1}))
	pairs, err := e.other.List(e.ctx, e.prefix, kv.WithoutValues())
	require.NoError(t, err)
	require.Len(t, pairs, 1)
	whole := e.get(t, "k")
	samePair(t, kv.NewPair(whole.Key, whole.Version, nil, whole.Expires, nil), pairs[0])
}

func testPagesOfEverySize(t *testing.T, e *env) {
	keys := e.fill(t, "1", "2", "3", "4", "5", "6", "7")
	e.fill(t, "8sibling")
	e.put(t, "0sibling")
	for n := 1; n <= 10; n++ {
		pairs := pagesOf(t, e, e.other, e.prefix, kv.WithLimit(n))
		require.Len(t, pairs, len(keys)+2, "pages of %d", n)
		require.Equal(t, keys, keysOf(pairs)[1:8], "pages of %d", n)
		for _, pair := range pairs[1:] {
			require.Equal(t, strings.TrimPrefix(pair.Key, e.prefix), pair.String())
		}
		down := keysOf(pagesOf(t, e, e.store, e.prefix, kv.WithLimit(n), kv.Descending()))
		slices.Reverse(down)
		require.Equal(t, keysOf(pairs), down, "descending pages of %d", n)
	}
}

func testTokenBehindADeletedPair(t *testing.T, e *env) {
	keys := e.fill(t, "1", "2", "3", "4")
	page, err := e.store.ListPage(e.ctx, e.prefix, kv.WithLimit(2))
	require.NoError(t, err)
	require.Equal(t, keys[:2], keysOf(page.Pairs))
	require.NoError(t, e.store.Delete(e.ctx, keys[1]))
	require.NoError(t, e.store.Delete(e.ctx, keys[2]))
	remaining, err := e.other.List(e.ctx, e.prefix, kv.WithStartKey(page.Next), kv.WithLimit(9))
	require.NoError(t, err)
	require.Equal(t, keys[3:], keysOf(remaining), "the token works on another handle, whatever became of its pair")
}

func testListFromAToken(t *testing.T, e *env) {
	keys := e.fill(t, "1", "2", "3", "4")
	for _, options := range [][]kv.ReadOption{nil, {kv.Descending()}, {kv.WithoutValues()}} {
		whole, err := e.store.List(e.ctx, e.prefix, options...)
		require.NoError(t, err)
		require.Len(t, whole, len(keys))
		page, err := e.store.ListPage(e.ctx, e.prefix, append(options, kv.WithLimit(1))...)
		require.NoError(t, err)
		remaining, err := e.other.List(e.ctx, e.prefix, append(options, kv.WithStartKey(page.Next))...)
		require.NoError(t, err)
		require.Equal(t, keysOf(whole), append(keysOf(page.Pairs), keysOf(remaining)...))
	}
}

// A listing goes on behind a key, whether or not it is there, on every page.
func testListStartAfterAKey(t *testing.T, e *env) {
	keys := e.fill(t, "1", "2", "3", "5", "6")
	for after, want := range map[string][]string{
		"0": keys, "1": keys[1:], "3": keys[3:], "4": keys[3:], "4\U0010ffff": keys[3:], "6": {}, "9": {},
	} {
		option := kv.WithStartAfter(e.key(after))
		pairs, err := e.other.List(e.ctx, e.prefix, option)
		require.NoError(t, err)
		require.ElementsMatch(t, want, keysOf(pairs), "after %q", after)
		for n := 1; n <= 3; n++ {
			require.ElementsMatch(t, want, keysOf(pagesOf(t, e, e.store, e.prefix, option, kv.WithLimit(n))), "after %q", after)
		}
		down, err := e.other.List(e.ctx, e.prefix, kv.WithStartAfter(e.key(after)), kv.Descending())
		require.NoError(t, err)
		require.LessOrEqual(t, len(down)+len(want), len(keys), "the other way the key itself is left out, too")
		for _, key := range keysOf(down) {
			require.Less(t, key, e.key(after))
		}
	}
	_, err := e.store.ListPage(e.ctx, e.key("another"), kv.WithStartAfter(e.key("1")))
	only(t, err, kv.ErrInvalidOption)
	_, err = e.store.List(e.ctx, e.prefix, kv.WithStartAfter(""))
	only(t, err, kv.ErrInvalidKey)
}

func testListMoreThanAPage(t *testing.T, e *env) {
	value := bytes.Repeat([]byte("0123456789abcdef"), 300<<10/16)
	var keys []string
	for i := range 11 { // 3.3 MB
		name := fmt.Sprintf("%02d", i)
		e.put(t, name, kv.WithBytes(value))
		keys = append(keys, e.key(name))
	}
	pairs, err := e.other.List(e.ctx, e.prefix)
	require.NoError(t, err)
	require.Equal(t, keys, keysOf(pairs))
	for _, pair := range pairs {
		require.True(t, bytes.Equal(value, pair.Bytes()))
	}
	require.Equal(t, keys, keysOf(pagesOf(t, e, e.other, e.prefix)))
	pairs, err = e.other.List(e.ctx, e.prefix, kv.WithLimit(10))
	require.NoError(t, err)
	require.Equal(t, keys[:10], keysOf(pairs))
	n, err := kv.DeletePrefix(e.ctx, counted(e.store, new(int)), e.prefix)
	require.NoError(t, err)
	require.Equal(t, 11, n)
}

func testListUnderWrites(t *testing.T, e *env) {
	var still []string
	for i := range 20 {
		still = append(still, e.fill(t, fmt.Sprintf("%02d still", i))...)
	}
	var writer sync.WaitGroup
	stop := make(chan struct{})
	writer.Go(func() {
		for i := 0; ; i++ {
			key := e.key(fmt.Sprintf("%02d moving", i%20))
			if err := e.store.Put(e.ctx, key); err != nil {
				t.Errorf("put: %v", err)
				return
			}
			if i%2 == 0 {
				if err := e.store.Delete(e.ctx, key); err != nil {
					t.Errorf("delete: %v", err)
					return
				}
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	defer writer.Wait()
	defer close(stop)
	for range 5 {
		got := keysOf(pagesOf(t, e, e.other, e.prefix, kv.WithLimit(3)))
		require.True(t, slices.IsSorted(got))
		got = slices.DeleteFunc(got, func(key string) bool { return strings.HasSuffix(key, "moving") })
		require.Equal(t, still, got)
	}
}

func testListHidesDeleted(t *testing.T, e *env) {
	for i := range 6 {
		pair := e.create(t, fmt.Sprint(i))
		switch i % 3 {
		case 0:
			require.NoError(t, e.store.Delete(e.ctx, pair.Key))
		case 1:
			require.NoError(t, e.store.AtomicDelete(e.ctx, pair.Key, pair))
		}
	}
	want := []string{e.key("2"), e.key("5")}
	require.Equal(t, want, keysOf(pagesOf(t, e, e.other, e.prefix, kv.WithLimit(1))))
	pairs, err := e.other.List(e.ctx, e.prefix, kv.WithLimit(2))
	require.NoError(t, err)
	require.Equal(t, want, keysOf(pairs))
}
