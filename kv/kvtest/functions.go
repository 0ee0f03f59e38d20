package kvtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
)

// functionScenarios are of package kv's functions, over what a driver's pages and watches are like.
var functionScenarios = []scenario{
	{"AllIsList", testAllIsList},
	{"AllBreaksOff", testAllBreaksOff},
	{"AllEndsWithItsContext", testAllEndsWithItsContext},
	{"DeletePrefixSparesSiblings", testDeletePrefix},
}

// maxPages bounds the pages of a listing, of any number of pairs that the suite writes.
const maxPages = 1000

// counted returns a store that counts the calls of ListPage, and ends a listing without an end.
func counted(store kv.Store, pages *int) kv.Store {
	return kv.Instrument(store, func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
		if call.Op == "ListPage" {
			if *pages++; *pages > maxPages {
				return errors.New("kvtest: the pages do not end")
			}
		}
		return next(ctx)
	})
}

func testAllIsList(t *testing.T, e *env) {
	keys := e.fill(t, "1", "2", "3", "4", "5")
	all := kv.All(e.ctx, counted(e.other, new(int)), e.prefix, kv.WithLimit(2), kv.Descending())
	slices.Reverse(keys)
	for range 2 { // each iteration starts anew
		var got []string
		for pair, err := range all {
			require.NoError(t, err)
			got = append(got, pair.Key)
		}
		require.Equal(t, keys, got)
	}
	for range kv.All(e.ctx, counted(e.other, new(int)), e.key("nothing")) {
		require.Fail(t, "there is nothing")
	}
}

func testAllBreaksOff(t *testing.T, e *env) {
	keys := e.fill(t, "1", "2", "3", "4", "5", "6")
	pages := 0
	var got []string
	for pair, err := range kv.All(e.ctx, counted(e.other, &pages), e.prefix, kv.WithLimit(2)) {
		require.NoError(t, err)
		if got = append(got, pair.Key); len(got) == 3 {
			break
		}
	}
	require.Equal(t, keys[:3], got)
	require.Equal(t, 2, pages, "a page is read when it is needed")
}

func testAllEndsWithItsContext(t *testing.T, e *env) {
	e.fill(t, "1", "2", "3", "4", "5", "6")
	ctx, cancel := context.WithCancel(e.ctx)
	defer cancel()
	observed := 0
	var last error
	for pair, err := range kv.All(ctx, counted(e.other, new(int)), e.prefix, kv.WithLimit(2)) {
		require.NoError(t, last, "nothing comes behind an error")
		if last = err; err != nil {
			require.Nil(t, pair)
			continue
		}
		if observed++; observed == 2 {
			cancel()
		}
	}
	require.ErrorIs(t, last, context.Canceled)
	require.Equal(t, 2, observed)
}

func testDeletePrefix(t *testing.T, e *env) {
	const pairs = 30 // more than a batch of DynamoDB's
	for i := range pairs {
		e.put(t, fmt.Sprintf("a/%02d", i))
	}
	siblings := e.fill(t, "a", "a.", "a0", "ab", "b/1", "A/1")
	for _, want := range []int{pairs, 0} {
		n, err := kv.DeletePrefix(e.ctx, counted(e.store, new(int)), e.key("a/"))
		require.NoError(t, err)
		require.Equal(t, want, n)
		left, err := e.other.List(e.ctx, e.prefix)
		require.NoError(t, err)
		require.Equal(t, siblings, keysOf(left))
	}
}
